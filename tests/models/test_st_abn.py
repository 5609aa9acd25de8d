"""ST-ABN: sizes and numbers of the public code (tests/data/stabn.json), inflated weights, and properties by hand."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional

from reelwright.models.blocks.activation_checkpointing import recompute, recompute_blocks
from reelwright.models.blocks.attention_branch import AttentionBranch, AttentionGate
from reelwright.models.blocks.init_from import start_from
from reelwright.models.blocks.weights import remap_state_dict
from reelwright.models.contracts import model_layers
from reelwright.models.systems.st_abn import PUBLIC_NAMES, StAbn, StAbnOptions
from reelwright.models.temporal.attention_branch import as_maps
from reelwright.models.temporal.build import build_temporal

VECTORS = json.loads((Path(__file__).parents[1] / "data" / "stabn.json").read_text(encoding="utf-8"))
NUMERIC, SHAPES = VECTORS["attention_branch_numeric"], VECTORS["full_backbone_shapes"]


@pytest.fixture(autouse=True)
def _one_seed():
    torch.manual_seed(0)


def public_name(name):
    (found,) = remap_state_dict({name: torch.zeros(0)}, prefix=None, key_map=PUBLIC_NAMES)
    return found


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def clip(*shape):
    return {"frames": torch.randn(*shape), "mask": torch.ones(shape[:2], dtype=torch.bool)}


def reference_parts():
    """The branch and gate of the vector, filled as its recipe says."""
    parts = nn.ModuleDict(
        {
            "branch": AttentionBranch(
                nn.Sequential(nn.Conv3d(6, 12, 1, bias=False)), num_features=12, num_outputs=4, length=3
            ),
            "gate": AttentionGate(6),
        }
    ).eval()
    own = dict(parts.named_parameters())
    names = {name: public_name(name).replace("trunk.weight", "trunk.0.weight") for _, name, _ in NUMERIC["param_order"]}
    with torch.no_grad():
        for number, name, shape in NUMERIC["param_order"]:
            size = torch.Size(shape).numel()
            values = 0.5 * (0.7 * torch.arange(size, dtype=torch.float64) + 1.3 * number).sin()
            values = values + 0.6 if "bn" in name and name.endswith("weight") else values
            own[names[name]].copy_(values.reshape(shape))
    return parts, {*own} - {*names.values()}


def test_the_branch_and_the_gate_give_the_published_numbers():
    parts, unset = reference_parts()
    assert unset == {"branch.head.weight", "branch.head.bias"}
    x = (0.37 * torch.arange(6 * 3 * 14 * 14, dtype=torch.float64) + 0.2).sin().float().reshape(1, 6, 3, 14, 14)
    x = x.relu()  # of the stem, which the recipe leaves in place
    pooled = []
    parts["branch"].dropout.register_forward_hook(lambda _, given, __: pooled.append(given[0]))
    with torch.no_grad():
        attention = parts["branch"](x, torch.ones(1, 3, dtype=torch.bool))
        fused = parts["gate"](x, attention)
    close = {"atol": 2e-6, "rtol": 0}
    wanted = torch.tensor(NUMERIC["attention_logits_before_fc (1,K,T,1,1)"])
    torch.testing.assert_close(pooled[0][0], wanted, **close)
    torch.testing.assert_close(attention.time[0], torch.tensor(NUMERIC["temporal_attention(1,1,T,1,1)"]), **close)
    corner = torch.tensor(NUMERIC["spatial_attention[0,0,:,0,0:4]"])
    torch.testing.assert_close(attention.space[0, :, 0, :4], corner, **close)
    sums = torch.tensor(NUMERIC["spatial_attention_sum_per_frame"])
    torch.testing.assert_close(attention.space[0].sum(dim=(1, 2)), sums, atol=2e-4, rtol=0)
    assert list(fused.shape) == NUMERIC["perception_input_shape"]
    torch.testing.assert_close(fused[0, :, :, 0, 0], torch.tensor(NUMERIC["perception_input[0,:,:,0,0]"]), **close)
    assert float(fused.sum()) == pytest.approx(NUMERIC["perception_input_sum"], abs=2e-3)


def test_the_later_version_has_no_relu_behind_the_gate():
    parts, _ = reference_parts()
    later = AttentionGate(6, version="v2").eval()
    later.load_state_dict(parts["gate"].state_dict())
    x = torch.randn(2, 6, 3, 5, 4)
    with torch.no_grad():
        attention = parts["branch"](x, torch.ones(2, 3, dtype=torch.bool))
        first, second = parts["gate"](x, attention), later(x, attention)
    assert float(second.min()) < 0
    assert torch.equal(second.relu(), first)


def test_parameter_counts_are_the_published_ones():
    with torch.device("meta"):
        model = StAbn(length=32, num_outputs=174)
    wanted = SHAPES["param_counts(depth50,T32,K174)"]
    heads = {"attention_fc(174*32->174)": "branch.head", "perception_fc(2048->174)": "head"}
    total = wanted["total_backbone"]
    for name, number in wanted.items():
        if name != "total_backbone":
            place = heads.get(name) or public_name(f"{name}.weight").removesuffix(".weight")
            assert count(model.get_submodule(place)) == number, name
    assert count(model) - count(model.head) - count(model.branch.head) == total
    assert set(model_layers(model)) == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize("depth", [18, 50])
def test_shapes(depth):
    model = StAbn(length=4, num_outputs=7, options=StAbnOptions(depth=depth)).eval()
    with torch.no_grad():
        found = model(clip(1, 4, 3, 64, 96))
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        "logits": (1, 7),
        "aux.attention_logits": (1, 7),
        "attention.space": (1, 4, 4, 6),
        "attention.time": (1, 4),
    }
    for name in ("attention.space", "attention.time"):
        assert float(found[name].min()) > 0
        assert float(found[name].max()) < 1
    assert model.branch.head.in_features == 7 * 4


def test_windows_of_another_length_are_refused_where_time_is_dense():
    with pytest.raises(ValueError, match="the window has 5 rows, but attention in time was learned for exactly 4"):
        StAbn(length=4, num_outputs=2, options=StAbnOptions(depth=18)).eval()(clip(1, 5, 3, 32, 32))
    sizes = {"input_dim": 5, "num_outputs": 2, "length": 4, "per_row": False, "width": 8, "layers": 1}
    with pytest.raises(ValueError, match="the window has 5 rows, but attention in time was learned for exactly 4"):
        build_temporal("attention_branch", branch="ungated", **sizes).eval()(
            {"rows": torch.zeros(1, 5, 5), "mask": torch.ones(1, 5, dtype=torch.bool)}
        )
    free = StAbn(length=4, num_outputs=2, options=StAbnOptions(depth=18, time="convolutional")).eval()
    with torch.no_grad():
        assert free(clip(1, 5, 3, 32, 32))["attention.time"].shape == (1, 5)


def test_inflated_weights_see_a_still_video_as_the_image_network_sees_its_frame():
    """But at the ends, where kernels reach beyond the video; the weights are named as the image network's."""
    flat = torchvision.models.resnet18(weights=None).eval()
    model = StAbn(length=9, num_outputs=3, options=StAbnOptions(depth=18)).eval()
    report = start_from(model, model.public_state(flat.state_dict()), replace_heads=False, keep_heads=False)
    assert all(name.startswith(("branch.", "gate.", "head.")) for name in report.new)
    assert report.unused == ("fc.weight", "fc.bias")
    image = torch.randn(1, 3, 64, 64)
    x = image[:, :, None].expand(-1, -1, 9, -1, -1)
    with torch.no_grad():
        wanted = flat.layer3(flat.layer2(flat.layer1(flat.maxpool(flat.relu(flat.bn1(flat.conv1(image)))))))
        for name in ("stem", "layer1", "layer2", "layer3"):
            x = model.resnet[name](x)
    torch.testing.assert_close(x[:, :, 4], wanted, rtol=1e-4, atol=1e-4)
    other = model.public_state(torchvision.models.resnet50(weights=None).state_dict())
    with pytest.raises(ValueError, match="layer1"):
        start_from(model, other, replace_heads=False, keep_heads=False)


def test_a_frame_changes_attention_in_time_of_others_and_in_space_near_it_only():
    """The trunk reaches over one frame to each side a bottleneck."""
    model = build_temporal(
        "attention_branch", input_dim=5, num_outputs=3, length=8, per_row=False, width=8, layers=1, dropout=0.0
    ).eval()
    rows = torch.randn(1, 8, 5, 4, 4)
    changed = rows.clone()
    changed[0, 0] += 3
    mask = torch.ones(1, 8, dtype=torch.bool)
    with torch.no_grad():
        before, after = (model({"rows": given, "mask": mask}) for given in (rows, changed))
    moved = (before["attention.space"] != after["attention.space"]).flatten(2).any(2)[0]
    assert moved.tolist() == [True, True, *[False] * 6]
    assert (before["attention.time"] != after["attention.time"]).any(0)[4:].any()


@pytest.mark.parametrize("per_row", [False, True])
@pytest.mark.parametrize(
    ("shape", "grid"), [((6,), (1, 1)), ((10, 6), (3, 3)), ((9, 6), (3, 3)), ((6, 2, 4), (2, 4))],
    ids=["vectors", "tokens and a class token", "tokens", "maps"],
)  # fmt: skip
def test_rows_are_vectors_tokens_or_maps(shape, grid, per_row):
    model = build_temporal("attention_branch", input_dim=6, num_outputs=3, length=5, per_row=per_row, width=8)
    found = model({"rows": torch.randn(2, 5, *shape), "mask": torch.ones(2, 5, dtype=torch.bool)})
    logits = (2, 5, 3) if per_row else (2, 3)
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        "logits": logits,
        "aux.attention_logits": logits,
        "attention.space": (2, 5, *grid),
        "attention.time": (2, 5),
    }


def test_tokens_lie_on_their_grid_row_by_row():
    tokens = torch.arange(7.0).reshape(1, 1, 7, 1)
    assert as_maps(tokens).tolist() == [[[[[3.0, 4.0], [5.0, 6.0]]]]]
    with pytest.raises(ValueError, match="35 tokens are no square grid"):
        as_maps(torch.zeros(1, 1, 35, 2))
    with pytest.raises(ValueError, match="neither vectors, tokens nor maps"):
        as_maps(torch.zeros(1, 2))


def test_padded_frames_change_nothing_and_all_that_learns_has_a_gradient():
    model = StAbn(length=4, num_outputs=2, options=StAbnOptions(depth=18)).eval()
    batch = clip(2, 4, 3, 32, 32)
    batch["mask"][0, 2:] = False
    other = {**batch, "frames": batch["frames"].clone()}
    other["frames"][0, 2:] = torch.nan
    with torch.no_grad():
        before, after = model(batch), model(other)
    assert all(torch.equal(before[name], after[name]) for name in before)
    sum(value.square().sum() for value in model.train()(batch).values()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("name", ["time", "space"])
def test_edited_attention_is_what_the_gate_sees(name):
    """Factors and summands, within [0, 1]; the branch's own answer stays."""
    model = StAbn(length=2, num_outputs=3, options=StAbnOptions(depth=18)).eval()
    seen = []
    model.gate.register_forward_pre_hook(lambda _gate, inputs: seen.append(inputs[1]))
    batch = clip(1, 2, 3, 32, 32)
    with torch.inference_mode():
        before = model(batch)
        attention = before[f"attention.{name}"]
        changes = torch.stack([torch.full_like(attention, 0.5), torch.full_like(attention, 0.125)], dim=-1)
        changes[:, 0] *= 100
        after = model({**batch, f"attention_edit.{name}": changes})
    wanted = (attention * changes[..., 0] + changes[..., 1]).clamp(0, 1)
    assert float(wanted.max()) == 1.0
    assert torch.equal(after[f"attention.{name}"], wanted)
    assert torch.equal(getattr(seen[1], name), wanted)
    assert torch.equal(after["aux.attention_logits"], before["aux.attention_logits"])
    assert not torch.equal(after["logits"], before["logits"])


def test_blocks_computed_again_give_the_same_gradients_and_statistics():
    """Batch norms see a batch once, though their blocks are computed twice; of st_abn all blocks but the stem are."""
    plain = nn.Sequential(nn.Conv3d(3, 4, 1), nn.BatchNorm3d(4), nn.ReLU(), nn.Conv3d(4, 2, 1)).train()
    again = copy.deepcopy(plain)
    recompute(again)
    x = torch.randn(2, 3, 2, 5, 5, requires_grad=True)
    for block in (plain, again):
        block(x).square().sum().backward()
    for (name, one), two in zip(plain.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(one, two), name
    for one, two in zip(plain.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(two.grad, one.grad)
    with torch.device("meta"):
        model = StAbn(length=2, num_outputs=2, options=StAbnOptions(depth=18))
    assert recompute_blocks(nn.ModuleDict({"model": model})) == 1
    assert sum("forward" in vars(block) for block in model.modules()) == 10


@pytest.mark.parametrize("per_row", [False, True])
def test_without_the_branch_space_is_grad_cam_of_the_answer(per_row):
    """Against gradients of the answer's logit, averaged over the frame or the window."""
    model = build_temporal(
        "attention_branch", input_dim=5, num_outputs=3, length=4, per_row=per_row, width=8, layers=1, branch=False
    ).eval()
    kept = []
    model.perceive[-1].register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    outputs = model({"rows": torch.randn(2, 4, 5, 3, 3), "mask": torch.ones(2, 4, dtype=torch.bool)})
    assert set(outputs) == {"logits", "attention.space"}
    (features,) = kept
    best = outputs["logits"].max(dim=-1).values
    gradient = torch.autograd.grad(best.sum(), features)[0]
    axes = (3, 4) if per_row else (2, 3, 4)
    wanted = (features * gradient.mean(dim=axes, keepdim=True)).sum(dim=1).relu()
    wanted = wanted / wanted.amax(dim=(1, 2, 3), keepdim=True)
    torch.testing.assert_close(outputs["attention.space"], wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("branch", [False, "ungated"])
def test_grad_cam_of_a_window_is_the_same_however_far_it_is_padded(branch):
    """The most of padded rows is no measure of the real ones."""
    sizes = {"input_dim": 5, "num_outputs": 3, "length": 4, "per_row": False, "width": 8, "layers": 1}
    torch.manual_seed(0)
    model = build_temporal("attention_branch", branch=branch, time="convolutional", **sizes).eval()
    for norm in (part for part in model.perceive.modules() if isinstance(part, nn.BatchNorm3d)):
        nn.init.normal_(norm.bias, std=3.0)  # so that there is something where no row is
    rows, mask = torch.randn(8, 4, 5, 3, 3), torch.ones(8, 4, dtype=torch.bool)
    alone = model({"rows": rows, "mask": mask})["attention.space"]
    assert bool((alone.amax(dim=(1, 2, 3)) > 0).any())
    padded = model(
        {"rows": functional.pad(rows, (0, 0) * 3 + (0, 3)), "mask": functional.pad(mask, (0, 3), value=False)}
    )["attention.space"]
    torch.testing.assert_close(padded[:, :4], alone)
    assert not padded[:, 4:].any()


def test_an_ungated_branch_is_the_network_with_attention_of_one():
    """Of the same depth and classifiers, to compare with; what makes S and M is not there."""
    sizes = {"input_dim": 6, "num_outputs": 3, "length": 4, "per_row": False, "width": 8, "layers": 1}
    torch.manual_seed(0)
    whole = build_temporal("attention_branch", **sizes).eval()
    plain = build_temporal("attention_branch", branch="ungated", **sizes).eval()
    state = plain.state_dict()
    plain.load_state_dict({name: value for name, value in whole.state_dict().items() if name in state})
    assert {name.split(".")[1] for name in whole.state_dict().keys() - state.keys()} == {
        *("time_conv", "time_norm", "time", "space_conv", "space_norm")
    }
    batch = {"rows": torch.randn(2, 4, 6, 3, 3), "mask": torch.ones(2, 4, dtype=torch.bool)}
    ones = torch.tensor([0.0, 1.0])
    edits = {"attention_edit.time": ones.expand(2, 4, 2), "attention_edit.space": ones.expand(2, 4, 3, 3, 2)}
    found, wanted = plain(batch), whole({**batch, **edits})
    for name in ("logits", "aux.attention_logits"):
        torch.testing.assert_close(found[name], wanted[name])
    assert set(found) == {"logits", "aux.attention_logits", "attention.space"}
    assert bool((found["attention.space"] <= 1).all())


@pytest.mark.parametrize("scale", [1.0, -0.7])
def test_positive_attention_in_space_never_falls_where_evidence_rises(scale):
    branch = AttentionBranch(nn.Sequential(), num_features=5, num_outputs=3, length=2, space="positive").eval()
    nn.init.constant_(branch.space_norm.weight, scale)
    seen = []
    branch.evidence_norm.register_forward_hook(lambda _module, _given, found: seen.append(found.relu()))
    x, mask = torch.randn(1, 5, 2, 3, 3), torch.ones(1, 2, dtype=torch.bool)
    with torch.no_grad():
        low, high = (branch(value, mask).space for value in (x, x + 0.5 * torch.rand_like(x)))
        rises = (seen[1] >= seen[0]).all(dim=1)
        assert bool(rises.any())
        assert bool((high >= low)[rises].all())
        assert bool((high > low)[rises].any())
    whole = StAbn(length=2, num_outputs=3, options=StAbnOptions(depth=18, space="positive"))
    rows = build_temporal(
        "attention_branch", input_dim=4, num_outputs=3, length=2, per_row=False, width=8, space="positive"
    )
    assert whole.branch.is_positive
    assert rows.branch.is_positive
