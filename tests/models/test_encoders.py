"""Encoders against the timm and torchvision models they wrap."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data.transforms_factory import transforms_imagenet_eval
from torch import nn
from torchvision.models.video.mvit import MSBlockConfig, MViT
from torchvision.models.video.swin_transformer import SwinTransformer3d

from reelwright.models.encoders.build import DataConfig, build_encoder, output_shapes
from reelwright.models.encoders.names import VIDEO_NAMES, check_encoder, timm_models
from reelwright.models.encoders.timm_encoders import TimmEncoder, is_known_timm_name, timm_data_config
from reelwright.models.encoders.video_encoders import VIDEO_FAMILIES, VideoEncoder, video_data_config


def pixels(encoder, num_rows=2, *, seed=0):
    height, width = encoder.data_config.size
    clip = (encoder.data_config.clip_length,) if encoder.kind == "video" else ()
    return torch.randn(num_rows, 3, *clip, height, width, generator=torch.Generator().manual_seed(seed))


SHAPES = [
    (
        "timm/test_vit",  # 160 pixels in patches of 16: 100 patches and one class token
        {"pooled": (64,), "tokens": (101, 64), "map": (64, 10, 10), "logits": (1000,), "layer2.tokens": (101, 64)},
    ),
    ("timm/test_resnet", {"pooled": (96,), "tokens": (25, 96), "map": (96, 5, 5), "layer-1.map": (96, 5, 5)}),
    ("timm/test_efficientnet", {"layer-1.pooled": (64,), "layer1.tokens": (1600, 24), "pooled": (256,)}),
    (
        "timm/swin_tiny_patch4_window7_224",  # its features are channels last
        {
            "map": (768, 7, 7),
            "tokens": (49, 768),
            "pooled": (768,),
            "layer0.map": (96, 56, 56),
            "layer3.pooled": (768,),
        },
    ),
    ("timm/mixer_s32_224", {"map": (512, 7, 7), "tokens": (49, 512)}),
    (
        "timm/deit_tiny_distilled_patch16_224",  # two prefix tokens
        {"tokens": (198, 192), "map": (192, 14, 14), "layer-1.tokens": (198, 192), "pooled": (192,)},
    ),
    ("timm/levit_128s", {"map": (384, 4, 4), "tokens": (16, 384)}),  # its patch embedding knows no grid
]


@pytest.mark.parametrize(("name", "expected"), SHAPES, ids=[name for name, _ in SHAPES])
def test_output_shapes(name, expected):
    encoder = build_encoder(name, outputs=list(expected), seed=0)
    found = output_shapes(encoder)
    assert list(found.items()) == list(expected.items())
    assert encoder.outputs == tuple(expected)
    assert encoder.training


def test_img_size_reaches_the_data_config():
    encoder = build_encoder("timm/test_vit", outputs=["map"], model_args={"img_size": (64, 96)})
    assert encoder.data_config.size == (64, 96)
    assert output_shapes(encoder) == {"map": (64, 4, 6)}


def test_timm_values_equal_the_bare_model():
    outputs = ["pooled", "tokens", "map", "logits", "layer-1.map", "layer-1.tokens", "layer1.pooled"]
    encoder = build_encoder("timm/test_vit", outputs=outputs, seed=0).eval()
    model, x = encoder.model, pixels(encoder)
    with torch.no_grad():
        found = encoder(x)
        features = model.forward_features(x)
        layers = model.forward_intermediates(x, intermediates_only=True)
        torch.testing.assert_close(found["logits"], model(x))
        torch.testing.assert_close(found["pooled"], model.forward_head(features, pre_logits=True))
        torch.testing.assert_close(model.norm(found["layer-1.tokens"]), features)
    torch.testing.assert_close(found["tokens"], features)
    # Position 13 of a 10 x 10 grid is row 1, column 3; the class token stands in front.
    torch.testing.assert_close(found["map"][:, :, 1, 3], features[:, 1 + 13])
    torch.testing.assert_close(found["layer-1.map"], layers[-1])
    torch.testing.assert_close(found["layer1.pooled"], layers[1].mean(dim=(2, 3)))


@pytest.mark.parametrize("name", ["timm/test_vit", "timm/test_resnet", "timm/test_efficientnet"])
def test_asking_for_layers_only_changes_no_value(name):
    x = pixels(build_encoder(name))
    alone = build_encoder(name, outputs=["layer1.map", "layer0.pooled"], seed=3).eval()
    beside = build_encoder(name, outputs=["pooled", "layer0.pooled", "layer1.map"], seed=3).eval()
    with torch.no_grad():
        few, many = alone(x), beside(x)
    for output, value in few.items():
        torch.testing.assert_close(value, many[output], rtol=0, atol=0)


def test_channels_last_map_is_a_permutation_of_the_features():
    encoder = build_encoder("timm/swin_tiny_patch4_window7_224", outputs=["map", "tokens"], seed=0).eval()
    x = pixels(encoder, 1)
    with torch.no_grad():
        found = encoder(x)
        features_BHWC = encoder.model.forward_features(x)
    torch.testing.assert_close(found["map"], features_BHWC.permute(0, 3, 1, 2))
    torch.testing.assert_close(found["tokens"], features_BHWC.flatten(1, 2))


def test_one_forward_pass_gives_all_outputs():
    encoder = build_encoder("timm/test_resnet", outputs=["pooled", "tokens", "layer1.map"], seed=0)
    passes = []
    encoder.model.conv1.register_forward_hook(lambda *_: passes.append(1))
    encoder(pixels(encoder))
    assert len(passes) == 1


VIDEO_SHAPES = [
    ("r3d_18", {"pooled": (512,), "map": (512, 2, 7, 7), "tokens": (98, 512), "layer0.map": (64, 16, 56, 56)}),
    ("s3d", {"pooled": (1024,), "map": (1024, 2, 7, 7), "layer-1.pooled": (1024,)}),
    ("mvit_v2_s", {"pooled": (768,), "tokens": (393, 768), "map": (768, 8, 7, 7), "layer-1.tokens": (393, 768)}),
    ("swin3d_t", {"pooled": (768,), "map": (768, 8, 7, 7), "layer0.map": (96, 8, 56, 56)}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "expected"), VIDEO_SHAPES, ids=[name for name, _ in VIDEO_SHAPES])
def test_video_outputs(name, expected):
    encoder = build_encoder(f"torchvision/{name}", outputs=[*expected, "logits"], seed=0).eval()
    assert encoder.kind == "video"
    assert encoder.data_config.clip_length == 16
    assert output_shapes(encoder) == {**expected, "logits": (400,)}
    x = pixels(encoder, 1)
    with torch.no_grad():
        torch.testing.assert_close(encoder(x)["logits"], encoder.model(x), rtol=1e-4, atol=1e-5)


SMALL_CLIPS = [("r3d_18", (8, 32, 32)), ("mc3_18", (8, 32, 32)), ("r2plus1d_18", (8, 32, 32)), ("s3d", (16, 224, 224))]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "clip"), SMALL_CLIPS, ids=[name for name, _ in SMALL_CLIPS])
def test_video_logits_equal_the_bare_model(name, clip):
    outputs = ["logits", "pooled", "map", "tokens", "layer1.map"]
    encoder = build_encoder(f"torchvision/{name}", outputs=outputs, seed=0, num_classes=7).eval()
    x = torch.randn(1, 3, *clip)
    with torch.no_grad():
        found = encoder(x)
        torch.testing.assert_close(found["logits"], encoder.model(x), rtol=1e-4, atol=1e-5)
    assert found["logits"].shape == (1, 7)
    torch.testing.assert_close(found["map"].mean(dim=(2, 3, 4)), found["pooled"])
    torch.testing.assert_close(found["tokens"], found["map"].flatten(2).transpose(1, 2))


def small_mvit():
    """Two blocks on a (2, 8, 8) grid; the second halves height and width."""
    blocks = [
        MSBlockConfig(1, 8, 8, [], [3, 3, 3], [], [1, 2, 2]),
        MSBlockConfig(2, 8, 16, [3, 3, 3], [3, 3, 3], [1, 2, 2], [1, 1, 1]),
    ]
    return MViT(
        (32, 32), 4, blocks, residual_pool=True, residual_with_cls_embed=False, rel_pos_embed=True, proj_after_attn=True
    )


def small_swin():
    return SwinTransformer3d([2, 4, 4], 8, depths=[1, 1], num_heads=[1, 2], window_size=[2, 2, 2])


SMALL_TRANSFORMERS = [
    (
        "mvit_v2_s",
        small_mvit,
        {"map": (16, 2, 4, 4), "tokens": (33, 16), "layer0.map": (8, 2, 8, 8), "layer0.tokens": (129, 8)},
    ),
    (
        "swin3d_t",  # layers: stage, merging, stage
        small_swin,
        {"map": (16, 2, 4, 4), "tokens": (32, 16), "layer0.map": (8, 2, 8, 8), "layer-1.map": (16, 2, 4, 4)},
    ),
]


@pytest.mark.parametrize(
    ("name", "build", "shapes"), SMALL_TRANSFORMERS, ids=[name for name, _, _ in SMALL_TRANSFORMERS]
)
def test_video_transformers_equal_the_bare_model(name, build, shapes):
    torch.manual_seed(0)
    encoder = VideoEncoder(build(), name=name, outputs=["logits", "pooled", *shapes]).eval()
    x = torch.randn(2, 3, 4, 32, 32)
    with torch.no_grad():
        found = encoder(x)
        torch.testing.assert_close(found["logits"], encoder.model(x))
        torch.testing.assert_close(encoder.model.head(found["pooled"]), found["logits"])
    assert {output: tuple(found[output].shape[1:]) for output in shapes} == shapes
    torch.testing.assert_close(found["tokens"][:, -32:], found["map"].flatten(2).transpose(1, 2))
    if name == "swin3d_t":
        normed = encoder.model.norm(found["layer-1.map"].permute(0, 2, 3, 4, 1)).permute(0, 4, 1, 2, 3)
        torch.testing.assert_close(normed, found["map"])


def test_mvit_names_the_clip_it_takes():
    encoder = VideoEncoder(small_mvit(), name="mvit_v2_s", outputs=["pooled"])
    with pytest.raises(ValueError, match=r"grid of \(2, 8, 8\), got \(1, 8, 8\)"):
        encoder(torch.zeros(1, 3, 2, 32, 32))


@pytest.mark.parametrize("name", VIDEO_FAMILIES)
def test_video_presets(name):
    config = video_data_config(name)
    is_resnet = name.endswith("_18")
    assert config.size == ((112, 112) if is_resnet else (224, 224))
    assert config.resize == ((128, 171) if is_resnet else (256, 256) if name == "s3d" else 256)
    assert (config.crop, config.interpolation, config.antialias) == ("center", "bilinear", False)
    assert config.clip_length == 16


def test_the_head_is_there_only_when_asked_for():
    has_head = {
        "pooled": any("fc" in key for key in build_encoder("timm/test_resnet").model.state_dict()),
        "video": any("fc" in key for key in build_encoder("torchvision/r3d_18").model.state_dict()),
        "args": "fc.weight" in build_encoder("timm/test_resnet", model_args={"num_classes": 5}).model.state_dict(),
        "logits": "fc.weight" in build_encoder("timm/test_resnet", outputs=["logits"]).model.state_dict(),
    }
    assert has_head == {"pooled": False, "video": False, "args": True, "logits": True}


def weights_of(encoder):
    return torch.cat([parameter.flatten() for parameter in encoder.parameters()])


@pytest.mark.parametrize("name", ["timm/test_vit", pytest.param("torchvision/r3d_18", marks=pytest.mark.slow)])
def test_seed_fixes_the_weights_and_leaves_the_global_state(name):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = weights_of(build_encoder(name, seed=1))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert torch.equal(first, weights_of(build_encoder(name, seed=1)))
    assert not torch.equal(first, weights_of(build_encoder(name, seed=2)))


def test_gradients_reach_every_parameter():
    encoder = build_encoder("timm/test_vit", seed=0)
    encoder(pixels(encoder))["pooled"].sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())


REFUSED = [
    ("unknown name", {"name": "timm/resnt18"}, r"nearest: timm/resnet18"),
    ("no library", {"name": "resnet18"}, r"nearest: timm/resnet18"),
    ("unknown tag", {"name": "timm/resnet18.nonsense"}, r"'timm/resnet18.nonsense' is not known"),
    ("image model of torchvision", {"name": "torchvision/resnet18"}, r"nearest: .*timm/resnet18"),
    ("unknown output", {"outputs": ["pooledd"]}, r"'pooledd' is not known; allowed: pooled, tokens"),
    ("layer logits", {"outputs": ["layer1.logits"]}, r"'layer1.logits' is not known"),
    ("no output", {"outputs": []}, r"at least one name"),
    ("a string", {"outputs": "pooled"}, r"must be a list"),
    ("twice", {"outputs": ["pooled", "pooled"]}, r"name one output twice"),
    ("layer too high", {"outputs": ["layer6.map"]}, r"has 6 layers; allowed: layer0 to layer5"),
    ("layer too low", {"outputs": ["layer-7.map"]}, r"has 6 layers"),
    ("bad argument", {"model_args": {"depht": 3}}, r"does not take model_args .*depht"),
    ("bad video argument", {"name": "torchvision/r3d_18", "model_args": {"depht": 3}}, r"does not take model_args"),
    ("two class counts", {"num_classes": 3, "model_args": {"num_classes": 4}}, r"num_classes is 3 but .* says 4"),
    ("logits without classes", {"outputs": ["logits"], "num_classes": 0}, r"needs a classifier"),
    (
        "video logits without classes",
        {"name": "torchvision/r3d_18", "outputs": ["logits"], "num_classes": 0},
        r"needs a classifier",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_encoder(**{"name": "timm/test_vit", **arguments})


@pytest.mark.parametrize(
    ("name", "output", "message"),
    [
        ("timm/coat_lite_tiny", "map", r"its 50 tokens form no grid over \(224, 224\) pixels; ask for tokens"),
        ("timm/crossvit_tiny_240", "tokens", r"its features are a list of tensors; ask for pooled"),
    ],
    ids=["no grid", "two sequences"],
)
def test_forms_a_model_does_not_have(name, output, message):
    with pytest.raises(ValueError, match=message):
        output_shapes(build_encoder(name, outputs=[output]))


def test_layers_of_a_model_without_intermediates():
    with pytest.raises(ValueError, match=r"'layer0.map' cannot be had from flat: timm gives no layers for it"):
        TimmEncoder(nn.Flatten(), name="flat", outputs=["layer0.map"])


def preprocess(config, picture):
    """The documented reading of a DataConfig, with Pillow: what a stage must do."""
    resample = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[config.interpolation]
    width, height = picture.size
    target = config.resize
    if config.crop == "squash":
        size_HW = config.size
    elif isinstance(target, int):
        short = min(height, width)
        size_HW = (target * height // short, target * width // short)
    elif config.crop == "center":
        size_HW = target
    else:
        ratios = (target[0] / height, target[1] / width)
        ratio = min(ratios) if config.crop == "border" else max(ratios)
        size_HW = (round(height * ratio), round(width * ratio))
    resized = np.asarray(picture.resize(size_HW[::-1], resample))
    fill = [round(255 * value) for value in config.mean]
    padding = [max(0, config.size[axis] - size_HW[axis]) for axis in (0, 1)]
    canvas = np.empty((size_HW[0] + padding[0], size_HW[1] + padding[1], 3), np.uint8)
    canvas[:] = fill
    top, left = padding[0] // 2, padding[1] // 2
    canvas[top : top + size_HW[0], left : left + size_HW[1]] = resized
    top, left = (round((canvas.shape[axis] - config.size[axis]) / 2) for axis in (0, 1))
    return canvas[top : top + config.size[0], left : left + config.size[1]]


@pytest.mark.parametrize("picture_size", [(90, 60), (60, 90), (50, 50)], ids=["wide", "high", "square"])
@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize("crop_pct", [0.875, 1.0])
@pytest.mark.parametrize("input_size", [(32, 32), (32, 48)], ids=["square_input", "wide_input"])
def test_data_config_means_what_timm_does(picture_size, crop_mode, crop_pct, input_size):
    model = timm.create_model("test_vit", num_classes=0, pretrained_cfg_overlay={"crop_mode": crop_mode})
    model.pretrained_cfg.update(crop_pct=crop_pct, crop_mode=crop_mode, interpolation="bilinear")
    config = timm_data_config(model, input_size=input_size)
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (picture_size[1], picture_size[0], 3), dtype=np.uint8))
    transform = transforms_imagenet_eval(
        input_size, crop_pct=crop_pct, crop_mode=crop_mode, interpolation="bilinear", mean=config.mean, normalize=False
    )
    expected_HWC = transform(picture).permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(preprocess(config, picture), expected_HWC)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop": "middle"}, "crop 'middle' is not known; allowed: center, squash, border, cover"),
        ({"interpolation": "area"}, "interpolation 'area' is not known"),
        ({"std": (1.0, 0.0, 1.0)}, "must all be positive"),
    ],
    ids=["crop", "interpolation", "std"],
)
def test_data_config_refuses(changes, message):
    good = {
        "size": (8, 8),
        "resize": 8,
        "interpolation": "bicubic",
        "antialias": True,
        "crop": "center",
        "mean": (0.5,) * 3,
        "std": (0.5,) * 3,
    }
    DataConfig(**good)
    with pytest.raises(ValueError, match=message):
        DataConfig(**{**good, **changes})


def test_names_of_encoders_are_those_of_the_libraries():
    assert timm_models() == set(timm.list_models())
    assert set(VIDEO_NAMES) == set(VIDEO_FAMILIES)
    old = ["vit_base_patch16_224_in21k", "tv_resnet34"]  # earlier names that timm still takes
    for name in (*timm.list_pretrained()[::40], *old):
        assert is_known_timm_name(name), name
        check_encoder(f"timm/{name}", outputs=["pooled"], model_args={"img_size": 224, "drop_path_rate": 0.1})
