"""CAST against values of its public code (tests/data/cast.json) and against what it promises."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from reelwright.models.blocks.layer_ids import layer_scales, undecayed_names
from reelwright.models.clip_options import CastOptions
from reelwright.models.contracts import model_layers
from reelwright.models.encoders.build import build_encoder
from reelwright.models.systems.cast.blocks import CrossAttention
from reelwright.models.systems.cast.experts import Expert, repeat_real
from reelwright.models.systems.cast.model import CastBlock, build_cast
from reelwright.models.systems.cast.public_names import from_public

VALUES = json.loads((Path(__file__).parents[1] / "data" / "cast.json").read_text())
SIZES = VALUES["model_sizes"]
CLIP = "timm/vit_base_patch16_clip_quickgelu_224"
VMAE = "videomae/vit_small_patch16_224"
WIDTH, DEPTH, FRAMES = 8, 3, 4
SPACE_ARGS = {"embed_dim": WIDTH, "depth": DEPTH, "num_heads": 2, "img_size": 32}
TIME_ARGS = {"width": WIDTH, "depth": DEPTH, "heads": 2, "img_size": 32, "clip_length": FRAMES}
HEADS = [("verb", 3), ("noun", 2)]


def options(**given):
    """Of two small experts with a grid of 2 x 2 x 2 places."""
    return CastOptions(**{"space": CLIP, "time": VMAE, "space_args": SPACE_ARGS, "time_args": TIME_ARGS, **given})


def cast(*, sizes=HEADS, seed=0, **given):
    torch.manual_seed(seed)
    return build_cast(length=FRAMES, sizes=sizes, options=options(**given))


def waves(shape, *, step, start, amplitude=1.0):
    count = math.prod(shape)
    return amplitude * torch.sin(step * torch.arange(count, dtype=torch.float64) + start).reshape(shape).float()


def fill(module, order, names, *, amplitude):
    """Parameter i of the public code, by our names, as the recipe of the values says."""
    state = module.state_dict()
    for (number, public, shape), name in zip(order, names, strict=True):
        value = waves(shape, step=0.7, start=1.3 * number, amplitude=amplitude)
        assert state[name].shape == value.shape, (public, name)
        state[name] = value
    module.load_state_dict(state)


def clips(batch=2, *, seed=1):
    frames = torch.rand(batch, FRAMES, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
    return {"frames": frames, "mask": torch.ones(batch, FRAMES, dtype=torch.bool)}


def awake(model, *, seed=2):
    """The model with random numbers where it begins with zeros."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if not name.startswith(("space.", "time.")):
                value.add_(0.1 * torch.randn(value.shape, generator=generator))
    return model


@pytest.mark.parametrize(
    ("kind", "window", "names"),
    [
        (
            "t2s",
            "time",
            ["query_pos", "key_pos", "q_bias", "kv_bias", "q.weight", "kv.weight", "proj.weight", "proj.bias"],
        ),
        (
            "s2t",
            "space",
            ["key_pos", "query_pos", "q_bias", "kv_bias", "q.weight", "kv.weight", "proj.weight", "proj.bias"],
        ),
    ],
)
def test_cross_attention_of_the_public_code(kind, window, names):
    values = VALUES["bcast_cross_attention"]
    cross = CrossAttention(4, heads=2, window=window, grid=(2, 3))
    fill(cross, values[f"{kind}_param_order"], names, amplitude=0.3)
    space = waves((4, 4, 4), step=0.37, start=0.2)[1:].unflatten(1, (2, 2)).permute(1, 2, 0, 3)  # (B,T,N,D)
    time = waves((2, 6, 4), step=0.53, start=0.9).unflatten(1, (2, 3))
    with torch.no_grad():
        found = cross(*((space, time) if kind == "t2s" else (time, space)))
    if kind == "t2s":  # the first row is the class token, which passes on as it is
        expected = torch.tensor(values["t2s_out(N+1,B*T,D)"])[1:].unflatten(1, (2, 2)).permute(1, 2, 0, 3)
    else:
        expected = torch.tensor(values["s2t_out(B,T*N,D)"]).unflatten(1, (2, 3))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def experts_of_values():
    """Of width 8, one block and a grid of 2 x 1 x 3."""
    space = build_encoder(CLIP, model_args={**SPACE_ARGS, "depth": 1, "img_size": (16, 48)})
    time = build_encoder(VMAE, model_args={**TIME_ARGS, "depth": 1})
    found = {name: Expert(each, length=FRAMES, every=2) for name, each in {"space": space, "time": time}.items()}
    found["time"].grid = found["space"].grid
    for block in found["time"].model.blocks:
        block.norm1.eps = block.norm2.eps = 1e-5
    return found


def test_a_block_of_the_public_code():
    values, experts = VALUES["bcast_block"], experts_of_values()
    block = CastBlock(experts, CastOptions(), exchanges=True, rate=0.2).eval()
    for norm in block.exchange.norm.values():
        norm.eps = 1e-5
    whole = torch.nn.ModuleDict({**experts, "blocks": torch.nn.ModuleDict({"0": block})})
    names = list(from_public({f"blocks.0.{public}": torch.zeros(1) for _, public, _ in values["param_order"]}))
    fill(whole, values["param_order"], names, amplitude=0.2)
    space = waves((4, 4, 8), step=0.37, start=0.2).transpose(0, 1)  # frames first
    time = waves((2, 6, 8), step=0.53, start=0.9)
    with torch.no_grad():
        found = block(experts, 0, {"space": space, "time": time})
    torch.testing.assert_close(found["space"].transpose(0, 1), torch.tensor(values["s_out"]), rtol=0, atol=2e-6)
    torch.testing.assert_close(found["time"], torch.tensor(values["t_out"]), rtol=0, atol=2e-6)


@pytest.fixture(scope="module")
def whole():
    """The three published sizes, without memory for their weights."""
    heads = {"single_head_400": [("x", 400)], "single_head_174": [("x", 174)], "single_head_101": [("x", 101)]}
    with torch.device("meta"):
        found = {
            name: build_cast(length=16, sizes=sizes, options=CastOptions(drop_path=0.2))
            for name, sizes in {**heads, "ek100_two_heads": [("verb", 97), ("noun", 300)]}.items()
        }
    for model in found.values():
        model.requires_grad_(requires_grad=True)
        for name, part in model.parts.items():
            model.get_submodule(name).requires_grad_(requires_grad=part.state == "trained")
    return found


@pytest.mark.parametrize("name", ["single_head_400", "single_head_174", "single_head_101", "ek100_two_heads"])
def test_sizes_of_the_public_models(whole, name):
    parameters = list(whole[name].parameters())
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    assert {
        "total_params": sum(parameter.numel() for parameter in parameters),
        "trainable_params": sum(parameter.numel() for parameter in trained),
        "n_trainable_tensors": len(trained),
    } == SIZES[name]


def test_names_of_what_is_trained_map_to_those_of_the_public_code(whole):
    model = whole["single_head_400"]
    public = SIZES["block0_trainable_names"] + SIZES["non_block_trainable_names"]
    ours = from_public({name: torch.zeros(1) for name in public})
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert set(ours) == {name for name in trained if name.startswith(("blocks.0.", "head."))}
    block = model.blocks["0"]
    assert sum(parameter.numel() for parameter in block.parameters()) == SIZES["block_trainable_params"]
    rates = [block.rate for block in model.blocks.values()]
    assert rates == pytest.approx(SIZES["drop_path_per_block(rate .2)"], abs=1e-6)


def test_layers_of_the_public_code(whole):
    """Of trained experts too: what lies between them counts at their block."""
    deep = {"space_args": {**SPACE_ARGS, "depth": 12}, "time_args": {**TIME_ARGS, "depth": 12}, "experts": "trained"}
    model, single = cast(**deep), cast(sizes=[("x", 4)], **deep)
    ids = {**model_layers(single), **model_layers(model)}
    scales = layer_scales(max(ids.values()) + 1, 0.75)
    assert scales == pytest.approx(VALUES["layer_decay"]["scales_by_layer_id"])
    both = {"head_verb.weight": "head.heads.verb.weight", "head.weight": "head.heads.noun.weight", "pos_embed": None}
    for public, (layer, scale) in VALUES["layer_decay"]["name_to_id_scale"].items():
        name = (
            both[public]
            if public in both
            else next(iter(from_public({public: torch.zeros(1), "clip_": torch.zeros(1)})))
        )
        if name is not None:  # the sine table is no parameter
            assert (ids[name], scales[ids[name]]) == (layer, pytest.approx(scale, abs=1e-8)), public
    frozen = model_layers(whole["ek100_two_heads"])
    last = max(frozen.values())
    assert {last - frozen[name] for name in frozen if name.startswith("blocks.3.")} == {13 - 4}
    assert any(name.endswith("cross.space.query_pos") for name in undecayed_names(model))


def test_at_first_it_is_its_two_experts():
    model, batch = cast().eval(), clips()
    experts = {
        "space": (CLIP.replace("timm", "frames"), {**SPACE_ARGS, "clip_length": FRAMES}),
        "time": (VMAE, TIME_ARGS),
    }
    torch.manual_seed(0)
    encoders = {
        name: build_encoder(encoder, outputs=(f"block{DEPTH}.input",), model_args=args)
        for name, (encoder, args) in experts.items()
    }
    with torch.no_grad():
        streams = {}
        for name, encoder in encoders.items():
            own = {key: value for key, value in model.state_dict().items() if key.startswith(f"{name}.model.")}
            encoder.load_state_dict({key.removeprefix(f"{name}."): value for key, value in own.items()}, strict=False)
            config = encoder.data_config
            mean, std = (torch.tensor(value).reshape(3, 1, 1) for value in (config.mean, config.std))
            pixels = ((batch["frames"] - mean) / std).transpose(1, 2)
            streams[name] = encoder.eval()(pixels)[f"block{DEPTH}.input"]
        classes = streams["space"].unflatten(1, (2, -1))[:, :, 0].mean(dim=1)
        head = model.head
        found = model(batch)
        assert torch.equal(found["logits.noun"], head.heads["noun"](head.space_norm(classes)))
        assert torch.equal(found["logits.verb"], head.heads["verb"](head.time_norm(streams["time"].mean(dim=1))))
    assert torch.equal(found["logits"], torch.cat([found["logits.verb"], found["logits.noun"]], dim=1))


def test_one_step_moves_what_is_declared():
    model = awake(cast())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for name, part in model.parts.items():
        model.get_submodule(name).requires_grad_(requires_grad=part.state == "trained")
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.train()
    model(clips())["logits"].square().sum().backward()
    torch.optim.SGD(learned, lr=0.1).step()
    moved = {name.split(".")[0] for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"blocks", "head"}
    assert not model.space.training
    assert model.blocks["0"].training


def exchanged(model, streams):
    """What block 0 adds to (B,T,P+N,D) of both experts."""
    with torch.no_grad():
        return model.blocks["0"].exchange(streams, {"space": 1, "time": 0})


def test_who_asks_whom_and_where():
    model, streams = awake(cast()).eval(), {"space": torch.randn(1, 2, 5, WIDTH), "time": torch.randn(1, 2, 4, WIDTH)}
    before = exchanged(model, streams)
    changed = {name: value.clone() for name, value in streams.items()}
    changed["time"][:, 1, 2] += 1.0  # frame 1, place 2
    after = exchanged(model, changed)
    moved = (after["space"] != before["space"]).any(dim=-1)[0]
    assert moved.nonzero().tolist() == [[0, 3], [1, 3]]  # the same place, behind the class token, in every frame
    changed = {name: value.clone() for name, value in streams.items()}
    changed["space"][:, 1, 1:] += torch.randn(4, WIDTH)
    after = exchanged(model, changed)
    assert (after["time"] != before["time"]).any(dim=-1)[0].tolist() == [[False] * 4, [True] * 4]
    changed = {name: value.clone() for name, value in streams.items()}
    changed["space"][:, :, 0] += 1.0
    after = exchanged(model, changed)
    assert torch.equal(after["time"], before["time"])  # nobody sees class tokens
    assert (after["space"] != before["space"]).any(dim=-1)[0].tolist() == [[True] + [False] * 4] * 2


def test_the_frames_that_the_spatial_expert_sees():
    assert list(range(16))[1::2] == VALUES["spatial_expert_frames"]["used(0-based, slice 1::2)"]
    model, batch = cast(exchange="none", heads_from={"verb": "space"}).eval(), clips()
    before = model(batch)["logits"]
    for frame, is_seen in enumerate((False, True, False, True)):
        other = {**batch, "frames": batch["frames"].clone()}
        other["frames"][:, frame] = 0.5
        assert torch.equal(model(other)["logits"], before) is not is_seen


@pytest.mark.parametrize("pixels", ["own", "imagenet"])
def test_how_the_experts_see_pixels(pixels):
    model = cast(pixels=pixels)
    assert torch.equal(model.space.mean, model.time.mean) is (pixels == "imagenet")


def test_padded_frames_are_the_last_real_one():
    frames = torch.arange(5.0).expand(3, 5)
    mask = torch.tensor([[1, 1, 1, 0, 0], [0, 0, 1, 0, 1], [1, 1, 1, 1, 1]], dtype=torch.bool)
    assert repeat_real(frames, mask).tolist() == [[0, 1, 2, 2, 2], [2, 2, 2, 2, 4], [0, 1, 2, 3, 4]]
