"""TSM and X3D: values of the public code, parameter counts, names of published checkpoints, every output."""

import json
from dataclasses import fields
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from reelwright.models.blocks.weights import load_weights
from reelwright.models.encoders.base import EncoderRequest
from reelwright.models.encoders.build import build_encoder, output_shapes
from reelwright.models.encoders.names import OWN_ARGUMENTS, X3D_NAMES, check_encoder, is_video_encoder, tsm_models
from reelwright.models.encoders.tsm import TsmEncoder, insert_shifts, temporal_shift
from reelwright.models.encoders.video_encoders import build_x3d
from reelwright.models.encoders.x3d import X3D, X3D_SIZES, X3DOptions

VALUES = json.loads((Path(__file__).parents[1] / "data" / "temporal_shift.json").read_text())
LAYERS = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3)}


@pytest.mark.parametrize(("shift_div", "expected"), [(8, "out"), (4, "fold_div4")])
def test_the_shift_of_the_public_code(shift_div, expected):
    given = torch.tensor(VALUES["in"])[:, :, None, None]
    found = temporal_shift(given, 3, shift_div=shift_div)
    torch.testing.assert_close(found[:, :, 0, 0], torch.tensor(VALUES[expected]))


def test_clips_do_not_see_each_other():
    given = torch.rand(6, 8, 2, 2)
    both = temporal_shift(given, 3)
    assert torch.equal(both, torch.cat([temporal_shift(given[:3], 3), temporal_shift(given[3:], 3)]))
    with pytest.raises(ValueError, match="6 pictures are no clips of 4 frames"):
        temporal_shift(given, 4)


@pytest.mark.parametrize(
    ("name", "num_shifts"), [("resnet18", 8), ("resnet50", 16), ("resnet101", 18), ("mobilenetv2_100", 10)]
)
def test_where_the_shift_is(name, num_shifts):
    """In every block of a ResNet, in every other one of deep ones, and where MobileNetV2 expands beside a shortcut."""
    with torch.device("meta"):
        model = timm.create_model(name)
    names = list(model.state_dict())
    assert len(insert_shifts(model)) == num_shifts
    assert list(model.state_dict()) == names


def tsm(name="resnet18", **arguments):
    encoder = build_encoder(f"tsm/{name}", seed=0, **arguments)
    return encoder.eval()


def test_a_clip_of_one_frame_is_a_picture_without_the_shifted_channels():
    encoder = tsm()
    picture = torch.rand(1, 3, 32, 32)
    plain = timm.create_model("resnet18", num_classes=0).eval()
    plain.load_state_dict(encoder.model.state_dict())

    def drop(_, inputs):
        moved = inputs[0].shape[1] // 8
        return (torch.cat([torch.zeros_like(inputs[0][:, : 2 * moved]), inputs[0][:, 2 * moved :]], dim=1),)

    for layer in (plain.layer1, plain.layer2, plain.layer3, plain.layer4):
        for block in layer:
            block.conv1.register_forward_pre_hook(drop)
    torch.testing.assert_close(encoder(picture[:, :, None])["pooled"], plain(picture))


def test_every_output_of_tsm():
    encoder = tsm(outputs=["pooled", "tokens", "map", "logits", "layer1.map", "layer-1.pooled"], num_classes=3)
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):  # timm's last ones start at 0, so that no branch would count
            nn.init.ones_(module.weight)
    x_BCTHW = torch.rand(2, 3, 4, 64, 64)
    found = encoder(x_BCTHW)
    shapes = {name: tuple(value.shape) for name, value in found.items()}
    assert shapes == {
        "pooled": (2, 512),
        "tokens": (2, 4 * 4, 512),
        "map": (2, 512, 4, 2, 2),
        "logits": (2, 3),
        "layer1.map": (2, 64, 4, 16, 16),
        "layer-1.pooled": (2, 512),
    }
    torch.testing.assert_close(found["map"].flatten(2).transpose(1, 2), found["tokens"])
    torch.testing.assert_close(found["map"].mean(dim=(2, 3, 4)), found["pooled"])
    torch.testing.assert_close(encoder.model.get_classifier()(found["pooled"]), found["logits"])
    alone = encoder(x_BCTHW[1:])["pooled"]
    torch.testing.assert_close(found["pooled"][1:], alone)
    assert not torch.allclose(encoder(x_BCTHW.flip(2))["pooled"], found["pooled"])  # the order of frames counts


def test_the_public_checkpoint_of_tsm_resnet50():
    """Names as in `TSM_kinetics_RGB_resnet50_shift8_blockres_*.pth`, which is a DataParallel of TSN."""
    encoder = tsm("resnet50", outputs=["logits"], num_classes=400)
    own = encoder.model.state_dict()
    shifted = {f"layer{n + 1}.{k}.conv1.weight" for n, blocks in enumerate(LAYERS["resnet50"]) for k in range(blocks)}

    def public(name):
        if name.startswith("fc."):
            return f"module.new_{name}"
        return f"module.base_model.{name.replace('conv1.weight', 'conv1.net.weight') if name in shifted else name}"

    state = {public(name): torch.full_like(value, 2) for name, value in own.items()}
    report = load_weights(encoder, encoder.public_names(state))
    assert set(report.matched) == set(own)
    assert all((value == 2).all() for value in encoder.model.state_dict().values())
    assert encoder.public_names(own).keys() == own.keys()
    assert sum(value.numel() for value in encoder.parameters()) == 24_327_632  # ResNet-50 with 400 classes


def test_the_public_checkpoint_of_tsm_mobilenet():
    encoder = tsm("mobilenetv2_100", outputs=["logits"], num_classes=400)
    report = load_weights(encoder, encoder.public_names(public_mobilenet()))
    assert set(report.matched) == set(encoder.model.state_dict())


def public_mobilenet():
    """Entries of the public code's MobileNetV2, built as that of Sandler et al., table 2."""
    state = {}

    def add(name, *shape):
        state[f"base_model.{name}"] = torch.zeros(shape)

    def norm(name, size):
        for entry in ("weight", "bias", "running_mean", "running_var"):
            add(f"{name}.{entry}", size)
        add(f"{name}.num_batches_tracked")

    add("features.0.0.weight", 32, 3, 3, 3)
    norm("features.0.1", 32)
    given, number = 32, 1
    for expand, wide, repeats, stride in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    ):  # fmt: skip
        for k in range(repeats):
            inner, at = given * expand, f"features.{number}.conv"
            first = "0.net" if expand > 1 and k > 0 and (stride == 1 or k > 0) else "0"
            if expand > 1:
                add(f"{at}.{first}.weight", inner, given, 1, 1)
                norm(f"{at}.1", inner)
            depthwise = 3 if expand > 1 else 0
            add(f"{at}.{depthwise}.weight", inner, 1, 3, 3)
            norm(f"{at}.{depthwise + 1}", inner)
            add(f"{at}.{depthwise + 3}.weight", wide, inner, 1, 1)
            norm(f"{at}.{depthwise + 4}", wide)
            given, number = wide, number + 1
    add(f"features.{number}.0.weight", 1280, 320, 1, 1)
    norm(f"features.{number}.1", 1280)
    state |= {"new_fc.weight": torch.zeros(400, 1280), "new_fc.bias": torch.zeros(400)}
    return state


def test_dropout_and_head_of_tsm():
    encoder = tsm(outputs=["logits"], num_classes=5)
    assert encoder.model.drop_rate == 0.8
    assert encoder.model.fc.weight.detach().std().item() == pytest.approx(0.001, rel=0.2)
    assert encoder.data_config.clip_length == 8


@pytest.mark.parametrize(("name", "millions"), [("x3d_m", 3.794), ("x3d_l", 6.153), ("x3d_xl", 8.760)])
def test_x3d_has_as_many_parameters_as_published(name, millions):
    with torch.device("meta"):
        model = X3D(X3D_SIZES[name], num_classes=400)
    assert sum(value.numel() for value in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.001)


def test_x3d_names_are_those_of_pytorchvideo():
    with torch.device("meta"):
        names = set(X3D(X3D_SIZES["x3d_m"], num_classes=400).state_dict())
    expected = {
        "blocks.0.conv.conv_t.weight", "blocks.0.conv.conv_xy.weight", "blocks.0.norm.running_mean",
        "blocks.1.res_blocks.0.branch1_conv.weight", "blocks.2.res_blocks.0.branch1_norm.bias",
        "blocks.1.res_blocks.0.branch2.conv_a.weight", "blocks.1.res_blocks.2.branch2.norm_b.0.weight",
        "blocks.1.res_blocks.0.branch2.norm_b.1.block.0.weight", "blocks.1.res_blocks.0.branch2.norm_b.1.block.2.bias",
        "blocks.4.res_blocks.6.branch2.norm_c.weight", "blocks.3.res_blocks.10.branch2.conv_c.weight",
        "blocks.5.pool.pre_conv.weight", "blocks.5.pool.pre_norm.weight", "blocks.5.pool.post_conv.weight",
        "blocks.5.proj.weight", "blocks.5.proj.bias",
    }  # fmt: skip
    assert expected <= names
    absent = {"blocks.1.res_blocks.0.branch1_norm.weight", "blocks.1.res_blocks.1.branch2.norm_b.1.block.0.weight"}
    assert not absent & names


def test_every_output_of_x3d():
    outputs = ["pooled", "tokens", "map", "logits", "layer0.map", "layer4.pooled"]
    encoder = build_encoder("x3d/x3d_s", outputs=outputs, num_classes=3, seed=0).eval()
    x_BCTHW = torch.rand(2, 3, 4, 64, 64)
    found = encoder(x_BCTHW)
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        "pooled": (2, 2048),
        "tokens": (2, 16, 192),
        "map": (2, 192, 4, 2, 2),
        "logits": (2, 3),
        "layer0.map": (2, 24, 4, 32, 32),
        "layer4.pooled": (2, 192),
    }
    torch.testing.assert_close(encoder.model(x_BCTHW), found["logits"])


def test_bigger_pictures_are_averaged_over_what_the_head_saw_in_training():
    options = {"depth": 1.0, "train_size": 32, "clip_length": 1}
    encoder = build_x3d(EncoderRequest(name="x3d_s", outputs=["pooled"], model_args=options)).eval()
    x_BCTHW = torch.rand(1, 3, 1, 64, 64)
    head = encoder.model.blocks[-1].pool
    map_BCTHW = encoder.model.blocks[:-1]
    for block in map_BCTHW:
        x_BCTHW = block(x_BCTHW)
    positions = torch.relu(head.post_conv(torch.relu(head.pre_norm(head.pre_conv(x_BCTHW)))))
    torch.testing.assert_close(encoder.model.pool(x_BCTHW), positions.mean(dim=(2, 3, 4)))


def test_without_classes_there_is_no_classifier():
    encoder = build_encoder("x3d/x3d_s", seed=0, model_args={"depth": 1.0})
    assert isinstance(encoder.model.blocks[-1].proj, nn.Identity)
    assert output_shapes(tsm()) == {"pooled": (512,)}


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("x3d/x3d_q", {}, "nearest: x3d/x3d_"),
        ("tsm/vit_small_patch16_224", {}, "no residual branches to shift in"),
        ("x3d/x3d_s", {"model_args": {"depht": 1.0}}, "allowed: depth, width"),
        ("tsm/resnet18", {"model_args": {"shift_div": 1}}, "shift_div is 1; it must be a whole number from 2"),
        ("tsm/resnet18", {"model_args": {"shift_div": "8"}}, "shift_div is '8'; it must be a whole number from 2"),
        ("tsm/resnet18t", {}, "not known"),
        ("x3d/x3d_s", {"model_args": {"depth": 0}}, "depth is 0; it must be above 0"),
        ("x3d/x3d_s", {"model_args": {"dropout": 1.0}}, r"dropout is 1.0; it must be in \[0, 1\)"),
    ],
)
def test_refused(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        build_encoder(name, **arguments)


def test_the_options_of_x3d_say_how_frames_are_seen():
    options = {"depth": 1.0, "test_size": 64, "clip_length": 6}
    config = build_encoder("x3d/x3d_s", seed=0, model_args=options).data_config
    assert (config.size, config.resize, config.clip_length) == ((64, 64), 64, 6)


def test_names_of_arguments_are_those_of_the_options():
    assert set(OWN_ARGUMENTS["x3d"]) == {entry.name for entry in fields(X3DOptions)} | {"num_classes"}


def test_names_are_checked_without_torch():
    assert {"resnet50", "mobilenetv2_100"} <= tsm_models()
    assert set(X3D_NAMES) == set(X3D_SIZES)
    assert all(map(is_video_encoder, ["tsm/resnet50", "x3d/x3d_m", "torchvision/s3d"]))
    check_encoder("tsm/resnet50.a1_in1k", outputs=["pooled"], model_args={"shift_div": 4, "drop_path_rate": 0.1})
    check_encoder("x3d/x3d_m", outputs=["pooled"], model_args={"depth": 5.0})
    for name, arguments, message in (
        ("tsm/vit_small_patch16_224", {}, "not known"),
        ("x3d/x3d_m", {"depht": 5.0}, "did you mean 'depth'"),
        ("tsm/resnet50", {"shift_dv": 5.0}, "did you mean 'shift_div'"),
    ):
        with pytest.raises(ValueError, match=message):
            check_encoder(name, outputs=["pooled"], model_args=arguments)


def test_a_network_without_residual_branches_is_refused():
    with pytest.raises(ValueError, match="no residual branches to shift in"):
        TsmEncoder(timm.create_model("vgg11", num_classes=0), name="vgg11", outputs=["pooled"])
