"""Crops and resizes equal timm's (to 1 of 255 in a few values) and torchvision's own evaluation transforms."""

from __future__ import annotations

import numpy as np
import pytest

from reelwright.stages.decode.config import DecodeConfig
from reelwright.stages.decode.geometry import Geometry, apply

SIZES = [(48, 64), (64, 48), (37, 91), (30, 30)]


@pytest.fixture(scope="module")
def noise() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(
    ("crop_mode", "img_size", "geometry"),
    [
        ("center", (28, 28), {"resize": 32, "size": (28, 28)}),
        ("center", (28, 42), {"resize": (32, 48), "size": (28, 42), "crop": "cover"}),
        ("squash", (28, 28), {"resize": (32, 32), "size": (28, 28), "crop": "squash"}),
        ("border", (28, 28), {"resize": (32, 32), "size": (28, 28), "crop": "border", "fill": (124, 116, 104)}),
        ("border", (28, 56), {"resize": (32, 64), "size": (28, 56), "crop": "border", "fill": (124, 116, 104)}),
    ],
    ids=["center", "cover", "squash", "border", "border-wide"],
)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos", "nearest"])
def test_equals_timm(size, crop_mode, img_size, geometry, interpolation, noise) -> None:
    import timm.data
    from PIL import Image

    transform = timm.data.create_transform(
        (3, *img_size), crop_mode=crop_mode, interpolation=interpolation, crop_pct=0.875, use_prefetcher=True
    )
    frames = noise.integers(0, 256, (2, *size, 3), dtype=np.uint8)
    found = apply(frames, Geometry(**geometry, interpolation=interpolation))
    expected = np.stack([np.asarray(transform(Image.fromarray(frame))).transpose(1, 2, 0) for frame in frames])
    assert found.dtype == np.uint8
    differs = np.abs(found.astype(np.int16) - expected.astype(np.int16))
    assert differs.max() <= 1  # Pillow rounds the box of the part that is computed to 32-bit floats
    assert (differs > 0).mean() < (0.1 if interpolation == "bilinear" else 2e-3)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("resize", [40, (33, 45)], ids=str)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_equals_torchvision_video_preset(size, resize, interpolation, noise) -> None:
    import torch
    from torchvision.transforms import functional
    from torchvision.transforms.functional import InterpolationMode

    frames = noise.integers(0, 256, (3, *size, 3), dtype=np.uint8)
    clip = torch.from_numpy(frames).permute(0, 3, 1, 2)
    wish = resize if isinstance(resize, int) else list(resize)
    clip = functional.resize(clip, wish, interpolation=InterpolationMode(interpolation), antialias=False)
    expected = functional.center_crop(clip, [32, 32]).permute(0, 2, 3, 1).numpy()
    found = apply(frames, Geometry(resize=resize, size=(32, 32), interpolation=interpolation, antialias=False))
    np.testing.assert_array_equal(found, expected)


def test_frames_do_not_touch_each_other(noise) -> None:
    frames = noise.integers(0, 256, (4, 20, 30, 3), dtype=np.uint8)
    geometry = Geometry(resize=12, size=(10, 10))
    together = apply(frames, geometry)
    alone = np.concatenate([apply(frames[index : index + 1], geometry) for index in range(4)])
    np.testing.assert_array_equal(together, alone)


def test_box_is_cut_from_the_source() -> None:
    frames = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(1, 4, 5, 3)
    np.testing.assert_array_equal(apply(frames, Geometry(box=(1, 2, 2, 3))), frames[:, 1:3, 2:5])
    with pytest.raises(ValueError, match=r"crop \(top 3, .* does not fit into frames of 4 x 5"):
        apply(frames, Geometry(box=(3, 2, 2, 3)))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        pytest.param({}, None, id="as-decoded"),
        pytest.param({"short_side": 32}, (32, 42), id="short-side"),
        pytest.param({"size": (20, 30)}, (20, 30), id="size"),
        pytest.param({"crop": (0, 0, 10, 20), "short_side": 5}, (5, 10), id="crop-then-short-side"),
    ],
)
def test_of_decode_config(settings, expected) -> None:
    geometry = Geometry.of(DecodeConfig(**settings))
    if expected is None:
        assert geometry is None
        return
    assert Geometry.from_plain(geometry.to_plain()) == geometry
    assert apply(np.zeros((1, 48, 64, 3), np.uint8), geometry).shape == (1, *expected, 3)


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"interpolation": "cubic"}, "interpolation 'cubic'"),
        ({"crop": "middle"}, "crop 'middle'"),
        ({"interpolation": "lanczos", "antialias": False}, "lanczos needs antialias"),
    ],
)
def test_refused(values, match) -> None:
    with pytest.raises(ValueError, match=match):
        Geometry(**values)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("size", "resize", "most"), [((96, 128), 64, 1), ((37, 91), 48, 2)], ids=["shrinks", "grows"])
def test_torchs_kernels_for_bytes_are_near_pillows(size, resize, most, interpolation, noise) -> None:
    import torch
    from torchvision.transforms.v2 import functional
    from torchvision.transforms.v2.functional import InterpolationMode

    frames = noise.integers(0, 256, (3, *size, 3), dtype=np.uint8)
    geometry = Geometry(resize=resize, size=(40, 40), interpolation=interpolation, resize_with="torch")
    found = apply(frames, geometry)
    pictures = torch.from_numpy(frames).permute(0, 3, 1, 2)
    pictures = functional.resize(pictures, [resize], interpolation=InterpolationMode(interpolation), antialias=True)
    np.testing.assert_array_equal(found, functional.center_crop(pictures, [40, 40]).permute(0, 2, 3, 1).numpy())
    np.testing.assert_array_equal(found[1:2], apply(frames[1:2], geometry))
    pillow = apply(frames, Geometry(resize=resize, size=(40, 40), interpolation=interpolation))
    assert 0 < np.abs(found.astype(np.int16) - pillow.astype(np.int16)).max() <= most
