"""VideoMAE and encoders on frames of clips: values of the public code, names of checkpoints, what enters a block."""

import json
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from reelwright.models.blocks.init_from import start_from
from reelwright.models.blocks.weights import load_weights
from reelwright.models.encoders.build import build_encoder, output_shapes
from reelwright.models.encoders.names import (
    OWN_ARGUMENTS,
    VIDEOMAE_NAMES,
    check_encoder,
    has_hub_weights,
    is_video_encoder,
)
from reelwright.models.encoders.positions import sine_positions
from reelwright.models.encoders.videomae import VIDEOMAE_SIZES, VideoMaeOptions
from reelwright.models.testing import EncoderTests

VALUES = json.loads((Path(__file__).parents[1] / "data" / "cast.json").read_text())
SMALL = {"width": 8, "depth": 2, "heads": 2, "img_size": 32, "clip_length": 4}
CLIP = {"embed_dim": 8, "depth": 2, "num_heads": 2, "img_size": 32, "clip_length": 4}


def videomae(*, outputs=("pooled",), **arguments):
    name = "videomae/vit_small_patch16_224"
    return build_encoder(name, outputs=outputs, seed=0, model_args={**SMALL, **arguments}).eval()


def frames_encoder(*, outputs=("pooled",), name="vit_base_patch16_clip_quickgelu_224", **arguments):
    return build_encoder(f"frames/{name}", outputs=outputs, seed=0, model_args={**CLIP, **arguments}).eval()


class TestVideoMae(EncoderTests):
    outputs = ("pooled", "tokens", "map", "block0.input", "layer1.tokens")

    def build(self, outputs):
        return videomae(outputs=outputs)


class TestFrames(EncoderTests):
    outputs = ("pooled", "tokens", "map", "block2.input")

    def build(self, outputs):
        return frames_encoder(outputs=outputs)


def test_sine_positions_of_the_public_code():
    expected = torch.tensor(VALUES["sinusoid_table(5,6)"])
    torch.testing.assert_close(sine_positions(*expected.shape), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "depth", "width"), [("small", 12, 384), ("base", 12, 768), ("large", 24, 1024)], ids=["S", "B", "L"]
)
def test_sizes(name, depth, width):
    """Tubelets of 1536 bytes, blocks, the last norm; no positions (a table) and no head."""
    with torch.device("meta"):
        encoder = build_encoder(f"videomae/vit_{name}_patch16_224")
    count = (1536 + 1) * width + depth * 12 * (width**2 + width) + 2 * width
    assert sum(parameter.numel() for parameter in encoder.model.parameters()) == count
    assert encoder.model.options.grid == (8, 14, 14)


def test_names_of_the_public_code_are_taken():
    encoder = videomae(outputs=("logits",), num_classes=3)
    own = encoder.model.state_dict()
    assert {"patch_embed.proj.weight", "blocks.1.attn.q_bias", "blocks.1.attn.qkv.weight", "fc_norm.bias"} <= set(own)
    assert "blocks.1.attn.qkv.bias" not in own
    assert "pos_embed" not in own
    public = {f"module.encoder.{name}": value + 1 for name, value in own.items()} | {"decoder.norm.bias": torch.ones(1)}
    load_weights(encoder, encoder.public_names(public))
    assert torch.equal(encoder.model.head.weight, public["module.encoder.head.weight"])


def test_learned_positions_of_another_grid_are_resized():
    given = {"tubelet": 2, "clip_length": 4, "patch_size": 16, "img_size": 48, "width": 2, "heads": 1}
    encoder = videomae(positions="learned", **given)
    values = torch.tensor(VALUES["pos_embed_interp(T2, 2x2->3x3, C2)"]["in(1,8,2) row-major arange"])[None]
    state = {**encoder.model.state_dict(), "pos_embed": values}
    load_weights(encoder, encoder.public_names(state))
    expected = torch.tensor(VALUES["pos_embed_interp(T2, 2x2->3x3, C2)"]["out(18,2)"])
    torch.testing.assert_close(encoder.model.pos_embed[0].detach(), expected, rtol=0, atol=2e-6)


def test_positions_to_start_from_are_resized_frame_by_frame():
    """Also where all frames together are a square number: 4 frames of 2 x 2 places are no 4 x 4 places."""

    def sized(img_size, clip_length):
        given = {"tubelet": 2, "patch_size": 16, "width": 2, "heads": 1, "positions": "learned"}
        return videomae(**given, img_size=img_size, clip_length=clip_length)

    source, encoder = sized(32, 8), sized(48, 8)
    assert start_from(encoder, source.state_dict(), replace_heads=False, keep_heads=False).resized == (
        "model.pos_embed (1, 16, 2) -> (1, 36, 2)",
    )
    loaded = sized(48, 8)
    load_weights(loaded, loaded.public_names(source.model.state_dict()))
    assert torch.equal(encoder.model.pos_embed, loaded.model.pos_embed)
    for other in (sized(32, 4), sized(32, 6)):
        with pytest.raises(ValueError, match="4 square grids, one a frame"):
            start_from(encoder, other.state_dict(), replace_heads=False, keep_heads=False)


def test_a_plain_transformer_gives_the_same():
    """timm's blocks, whose qkv has a bias of which the keys' part is 0."""
    import timm

    outputs = ("block1.input", "block2.input", "tokens", "layer0.tokens", "pooled")
    encoder = videomae(outputs=outputs)
    with torch.no_grad():
        for block in encoder.model.blocks:
            block.attn.q_bias.normal_(generator=torch.Generator().manual_seed(1))
            block.attn.v_bias.normal_(generator=torch.Generator().manual_seed(2))
    sizes = {"embed_dim": 8, "depth": 2, "num_heads": 2, "img_size": 32, "num_classes": 0}
    plain = timm.create_model("vit_small_patch16_224", **sizes).eval()
    state = {}
    for name, value in encoder.model.state_dict().items():
        if name.endswith("q_bias"):
            values = value, torch.zeros(8), encoder.model.state_dict()[name.replace("q_bias", "v_bias")]
            state[name.replace("q_bias", "qkv.bias")] = torch.cat(values)
        elif name.startswith("blocks") and not name.endswith("v_bias"):
            state[name] = value
    plain.load_state_dict(state, strict=False)
    x = torch.randn(2, 3, 4, 32, 32, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        found, stream = encoder(x), encoder.model.enter(x)
        inside = plain.blocks[0](stream)
        torch.testing.assert_close(found["block1.input"], inside)
        torch.testing.assert_close(found["block2.input"], plain.blocks[1](inside))
        normed = encoder.model.fc_norm(found["block2.input"].mean(dim=1))
    assert torch.equal(found["layer0.tokens"], found["block1.input"])
    torch.testing.assert_close(found["pooled"], normed)


@pytest.mark.parametrize("name", ["vit_base_patch16_clip_quickgelu_224", "vit_small_patch16_224"])
def test_what_enters_a_block(name):
    """Of timm's networks: run from there, the last blocks and the norm give the last tokens."""
    arguments = {key: value for key, value in CLIP.items() if key != "clip_length"}
    outputs = ("block0.input", "block-1.input", "block2.input", "tokens")
    encoder = build_encoder(f"timm/{name}", outputs=outputs, seed=0, model_args=arguments).eval()
    assert list(output_shapes(encoder).values()) == [(5, 8)] * 4
    with torch.no_grad():
        found = encoder(torch.randn(2, 3, 32, 32))
        stream = found["block0.input"]
        for block in encoder.model.blocks[:1]:
            stream = block(stream)
        assert torch.equal(stream, found["block-1.input"])
        assert torch.equal(encoder.model.blocks[1](stream), found["block2.input"])
        assert torch.equal(encoder.model.norm(found["block2.input"]), found["tokens"])
        alone = build_encoder(f"timm/{name}", outputs=("block0.input",), seed=0, model_args=arguments).eval()
        picture = torch.randn(1, 3, 32, 32)
        assert torch.equal(alone(picture)["block0.input"], encoder(picture)["block0.input"])


def test_frames_of_a_clip_are_pictures():
    outputs = ("pooled", "tokens", "map", "block1.input", "logits")
    encoder = frames_encoder(outputs=outputs, num_classes=3)
    arguments = {key: value for key, value in CLIP.items() if key != "clip_length"} | {"num_classes": 3}
    image = build_encoder("timm/vit_base_patch16_clip_quickgelu_224", outputs=outputs, model_args=arguments).eval()
    image.load_state_dict(encoder.state_dict())
    x = torch.randn(2, 3, 4, 32, 32)
    with torch.no_grad():
        found = encoder(x)
        second, fourth = (image(x[:, :, frame]) for frame in (1, 3))
    for name in ("tokens", "block1.input"):
        torch.testing.assert_close(found[name], torch.cat([second[name], fourth[name]], dim=1))
    torch.testing.assert_close(found["map"], torch.stack([second["map"], fourth["map"]], dim=2))
    for name in ("pooled", "logits"):
        torch.testing.assert_close(found[name], (second[name] + fourth[name]) / 2)


def test_names_are_known_without_torch():
    assert tuple(VIDEOMAE_SIZES) == VIDEOMAE_NAMES
    assert {*OWN_ARGUMENTS["videomae"]} == {entry.name for entry in fields(VideoMaeOptions)} | {"num_classes"}
    for name in ("videomae/vit_base_patch16_224", "frames/vit_base_patch16_clip_quickgelu_224"):
        check_encoder(name, outputs=("block9.input",), model_args={"img_size": 96, "clip_length": 8})
        assert is_video_encoder(name)
    assert not has_hub_weights("videomae/vit_base_patch16_224")
    assert has_hub_weights("frames/vit_base_patch16_clip_quickgelu_224")
    with pytest.raises(ValueError, match="did you mean 'every'"):
        check_encoder("frames/vit_base_patch16_224", outputs=("pooled",), model_args={"evry": 2})
    with pytest.raises(ValueError, match=r"nearest: .*videomae/vit_base_patch16_224"):
        check_encoder("videomae/vit_base_patch16", outputs=("pooled",), model_args={})


@pytest.mark.parametrize(
    ("make", "given", "message"),
    [
        (videomae, {"heads": 3}, "width is 8, no multiple of heads 3"),
        (videomae, {"clip_length": 5}, "clip_length is 5, no multiple of tubelet 2"),
        (videomae, {"img_size": 40}, "img_size is 40, no multiple of patch_size 16"),
        (videomae, {"norm": "none"}, "norm is 'none'; allowed: pooled, tokens"),
        (videomae, {"positions": "none"}, "allowed: sine, learned"),
        (videomae, {"depth": 0}, "depth is 0; it must be above 0"),
        (videomae, {"layers": 2}, "does not take model_args"),
        (videomae, {"outputs": ("block3.input",)}, r"has 2 blocks; allowed: block0.input to block2.input \(behind"),
        (frames_encoder, {"outputs": ("block-3.input",)}, "or block-2.input to block-1.input"),
        (frames_encoder, {"clip_length": 5}, "clip_length 5 must be a multiple of every 2"),
    ],
)
def test_refusals(make, given, message):
    with pytest.raises(ValueError, match=message):
        make(**given)


def test_only_transformers_have_blocks():
    for name in ("timm/resnet18", "x3d/x3d_xs"):
        with pytest.raises(ValueError, match=r"'block1.input' cannot be had"):
            build_encoder(name, outputs=("block1.input",))
    with pytest.raises(ValueError, match="no weights to fetch; give VideoMAE's file"):
        build_encoder("videomae/vit_small_patch16_224", pretrained=True)
    with pytest.raises(ValueError, match="clips must be 4 x 32 x 32 but are 6 x 32 x 32"):
        videomae()(torch.zeros(1, 3, 6, 32, 32))
    with pytest.raises(ValueError, match="clips of 3 frames are no multiple of every 2"):
        frames_encoder()(torch.zeros(1, 3, 3, 32, 32))


def test_positions_of_a_vision_transformer_are_resized():
    """As timm does it, when its weights come from a file; a table of another width is still refused."""
    small = {"embed_dim": 8, "depth": 1, "num_heads": 2}
    large, encoder = (
        build_encoder("timm/vit_small_patch16_224", seed=0, model_args={**small, "img_size": size}) for size in (64, 32)
    )
    state = large.model.state_dict()
    load_weights(encoder, encoder.public_names(state))
    assert encoder.model.pos_embed.shape == (1, 5, 8)
    assert torch.equal(encoder.model.pos_embed[:, 0], state["pos_embed"][:, 0])  # the class token's
    assert torch.equal(encoder.model.blocks[0].attn.qkv.weight, state["blocks.0.attn.qkv.weight"])
    with pytest.raises(ValueError, match="mismatched: pos_embed"):
        load_weights(encoder, encoder.public_names({**state, "pos_embed": torch.zeros(1, 17, 4)}))
