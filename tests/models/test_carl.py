"""CARL's frame models: sizes and forward passes of the public code (tests/data/carl_models.json), and by hand."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from torch import nn

from reelwright.models.blocks.synced_norm import convert_batch_norms
from reelwright.models.blocks.weights import load_weights, remap_state_dict
from reelwright.models.contracts import model_layers
from reelwright.models.systems.carl import PUBLIC_NAMES, build_frame_model
from reelwright.models.systems.carl_embedders import EncoderLayer, sine_positions, stretched_positions
from reelwright.models.temporal.common import TemporalSizes
from reelwright.models.testing import TemporalModelTests
from reelwright.stages.fit.optim.build import freeze_groups

DATA = Path(__file__).resolve().parents[1] / "data" / "carl_models.json"
VECTORS = json.loads(DATA.read_text(encoding="utf-8"))

SMALL = {"hidden": 6, "embed_dim": 4, "projection_hidden": 4}
TINY = {"width": 4, "heads": 2, "mlp_width": 8, "layers": 2}
CASES = {  # name -> (model, options)
    "carl": ("carl", TINY),
    "carl, stretched": ("carl", TINY),
    "carl, training": ("carl", {**TINY, "dropout": 0.0}),
    "conv": ("conv", {"conv_width": 5, "source": "maps"}),
    "vanilla": ("vanilla", {"contexts": 2}),
}


@pytest.fixture(autouse=True)
def _one_seed():
    torch.manual_seed(0)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def carl(**options):
    """A small one, of rows of 3 features."""
    values = {"length": 5, "input_dim": 3, **SMALL, **TINY, **options}
    return build_frame_model("carl", **values).double().eval()


def rows_of(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def batch_of(rows, mask=None):
    return {"rows": rows, "mask": torch.ones(rows.shape[:2], dtype=torch.bool) if mask is None else mask}


def public_state(entries):
    """The weights of the public code in a case; see `_origin`."""
    state, place = {}, 1
    for name, shape in entries.items():
        size = math.prod(shape)
        values = (torch.arange(place, place + size, dtype=torch.float64) ** 2).sin().reshape(shape) / 2
        place += size
        shifted = name.endswith("running_var") or (len(shape) == 1 and name.endswith("weight"))
        state[name] = values + shifted
    return state


def in_layout(model, case):
    """The input of a case as the model takes it: rows of the public code are maps of 1 x 1."""
    shape = case["input"]
    maps = 2 * (torch.arange(math.prod(shape), dtype=torch.float64) ** 2).cos().reshape(shape)
    return maps if model.options.source == "maps" else maps.flatten(3).transpose(2, 3)


def test_every_case_is_looked_at():
    assert set(CASES) == set(VECTORS["cases"])


@pytest.mark.parametrize("name", CASES)
def test_forward_pass_of_the_public_code(name, monkeypatch):
    (kind, options), case = CASES[name], VECTORS["cases"][name]
    # the case has maps of 3 channels, which no ResNet gives
    monkeypatch.setattr("reelwright.models.systems.carl._input_dim", lambda *_, **__: 3)
    model = build_frame_model(kind, length=case["length"], input_dim=3, num_classes=5, **SMALL, **options).double()
    model.backbone = None
    load_weights(model, remap_state_dict(public_state(case["entries"]), prefix=None, key_map=PUBLIC_NAMES))
    rows = in_layout(model, case)
    mask = torch.tensor(case.get("mask", [[1] * rows.shape[1]] * len(rows)), dtype=torch.bool)
    with torch.no_grad():
        found = model.train("training" in name)(batch_of(rows, mask))
    steps = mask[:, :: model.options.contexts]
    for output, entry in (("embedding", "embedding"), ("aux.projected", "projected"), ("logits", "logits")):
        expected = torch.tensor(case[entry], dtype=torch.float64)
        torch.testing.assert_close(found[output][steps], expected[steps], rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", VECTORS["sizes"])
def test_sizes(name):
    kind, _, layers = name.removesuffix(" layers").partition(", ")
    options = {"layers": int(layers)} if layers else {}
    with torch.device("meta"):
        part = "projection" if kind == "projection" else "embedder"
        input_dim = None if kind == "conv" else 2048
        model = build_frame_model("carl" if part == "projection" else kind, length=240, input_dim=input_dim, **options)
    assert count(model.get_submodule(part)) == VECTORS["sizes"][name]


def test_sizes_of_the_whole_network():
    with torch.device("meta"):
        model = build_frame_model("carl", length=240, source="frames", layers=2)
        deeper = build_frame_model("carl", length=240, source="frames")
        at_layer_2 = build_frame_model("carl", length=240, source="frames", split=2)
        all_frozen = build_frame_model("carl", length=240, source="frames", split=None)
        conv = build_frame_model("conv", length=40, source="frames")
    assert count(model.backbone.base) == 8_543_296
    assert count(model.backbone.tuned) == 14_964_736
    assert (count(model), count(deeper)) == (26_598_848, 27_388_608)
    assert (count(at_layer_2), count(all_frozen)) == (27_388_608, 27_388_608)
    assert list(at_layer_2.backbone.tuned) == ["layer3", "layer4"]
    assert len(all_frozen.backbone.tuned) == 0
    assert count(conv.backbone) == 8_543_296  # layer 4 takes no part


@pytest.mark.parametrize(
    ("name", "num_rows", "length"),
    [("S3_d4", 3, 3), ("S5_d4_train_len3", 5, 3), ("S2_d4_train_len9", 2, 9)],
)
def test_positions_of_the_public_code(name, num_rows, length):
    positions = stretched_positions(torch.ones(1, num_rows, dtype=torch.bool), length)
    expected = torch.tensor(VECTORS["positional_encoding"][name], dtype=torch.float64)
    torch.testing.assert_close(sine_positions(positions, 4)[0], expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    ("mask", "length", "expected"),
    [
        ([1, 1, 1, 1, 1], 3, [0, 0.5, 1, 1.5, 2]),
        ([0, 1, 1, 1, 0, 0], 3, [0, 0, 1, 2, 0, 0]),
        ([1, 0, 1], 5, [0, 0, 4]),  # what is missing in between takes its time
        ([0, 1, 1, 0], 4, [0, 1, 2, 3]),  # as in training
        ([1], 9, [0]),
        ([0, 0], 9, [0, 0]),
        ([1, 1], 1, [0, 0]),
    ],
)
def test_positions_by_hand(mask, length, expected):
    positions = stretched_positions(torch.tensor([mask], dtype=torch.bool), length)
    assert positions.tolist() == [expected]


def test_sines_by_hand():
    found = sine_positions(torch.tensor([[2.0]]), 3)[0, 0].tolist()
    assert found == pytest.approx([math.sin(2), math.cos(2 / 10000 ** (1 / 3)), math.sin(2 / 10000 ** (2 / 3))])


def test_the_encoder_layer_is_torchs_with_other_names():
    torch.manual_seed(0)
    ours = EncoderLayer(8, heads=2, mlp_width=12, dropout=0.0).double()
    theirs = nn.TransformerEncoderLayer(8, 2, 12, 0.0, norm_first=True, batch_first=True, dtype=torch.float64)
    qkv = (ours.query, ours.key, ours.value)
    state = {
        "self_attn.in_proj_weight": torch.cat([layer.weight for layer in qkv]),
        "self_attn.in_proj_bias": torch.cat([layer.bias for layer in qkv]),
    }
    pairs = {"self_attn.out_proj": "out", "linear1": "mlp.0", "linear2": "mlp.2"}
    for name, own in {**pairs, "norm1": "norm_attention", "norm2": "norm_mlp"}.items():
        state |= {f"{name}.{kind}": getattr(ours.get_submodule(own), kind) for kind in ("weight", "bias")}
    theirs.load_state_dict(state)
    x, mask = rows_of(2, 5, 8), torch.tensor([[1, 1, 1, 1, 1], [1, 0, 1, 0, 0]], dtype=torch.bool)
    expected = theirs(x, src_key_padding_mask=~mask)
    torch.testing.assert_close(ours(x, mask[:, None, None]), expected, rtol=0, atol=1e-12)


def test_matrices_of_the_encoder_are_xavier_uniform():
    torch.manual_seed(0)
    layer = build_frame_model("carl", length=5, input_dim=3).embedder.layers[0]
    bound = math.sqrt(6 / (256 + 1024))
    assert 0.99 * bound < float(layer.mlp[0].weight.detach().abs().max()) <= bound


@pytest.mark.parametrize("equal", [False, True])
def test_layers_start_apart_but_for_compat(equal):
    torch.manual_seed(3)
    layers = carl(layers=3, equal_layers=equal).embedder.layers
    first, others = layers[0].state_dict(), [layer.state_dict() for layer in layers[1:]]
    matrices = [name for name, value in first.items() if value.ndim == 2]
    assert all(torch.equal(first[name], other[name]) is equal for name in matrices for other in others)
    assert len({id(parameter) for parameter in layers.parameters()}) == len(list(layers.parameters())) == 3 * 16


def test_one_seed_gives_one_model():
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(carl().state_dict()["embedder.layers.1.query.weight"])
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "mask", [[1, 1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0, 0]], ids=["behind", "around", "none"]
)
def test_masked_rows_change_nothing(training, mask):
    model = carl(dropout=0.0, num_classes=3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rows = rows_of(2, 7, 3)
    present = torch.tensor([[1] * 7, mask], dtype=torch.bool)
    other = rows.masked_fill(~present[..., None], math.nan)
    first = model.train(training)(batch_of(rows, present))
    statistics = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(before)
    second = model(batch_of(other, present))
    assert set(first) == {"embedding", "aux.projected", "logits"}
    for name, value in first.items():
        assert torch.equal(value, second[name])
        assert not value[~present].any()
        assert value[present].abs().sum(dim=-1).min() > 0
    assert all(torch.equal(value, statistics[name]) for name, value in model.state_dict().items())
    if not training and any(mask):
        alone = model(batch_of(rows[1:, present[1]]))
        torch.testing.assert_close(alone["embedding"], first["embedding"][1:, present[1]], rtol=0, atol=1e-12)


def test_a_row_sees_the_others_and_the_gradient_ends_at_padding():
    model = carl(hidden=32)
    rows = rows_of(1, 5, 3).requires_grad_()
    mask = torch.tensor([[1, 1, 1, 1, 0]], dtype=torch.bool)
    model(batch_of(rows, mask))["embedding"][0, 0, 0].backward()
    reached = rows.grad[0].abs().sum(dim=1) > 0
    assert reached.tolist() == [True, True, True, True, False]


def test_pieces_of_a_window_take_its_positions():
    model = carl(layers=0)  # nothing but its position tells a row from another then
    rows = rows_of(1, 9, 3)
    whole = model(batch_of(rows))["embedding"]
    positions = stretched_positions(torch.ones(1, 9, dtype=torch.bool), 5)
    piece = {**batch_of(rows[:, 3:7]), "positions": positions[:, 3:7]}
    torch.testing.assert_close(model(piece)["embedding"], whole[:, 3:7], rtol=0, atol=1e-12)
    assert not torch.allclose(model(batch_of(rows[:, 3:7]))["embedding"], whole[:, 3:7], atol=1e-3)


def test_of_tokens_the_maximum_is_seen():
    model = carl()
    tokens = rows_of(2, 5, 7, 3)
    found, expected = model(batch_of(tokens)), model(batch_of(tokens.amax(dim=2)))
    assert torch.equal(found["embedding"], expected["embedding"])


def test_what_is_asked_for_is_given():
    plain = carl(projection=False, normalize=False)
    assert set(plain(batch_of(rows_of(1, 5, 3)))) == {"embedding"}
    torch.manual_seed(0)
    model, raw = carl(num_classes=2), carl(num_classes=2, normalize=False)
    raw.load_state_dict(model.state_dict())
    found, unscaled = (each(batch_of(rows_of(1, 5, 3))) for each in (model, raw))
    length = unscaled["embedding"].norm(dim=-1, keepdim=True)
    torch.testing.assert_close(found["embedding"] * length, unscaled["embedding"])
    for name in ("embedding", "aux.projected"):
        torch.testing.assert_close(found[name].norm(dim=-1), torch.ones(1, 5, dtype=torch.float64))
    assert torch.equal(found["aux.projected"], unscaled["aux.projected"])
    assert found["logits"].shape == (1, 5, 2)


class TestCarl(TemporalModelTests):
    """With a classifier it is a model that labels rows."""

    sizes = (TemporalSizes(input_dim=5, num_outputs=3, length=6, per_row=True),)
    name = "carl"

    def build(self, sizes):
        return build_frame_model(
            self.name, length=sizes.length, input_dim=sizes.input_dim, num_classes=sizes.num_outputs
        )


class TestVanilla(TestCarl):
    name = "vanilla"


@pytest.mark.parametrize("source", ["rows", "maps"])
def test_half_precision_is_near(source):
    model = vanilla("maps", 3).eval() if source == "maps" else carl(hidden=32).float()
    rows = torch.randn(2, 5, 256, 2, 2) if source == "maps" else rows_of(2, 5, 3).float()
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]], dtype=torch.bool)
    expected = model(batch_of(rows, mask))
    stored = model(batch_of(rows.half(), mask))  # as stores hold them
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model(batch_of(rows.half(), mask))
    for name, value in expected.items():
        torch.testing.assert_close(stored[name], value, rtol=0, atol=0.01)
        torch.testing.assert_close(found[name].float(), value, rtol=0, atol=0.1)


# The ResNet, in two parts


def resnet(name="resnet18", seed=0):
    torch.manual_seed(seed)
    network = getattr(torchvision.models, name)(weights=None).eval()
    for module in network.modules():  # as after a training
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network


def maps_of(network, frames, layer):
    x = network.maxpool(network.relu(network.bn1(network.conv1(frames))))
    for number in range(1, layer + 1):
        x = getattr(network, f"layer{number}")(x)
    return x


def vanilla(source, split, **options):
    """As good as the ResNet alone."""
    sizes = {"length": 3, "input_dim": 512} if source == "rows" else {"length": 3}
    torch.manual_seed(5)
    return build_frame_model("vanilla", source=source, split=split, network="resnet18", **sizes, **SMALL, **options)


@pytest.mark.parametrize("split", [2, 3, None])
def test_frames_stored_maps_and_stored_rows_give_the_same(split):
    network = resnet()
    frames = torch.randn(2, 3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    from_frames, from_maps = vanilla("frames", split).eval(), vanilla("maps", split).eval()
    rows = vanilla("rows", split).eval()
    with torch.no_grad():
        maps = maps_of(network, frames.flatten(0, 1), split or 4).unflatten(0, (2, 3))
        pooled = maps_of(network, frames.flatten(0, 1), 4).amax(dim=(2, 3)).unflatten(0, (2, 3))
        for model in (from_frames, from_maps):
            model.load_resnet(network.state_dict())
            rows.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("backbone")})
            given = {"frames": frames} if model is from_frames else {"rows": maps}
            found = model({**given, "mask": torch.ones(2, 3, dtype=torch.bool)})
            torch.testing.assert_close(found["embedding"], rows(batch_of(pooled))["embedding"])


def test_the_frozen_base_sees_a_few_frames_at_a_time_and_no_statistics_change():
    network, models = resnet(), [vanilla("frames", 3, frames_per_call=number, dropout=0.0) for number in (2, 40)]
    frames = torch.randn(1, 5, 3, 32, 32)
    found = []
    for model in models:
        model.load_resnet(network.state_dict())
        before = {name: value.clone() for name, value in model.backbone.base.state_dict().items()}
        found.append(model.train()({"frames": frames, "mask": torch.ones(1, 5, dtype=torch.bool)})["aux.projected"])
        assert all(torch.equal(value, before[name]) for name, value in model.backbone.base.state_dict().items())
    torch.testing.assert_close(*found)
    found[0].sum().backward()
    with_gradient = {name for name, value in models[0].named_parameters() if value.grad is not None}
    assert not any(name.startswith("backbone.base") for name in with_gradient)
    assert any(name.startswith("backbone.tuned.layer4") for name in with_gradient)


def test_weights_of_timm_fit_too():
    model = vanilla("maps", 3)
    state = timm.create_model("resnet18", pretrained=False).state_dict()
    model.load_resnet(state)
    assert torch.equal(model.backbone.tuned["layer4"][0].conv1.weight, state["layer4.0.conv1.weight"])
    with pytest.raises(ValueError, match="the weights do not fit the model"):
        model.load_resnet(resnet("resnet50").state_dict())
    with pytest.raises(ValueError, match="holds no ResNet"):
        vanilla("rows", 3).load_resnet(state)


@pytest.mark.parametrize("split", [2, 3, None])
def test_names_of_whole_checkpoints_of_the_public_code(split):
    """There the ResNet is torch.nn.Sequential, cut behind layer `split`."""
    children = list(resnet().children())[:-2]
    end = len(children) if split is None else 4 + split
    tuned = children[end] if split == 3 else nn.Sequential(*children[end:])
    public = nn.ModuleDict({"backbone": nn.Sequential(*children[:end]), "res_finetune": tuned})
    model = vanilla("frames", split)
    load_weights(model.backbone, _without(remap_state_dict(public.state_dict(), prefix=None, key_map=PUBLIC_NAMES)))
    other = vanilla("frames", split)
    other.load_resnet(resnet().state_dict())
    found, expected = (each.backbone.state_dict() for each in (model, other))
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


def _without(state):
    return {name.removeprefix("backbone."): value for name, value in state.items()}


@pytest.mark.parametrize("state", ["trained", "frozen", "frozen_norms"])
def test_parts_of_the_network(state):
    model = vanilla("frames", 3, base=state, tuned="frozen_norms", num_classes=2)
    assert list(model.parts) == ["backbone.base", "backbone.tuned", "embedder", "projection", "classifier"]
    assert [part.state for part in model.parts.values()] == [state, "frozen_norms", *["trained"] * 3]
    freeze_groups(model, [], where="train")
    model.train()
    assert any(parameter.requires_grad for parameter in model.backbone.base.parameters()) is (state != "frozen")
    assert model.backbone.base["layer1"].training is (state != "frozen")
    assert model.backbone.base["bn1"].training is (state == "trained")
    assert not model.backbone.tuned["layer4"][0].bn1.training
    assert model.projection.layers[1].training
    layers = model_layers(model)
    order = ["backbone.base.conv1.weight", "backbone.base.layer1.0.conv1.weight", "backbone.base.layer3.1.bn2.bias"]
    order += ["backbone.tuned.layer4.0.conv1.weight", "embedder.fc.1.weight", "projection.layers.0.weight"]
    ids = [layers[name] for name in order]
    assert ids == sorted(set(ids))
    assert ids[:4] == [0, 1, 3, 4]


def test_of_stored_views_the_one_that_is_named_is_seen():
    model = vanilla("maps", 3).eval()
    maps = torch.randn(2, 3, 4, 256, 2, 2)
    mask = torch.ones(2, 3, dtype=torch.bool)
    chosen = torch.stack([maps[0, :, 3], maps[1, :, 1]])
    named = model({"rows": maps, "mask": mask, "map_view": torch.tensor([3, 1])})
    assert torch.equal(named["embedding"], model(batch_of(chosen))["embedding"])
    assert torch.equal(model(batch_of(maps, mask))["embedding"], model(batch_of(maps[:, :, 0]))["embedding"])


# Contexts


def conv(**options):
    torch.manual_seed(0)
    sizes = {**SMALL, "conv_width": 5, "network": "resnet18", **options}
    return build_frame_model("conv", length=2, **sizes).eval()


def test_contexts_of_a_step_are_seen_and_those_of_others_are_not():
    model, maps = conv(conv_width=32, hidden=32), torch.randn(1, 6, 256, 5, 5).requires_grad_()
    found = model(batch_of(maps, torch.ones(1, 3, dtype=torch.bool)))["embedding"]
    assert found.shape == (1, 3, 4)
    found[0, 1].sum().backward()
    assert (maps.grad[0].flatten(1).abs().sum(dim=1) > 0).tolist() == [False, False, True, True, False, False]


@pytest.mark.parametrize("training", [False, True])
def test_a_mask_of_rows_is_that_of_their_steps(training):
    maps = torch.randn(2, 4, 256, 6, 6)
    of_steps = torch.tensor([[1, 1], [1, 0]], dtype=torch.bool)
    of_rows = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 0]], dtype=torch.bool)  # the step itself stands last
    torn = maps.clone()
    torn[1, 2:] = math.nan
    first, second = (conv(dropout=0.0).train(training)(batch_of(x, m)) for x, m in ((maps, of_steps), (torn, of_rows)))
    assert torch.equal(first["embedding"], second["embedding"])
    assert not first["embedding"][1, 1].any()


def test_a_convolution_by_hand():
    """One channel, one layer, a kernel of ones: the largest sum of 3 x 3 over what is there of three rows."""
    model = conv(conv_width=1, conv_layers=1, hidden=1, hidden_layers=1, embed_dim=1, normalize=False, contexts=3)
    model.embedder.conv[0] = nn.Conv3d(1, 1, 3, padding=(1, 0, 0), bias=False)
    for parameter in (model.embedder.conv[0].weight, model.embedder.fc[1].weight, model.embedder.embed.weight):
        nn.init.ones_(parameter)
    for bias in (model.embedder.fc[1].bias, model.embedder.embed.bias):
        nn.init.zeros_(bias)
    model.embedder.conv[1].eps = 0.0
    maps = torch.zeros(1, 3, 1, 3, 4)
    maps[0, :, 0, 1, 3] = torch.tensor([1.0, 2.0, 4.0])  # sums over rows: 3 (padded), 7, 6
    maps[0, 2, 0, 1, 0] = 0.5
    assert model(batch_of(maps))["embedding"].tolist() == [[[7.0]]]


# What is refused


def test_a_video_of_one_frame_is_embedded_and_no_batch_of_its_own(monkeypatch):
    model = carl()
    assert model(batch_of(rows_of(1, 1, 3)))["embedding"].isfinite().all()
    with pytest.raises(ValueError, match="a batch of a single step has no statistics"):
        model.train()(batch_of(rows_of(1, 1, 3)))
    assert model.train()(batch_of(rows_of(2, 1, 3)))["embedding"].isfinite().all()
    convert_batch_norms(model)  # statistics of all processes, of which this is one
    monkeypatch.setattr("reelwright.models.blocks.synced_norm.sum_of_all", lambda values: values)
    assert model.float().train()(batch_of(rows_of(1, 1, 3)))["embedding"].isfinite().all()


@pytest.mark.parametrize(
    ("kind", "options", "match"),
    [
        ("crl", {}, "unknown frame model 'crl'.*did you mean 'carl'"),
        ("carl", {"layer": 2}, "unknown option of carl 'layer'.*did you mean 'layers'"),
        ("carl", {"heads": 7}, "width 256 does not divide into 7 heads"),
        ("carl", {"layers": -1}, "layers is -1"),
        ("carl", {"contexts": 2}, "carl sees all rows"),
        ("carl", {"split": 1}, "split is 1; allowed: 2, 3, None"),
        ("carl", {"base": "thawed"}, "base is 'thawed'"),
        ("carl", {"network": "vgg"}, "network is 'vgg'"),
        ("carl", {"dropout": 1.0}, "dropout is 1.0"),
        ("conv", {"source": "rows"}, "source is 'rows'; allowed: maps, frames"),
        ("conv", {"conv_layers": 0}, "conv_layers is 0"),
        ("carl", {"input_dim": None}, "source rows needs input_dim"),
        ("carl", {"source": "maps", "input_dim": 512}, "512 channels, those of layer 3 of resnet50 1024"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_settings_that_cannot_be(kind, options, match):
    with pytest.raises(ValueError, match=match):
        build_frame_model(kind, **{"length": 5, "input_dim": 3, **options})


def test_options_are_checked_without_torch():
    code = """
import sys
from reelwright.models.systems.carl_options import FRAME_MODEL_OPTIONS
from reelwright.models.temporal.options import check_options
check_options("conv", ["contexts"], known=FRAME_MODEL_OPTIONS)
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def test_sizes_below_one_are_refused():
    with pytest.raises(ValueError, match="length is 0; it must be at least 1"):
        build_frame_model("carl", length=0, input_dim=3)


@pytest.mark.parametrize(
    ("model", "batch", "match"),
    [
        (carl, batch_of(rows_of(2, 5, 3), torch.zeros(2, 5, dtype=torch.bool)), "all 10 steps are padded"),
        (carl, batch_of(rows_of(2, 3)), r"source rows takes tensors of 3 or 4 axes, not of shape \(2, 3\)"),
        (carl, batch_of(rows_of(2, 5, 3), torch.ones(2, 4, dtype=torch.bool)), "5 rows with a mask of 4"),
        (conv, batch_of(torch.zeros(1, 3, 256, 5, 5)), "3 rows with a mask of 3 are no steps of 2 rows"),
        (conv, batch_of(torch.zeros(1, 2, 256, 4, 4)), "maps of 4 x 4 are too small"),
        (
            lambda: vanilla("frames", 3),
            {"frames": torch.zeros(1, 2, 3, 32, 32, dtype=torch.uint8), "mask": torch.ones(1, 2, dtype=torch.bool)},
            "frames are torch.uint8; normalise them first",
        ),
    ],
    ids=["padded", "axes", "mask", "contexts", "small maps", "bytes"],
)
def test_batches_that_cannot_be(model, batch, match):
    with pytest.raises(ValueError, match=match):
        model()(batch)
