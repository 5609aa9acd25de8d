"""CAST's other forms: options, other experts, the last blocks on stored tokens; and the tests of all models."""

from __future__ import annotations

import pytest
import torch
from timm.models.vision_transformer import ResPostBlock
from torch.nn import functional

from reelwright.models.blocks.activation_checkpointing import recompute_blocks
from reelwright.models.blocks.init_from import start_from
from reelwright.models.clip_models import build_clip_model
from reelwright.models.clip_options import CastOptions
from reelwright.models.contracts import ClipSizes
from reelwright.models.encoders.build import build_encoder
from reelwright.models.systems.cast.blocks import CrossAttention
from reelwright.models.systems.cast.model import build_cast
from reelwright.models.temporal.common import TemporalSizes
from reelwright.models.testing import TemporalModelTests, checked_clip_model
from tests.models.test_cast import CLIP, DEPTH, FRAMES, HEADS, SPACE_ARGS, TIME_ARGS, VMAE, WIDTH, awake, cast, clips

SPLIT = 10  # tokens of space in a row: 2 frames of 5


class TestCast(TemporalModelTests):
    """The contract of models, on frames."""

    sizes = (TemporalSizes(input_dim=1, num_outputs=3, length=FRAMES, per_row=False),)

    def build(self, sizes):
        return awake(cast(sizes=[("", sizes.num_outputs)]))

    def batch(self, sizes):
        assert sizes.length == FRAMES
        return clips(seed=int(torch.randint(1000, (1,))))


FORMS = {
    "adapters only": {"exchange": "none"},
    "nothing added": {"exchange": "none", "adapters": False},
    "lateral": {"exchange": "lateral"},
    "late add": {"exchange": "none", "fusion": "add"},
    "late concat": {"exchange": "none", "fusion": "concat"},
    "one block": {"exchange_blocks": [1]},
    "space asks": {"direction": "t2s"},
    "time asks": {"direction": "s2t"},
    "all windows": {"t2s_window": "space_time", "s2t_window": "space_time"},
    "narrow": {"bottleneck": 0.25, "positions": False},
    "top": {"top": 1},
    "trained": {"experts": "trained", "adapters": False},
    "two images": {"time": CLIP, "time_args": SPACE_ARGS},
    "two videos": {"space": VMAE, "space_args": TIME_ARGS},
    "plain vit": {"space": "timm/vit_small_patch16_224", "space_args": {**SPACE_ARGS, "global_pool": "avg"}},
    "eva": {"space": "timm/eva02_tiny_patch14_224", "space_args": {**SPACE_ARGS, "patch_size": 16}},
    "dino": {
        "space": "timm/vit_small_patch14_reg4_dinov2",
        "space_args": {**SPACE_ARGS, "patch_size": 16, "init_values": 0.1},
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_forms(form):
    given = FORMS[form]
    model = awake(cast(**given))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    found = model.eval()(clips())
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        "logits": (2, 5),
        "logits.verb": (2, 3),
        "logits.noun": (2, 2),
    }
    exchanging = [name for name, block in model.blocks.items() if block.exchange is not None]
    asking = {"space asks": {"space"}, "time asks": {"time"}}.get(form, {"space", "time"})
    names = {"one block": ["1"], "top": ["2"]}.get(form, ["0", "1", "2"])
    assert exchanging == ([] if given.get("exchange") == "none" else names)
    for name in exchanging:
        assert set(model.blocks[name].exchange.up) == asking
    again = cast(seed=5, **given)
    again.load_state_dict(state)
    assert torch.equal(again.eval()(clips())["logits"], found["logits"])
    assert "".join(model.parts) == ("" if form == "trained" else "spacetimeblockshead")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"time_args": {**TIME_ARGS, "width": 16}}, "equal width: space has 8, time 16"),
        ({"time_args": {**TIME_ARGS, "img_size": 48}}, r"equal grid: space has \(2, 2, 2\), time \(2, 3, 3\)"),
        ({"every": 4}, r"equal grid: space has \(1, 2, 2\), time \(2, 2, 2\)"),
        ({"time_args": {**TIME_ARGS, "depth": 2}}, "equal depth: space has 3, time 2"),
        ({"every": 3}, "clips have 4 frames, but the expert takes a multiple of every: 3"),
        ({"time_args": {**TIME_ARGS, "clip_length": 8}}, "clips have 4 frames, but the expert takes 8"),
        ({"space": "timm/resnet18", "space_args": {}}, "but this is ResNet"),
        ({"space": "timm/vit_relpos_small_patch16_224", "space_args": {}}, "but this is VisionTransformerRelPos"),
        (
            {"space": "timm/vit_xsmall_patch16_clip_224", "space_args": {**SPACE_ARGS, "block_fn": ResPostBlock}},
            "but this is VisionTransformer",
        ),
        ({"space": "timm/vit_bas"}, "encoder 'timm/vit_bas' is not known"),
        ({"top": 4}, "top is 4, but the experts have 3 blocks"),
        ({"top": 1, "exchange_blocks": [1]}, r"block 1; allowed: 2 to 2 \(top is 1\)"),
        ({"exchange_blocks": [3]}, "block 3; allowed: 0 to 2"),
        ({"heads_from": {"adverb": "time"}}, "heads_from names adverb, but the heads are verb, noun"),
        ({"sizes": [("hand", 2), ("noun", 2)]}, "heads hand are answered by neither expert"),
        ({"bottleneck": 0.01}, "bottleneck 0.01 of 8 features leaves none"),
        ({"bottleneck": 0.4}, "2 heads do not divide the 3 features"),
        ({"exchange": "self"}, "exchange is 'self'; allowed: bcast, lateral, none"),
        ({"source": "tokens"}, "source: tokens needs top"),
        ({"exchange": "none", "exchange_blocks": [0]}, "leave them out"),
        ({"exchange": "none", "direction": "t2s"}, "direction is t2s, which with exchange: none has no effect"),
        ({"exchange": "none", "t2s_window": "space"}, "t2s_window is space, which with exchange: none has no effect"),
        ({"exchange": "lateral", "bottleneck": 1.0}, "bottleneck is 1.0, which with exchange: lateral has no effect"),
        ({"exchange": "lateral", "positions": False}, "positions is False, which with exchange: lateral has no effect"),
        ({"direction": "t2s", "s2t_window": "time"}, "s2t_window is time, which with direction: t2s has no effect"),
        ({"direction": "s2t", "t2s_window": "space"}, "t2s_window is space, which with direction: s2t has no effect"),
        ({"exchange": "none", "adapters": False, "drop_path": 0.2}, "drop_path is 0.2, which with exchange: none and"),
        (
            {"adapters": False, "fusion": "add", "adapter_ratio": 0.5},
            "adapter_ratio is 0.5, which with adapters: false has no effect",
        ),
        (
            {"adapters": False, "adapter_ratio": 0.5},
            "adapter_ratio is 0.5, which with adapters: false and several heads",
        ),
        ({"fusion": "add", "heads_from": {"verb": "space"}}, "heads_from is of fusion: own"),
        ({"drop_path": 1.0}, "drop_path is 1.0"),
        ({"heads_from": {"verb": "both"}}, "heads_from: verb is 'both'; allowed: space, time"),
        ({"adapter_ratio": 0.0}, "adapter_ratio is 0.0; it must be above 0"),
        ({"top": -1}, "top is -1"),
    ],
)
def test_refusals(given, message):
    with pytest.raises(ValueError, match=message):
        cast(**given)


def test_other_inputs_are_refused():
    batch = clips()
    with pytest.raises(ValueError, match=r"clips must have shape \(4, 3, 32, 32\)"):
        cast()({**batch, "frames": batch["frames"][..., :16]})
    with pytest.raises(ValueError, match=r"shape \(1, 18, 8\), one clip with 10 tokens of space and 8 of time"):
        cast(source="tokens", top=1)({"rows": torch.zeros(2, 2, 18, WIDTH), "mask": batch["mask"]})


def stored(model, batch, *, top):
    """The tokens of both encoders that enter the last `top` blocks, joined as `train` joins stored ones."""
    output = f"block{DEPTH - top}.input"
    space = build_encoder(
        CLIP.replace("timm", "frames"), outputs=(output,), model_args={**SPACE_ARGS, "clip_length": FRAMES}
    )
    time = build_encoder(VMAE, outputs=(output,), model_args=TIME_ARGS)
    tokens = []
    for name, encoder in {"space": space, "time": time}.items():
        own = {key: value for key, value in model.state_dict().items() if key.startswith(f"{name}.")}
        encoder.load_state_dict({key.removeprefix(f"{name}."): value for key, value in own.items()}, strict=False)
        config = encoder.data_config
        mean, std = (torch.tensor(value).reshape(3, 1, 1) for value in (config.mean, config.std))
        with torch.no_grad():
            tokens.append(encoder.eval()(((batch["frames"] - mean) / std).transpose(1, 2))[output])
    assert [each.shape[1] for each in tokens] == [SPLIT, 8]
    return {"rows": torch.cat(tokens, dim=1)[:, None], "mask": torch.ones(len(tokens[0]), 1, dtype=torch.bool)}


def learned(model, batch, *, updates=5):
    """Losses of updates in train mode, with stochastic depth."""
    for name, part in model.parts.items():
        model.get_submodule(name).requires_grad_(requires_grad=part.state == "trained")
    optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=1e-2)
    torch.manual_seed(3)
    losses = []
    for _ in range(updates):
        logits = model.train()(batch)["logits"]
        loss = functional.cross_entropy(logits[:, :3], torch.tensor([0, 2])) + functional.cross_entropy(
            logits[:, 3:], torch.tensor([1, 0])
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def same(first, inputs, second, others):
    """Whether two models predict the same bits."""
    with torch.no_grad():
        return torch.equal(first.eval()(inputs)["logits"], second.eval()(others)["logits"])


@pytest.mark.parametrize("top", [0, 1, 3])
def test_the_last_blocks_on_stored_tokens_are_those_of_the_whole(top):
    batch = clips()
    of_frames, of_tokens = cast(top=top), cast(top=top, source="tokens")
    tokens = stored(of_frames, batch, top=top)
    for model in (of_frames, of_tokens):
        for name in ("space", "time"):
            model.get_submodule(name).requires_grad_(requires_grad=False)
    assert same(of_tokens, tokens, of_frames, batch)
    assert learned(of_tokens, tokens) == learned(of_frames, batch)
    assert same(of_tokens, tokens, of_frames, batch)
    assert set(of_tokens.state_dict()) <= set(of_frames.state_dict())
    lower = [name for name in of_tokens.state_dict() if ".model." in name and "blocks" not in name]
    assert not lower, "what comes before the last blocks is not kept"


def test_blocks_computed_again_give_the_same():
    first, second = awake(cast(drop_path=0.5)), awake(cast(drop_path=0.5))
    assert recompute_blocks(second) == 1
    assert learned(first, clips()) == learned(second, clips())


def test_the_weights_of_encoders_are_taken():
    source = cast(seed=4)
    names = {"space": (CLIP, SPACE_ARGS), "time": (VMAE, TIME_ARGS)}
    encoders = {name: build_encoder(encoder, model_args=args, seed=4) for name, (encoder, args) in names.items()}
    for model in (cast(), cast(top=2, source="tokens")):
        model.take_weights(encoders)
        for name, encoder in encoders.items():
            given, own = encoder.model.state_dict(), model.get_submodule(f"{name}.model").state_dict()
            assert all(torch.equal(value, given[key]) for key, value in own.items())
        norm = encoders["space"].model.norm.weight
        assert torch.equal(model.head.space_norm.weight, norm)
    with pytest.raises(RuntimeError, match="size mismatch"):
        source.take_weights(
            {**encoders, "time": build_encoder(VMAE, model_args={**TIME_ARGS, "heads": 2, "width": 16})}
        )


@pytest.mark.parametrize("form", ["eva", "dino", "plain vit"])
def test_an_expert_in_halves_is_its_encoder(form):
    """Block by block and in halves, bit for bit."""
    name, args = FORMS[form]["space"], FORMS[form]["space_args"]
    model = cast(exchange="none", adapters=False, fusion="add", **FORMS[form]).eval()
    encoder = build_encoder(name, outputs=("block0.input", f"block{DEPTH}.input"), model_args=args).eval()
    model.take_weights({"space": encoder, "time": build_encoder(VMAE, model_args=TIME_ARGS)})
    x = torch.rand(2, FRAMES, 3, 32, 32)
    with torch.no_grad():
        stream = model.space.enter(x)
        mean, std = model.space.mean, model.space.std
        wanted = encoder(((x - mean) / std)[:, 1::2].flatten(0, 1))
        assert torch.equal(stream, wanted["block0.input"])
        whole = stream
        for block in range(DEPTH):
            whole = model.space.run(block, whole)
            stream = stream + model.space.attended(block, stream)
            stream = stream + model.space.transformed(block, model.space.normed(block, stream))
        assert torch.equal(stream, wanted[f"block{DEPTH}.input"])
        assert torch.equal(whole, stream)


@pytest.mark.parametrize("public", [False, True], ids=["ours", "public"])
def test_a_network_on_frames_goes_on_from_one_on_tokens_and_from_a_public_checkpoint(public):
    source = awake(cast(top=2, source="tokens", seed=6), seed=8)
    state, model = source.state_dict(), cast(seed=6)
    if public:
        names = {"head.heads.verb.weight": "head_verb.weight", "head.heads.noun.bias": "head.bias"}
        names |= {"blocks.2.exchange.down.space.weight": "blocks.2.cross_s_down.weight"}
        names |= {"space.model.blocks.1.attn.qkv.bias": "module.blocks.1.clip_attn.in_proj_bias"}
        state = {public: state[ours] for ours, public in names.items()}
    report = start_from(model, model.public_state(state), replace_heads=False, keep_heads=True)
    assert len(report.matched) == len(state)
    assert not report.unused
    own, wanted = model.state_dict(), source.state_dict()
    assert all(torch.equal(own[name], wanted[name]) for name in report.matched)
    if not public:
        assert {name.split(".")[0] for name in report.new} == {"space", "time", "blocks"}


@pytest.mark.parametrize("source", ["frames", "tokens"])
def test_a_network_does_not_go_on_from_the_last_blocks_of_other_experts(source):
    own = {"top": 2} if source == "tokens" else {}
    model, others = cast(source=source, seed=6, **own), cast(top=2, source="tokens", seed=7).state_dict()
    with pytest.raises(ValueError, match=r"its blocks of the expert space are not those of the expert here \(space\."):
        model.public_state(others)
    whole = cast(seed=7).state_dict()
    if source == "frames":  # all of another expert takes the place of its own
        assert model.public_state(whole).keys() == whole.keys()
    else:
        with pytest.raises(ValueError, match="its blocks of the expert space"):
            model.public_state(whole)


OVER_BOTH = {"t2s_window": "space_time", "s2t_window": "space_time"}


@pytest.mark.parametrize(
    ("windows", "own", "message"),
    [
        (OVER_BOTH, {}, "32, which are 2 frames of 16 places, but a clip has 8 frames here"),
        ({"t2s_window": "time", "s2t_window": "space_time"}, {}, "32, which are 2 frames of 16 places"),
        (OVER_BOTH, {"t2s_window": "space", "s2t_window": "space"}, "32, but its frames have 16 places"),
    ],
    ids=["of an expert", "and in time", "other windows"],
)
def test_positions_of_as_many_places_on_another_grid_are_refused(windows, own, message):
    """2 frames of 4 x 4 places have as many positions as 8 frames of 2 x 2."""

    def model(*, frames, side, **given):
        space = {**SPACE_ARGS, "img_size": 16 * side}
        time = {**TIME_ARGS, "img_size": 16 * side, "clip_length": 2 * frames}
        chosen = CastOptions(space=CLIP, time=VMAE, space_args=space, time_args=time, **given)
        return build_cast(length=2 * frames, sizes=HEADS, options=chosen)

    source = model(frames=2, side=4, **windows)
    same = model(frames=2, side=4, **windows)
    assert not start_from(same, same.public_state(source.state_dict()), replace_heads=False, keep_heads=True).resized
    with pytest.raises(ValueError, match=message):
        model(frames=8, side=2, **{**windows, **own}).public_state(source.state_dict())


def test_as_a_clip_model_its_experts_are_of_the_size_of_the_clips():
    without = {"space_args": {**SPACE_ARGS}, "time_args": {**TIME_ARGS}}
    del without["space_args"]["img_size"], without["time_args"]["img_size"], without["time_args"]["clip_length"]
    sizes = ClipSizes(num_outputs=5, length=FRAMES, frame_size=(32, 32), heads=dict(HEADS))
    model = checked_clip_model(build_clip_model("cast", sizes, space=CLIP, time=VMAE, **without), sizes)
    assert model.space.grid == model.time.grid == (2, 2, 2)
    assert (model.data_config.mean, model.data_config.std) == ((0.0,) * 3, (1.0,) * 3)
    wide = ClipSizes(num_outputs=5, length=FRAMES, frame_size=(48, 48))
    with pytest.raises(ValueError, match=r"frames have \(48, 48\) pixels, but the experts see \(32, 32\)"):
        build_clip_model("cast", wide, space=CLIP, time=VMAE, space_args=SPACE_ARGS, time_args=TIME_ARGS)
    with pytest.raises(ValueError, match="source: tokens is of train"):
        build_clip_model("cast", sizes, source="tokens", top=1)


UNSEEN = {
    "both": ({}, set()),
    "space alone": (
        {"heads_from": {"verb": "space"}},
        {"head.time_norm", "blocks.2.adapters.time_mlp", "blocks.2.exchange.cross.time", "blocks.2.exchange.up.time"},
    ),
    "trained experts": (
        {"heads_from": {"verb": "space"}, "experts": "trained", "adapters": False},
        {"head.time_norm", "blocks.2.exchange.cross.time", "blocks.2.exchange.up.time"},
    ),
    "time alone, asked by none": (
        {"heads_from": {"noun": "time"}, "direction": "t2s"},
        {"head.space_norm", *(f"blocks.{at}.adapters.space_{kind}" for at in range(3) for kind in ("attention", "mlp"))}
        | {f"blocks.{at}.exchange" for at in range(3)},
    ),
    "lateral": (
        {"heads_from": {"noun": "time"}, "exchange": "lateral"},
        {"head.space_norm", "blocks.2.adapters.space_mlp", "blocks.2.exchange.up.space"},
    ),
    "late add": ({"fusion": "add", "exchange": "none"}, set()),
}


@pytest.mark.parametrize("case", UNSEEN)
def test_what_no_head_sees_does_not_learn(case):
    """Frozen is just what gets no gradient."""
    given, frozen = UNSEEN[case]
    model = awake(cast(drop_path=0, **given))
    learning = {name: value for name, value in model.named_parameters() if value.requires_grad}
    logits = model.eval()(clips())["logits"]
    found = torch.autograd.grad(logits.square().sum(), [*learning.values()], allow_unused=True)
    assert [name for name, value in zip(learning, found, strict=True) if value is None] == []
    still = {name for name, value in model.named_parameters() if not value.requires_grad}
    parts = {name for name in still if name.startswith(("head", "blocks"))}
    assert parts == {name for name, _ in model.named_parameters() if name.startswith(tuple(f"{at}." for at in frozen))}


def test_the_adapters_of_a_single_head_are_no_heads():
    model, source = cast(sizes=[("", 4)]), awake(cast(sizes=[("", 4)], seed=5))
    report = start_from(model, source.state_dict(), replace_heads=True, keep_heads=False)
    assert set(report.replaced) == {"head.heads.classes.weight", "head.heads.classes.bias"}
    assert torch.equal(model.head.time_adapter.fc1.weight, source.head.time_adapter.fc1.weight)


@pytest.mark.parametrize(
    ("window", "old", "new"), [("time", (4, 9), (2, 9)), ("space", (4, 9), (4, 16)), ("space_time", (2, 9), (2, 4))]
)
def test_positions_of_the_exchange_are_resized_in_their_window(window, old, new):
    """A table that rises evenly along one axis of its window, and is alike along the others, still does."""
    source, module = (CrossAttention(4, heads=2, window=window, grid=grid) for grid in (old, new))
    line = torch.linspace(0, 1, 5)[1:-1]  # of 3 columns
    with torch.no_grad():
        for table in (source.query_pos, source.key_pos):
            along = torch.arange(4.0) if window == "time" else line.repeat(len(table) // 3)
            table.copy_(along[:, None].expand_as(table))
    start_from(module, source.state_dict(), replace_heads=False, keep_heads=False)
    found = module.key_pos.detach()
    assert torch.equal(found, found[:, :1].expand_as(found))
    if window == "time":
        assert found[:, 0].tolist() == [0.5, 2.5]
        return
    side = 4 if window == "space" else 2
    rows = found[:, 0].reshape(-1, side)
    assert torch.allclose(rows, rows[:1].expand_as(rows), atol=1e-6)
    assert (rows.diff(dim=1) > 0).all()


@pytest.mark.parametrize(
    ("window", "old", "new", "width"),
    [("space", (1, 9), (1, 8), 4), ("space_time", (2, 9), (3, 4), 4), ("time", (4, 4), (2, 4), 6)],
    ids=["no square", "other frames", "other features"],
)
def test_positions_that_cannot_be_resized_are_refused(window, old, new, width):
    source = CrossAttention(width, heads=2, window=window, grid=old)
    module = CrossAttention(4, heads=2, window=window, grid=new)
    values = {"key_pos": source.key_pos.detach(), "q_bias": module.q_bias.detach()}
    with pytest.raises(ValueError, match=r"positions of shape .* cannot be resized"):
        start_from(module, values, replace_heads=False, keep_heads=False)
