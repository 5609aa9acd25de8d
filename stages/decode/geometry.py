"""Crop and resize frames, one at a time and without chance: equal to timm's and torchvision's evaluation transforms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from reelwright.stages.decode.config import DecodeConfig

Frames = NDArray[np.uint8]  # (T, H, W, 3) RGB
FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
CROPS = ("center", "squash", "border", "cover")


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """What is done to each frame, in this order: cut `box`, resize, cut or pad `size`. All in pixels."""

    box: tuple[int, int, int, int] | None = None  # (top, left, height, width) of the upright source frame
    resize: int | tuple[int, int] | None = None  # the short side, ratio kept; or (height, width), read as `crop` says
    size: tuple[int, int] | None = None  # (height, width); smaller frames are padded with `fill`
    crop: str = "center"
    # center, squash: a (height, width) is met exactly, the ratio is lost (timm's squash; its center has a short side)
    # border: fit inside (height, width), ratio kept (timm's border)
    # cover: cover (height, width), ratio kept (timm's center for models that are not square)
    interpolation: str = "bilinear"  # a key of FILTERS
    antialias: bool = True  # as timm does. False: as torchvision's video presets do (bilinear, bicubic)
    resize_with: str = "pillow"  # with antialias; or torch: bilinear and bicubic, five times as fast, equal to 1 of 255
    fill: tuple[int, int, int] = (0, 0, 0)  # RGB of the padding

    def __post_init__(self) -> None:
        """Refuse names and sizes that nothing could carry out."""
        if self.interpolation not in FILTERS or self.crop not in CROPS:
            raise ValueError(
                f"interpolation {self.interpolation!r} or crop {self.crop!r} is not known; allowed: "
                f"{', '.join(FILTERS)}; {', '.join(CROPS)}."
            )
        if not self.antialias and self.interpolation == "lanczos":
            raise ValueError("lanczos needs antialias: use bilinear or bicubic without it.")

    @classmethod
    def of(cls, config: DecodeConfig) -> Geometry | None:
        """The geometry of a decode node; None where frames stay as they are."""
        if config.crop is None and config.short_side is None and config.size is None:
            return None
        resize = config.short_side or config.size
        return cls(box=config.crop, resize=resize, interpolation=config.interpolation)

    def to_plain(self) -> dict[str, Any]:
        """Plain data, for work units and specs."""
        return asdict(self)

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> Geometry:
        """The inverse of `to_plain`; lists count as tuples."""
        given: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        return cls(**given)


def apply(frames: Frames, geometry: Geometry) -> Frames:
    """Crop and resize (T, H, W, 3) uint8 frames; (T, h, w, 3) uint8, each from its own frame only.

    Raises ValueError when `box` does not lie inside the frames, or nothing would be left of them.
    """
    if geometry.box is not None:
        frames = _cut_box(frames, geometry.box)
    if geometry.resize is not None or geometry.crop == "squash":
        size = resized(frames.shape[1:3], geometry)
        if min(size) < 1:
            raise ValueError(f"frames of {frames.shape[1]} x {frames.shape[2]} (height x width) would become {size}")
        if size != frames.shape[1:3] and geometry.antialias:
            is_smaller = size[0] < frames.shape[1] and size[1] < frames.shape[2]
            keep = geometry.size if is_smaller and geometry.interpolation != "nearest" else None
            if geometry.resize_with == "torch":
                frames = _resize_bytes(frames, size, geometry.interpolation)
            else:
                frames = _resize_pillow(frames, size, geometry.interpolation, keep=keep)
        elif size != frames.shape[1:3]:
            frames = _resize_torch(frames, size, geometry.interpolation)
    if geometry.size is not None:
        frames = _center(frames, geometry.size, geometry.fill)
    return np.ascontiguousarray(frames)


def resized(size: tuple[int, ...], geometry: Geometry) -> tuple[int, int]:
    """(height, width) after the resize of a (height, width) frame; rounding as in torchvision and timm."""
    height, width = size[:2]
    if geometry.crop == "squash" and geometry.size is not None and not isinstance(geometry.resize, tuple):
        return geometry.size
    if geometry.resize is None:
        return height, width
    if isinstance(geometry.resize, int):
        short, long = sorted((height, width))
        new_long = int(geometry.resize * long / short)
        return (new_long, geometry.resize) if width <= height else (geometry.resize, new_long)
    if geometry.crop in ("center", "squash"):
        return geometry.resize
    choose = max if geometry.crop == "border" else min  # timm ResizeKeepRatio: longest 1.0 or 0.0
    ratio = choose(height / geometry.resize[0], width / geometry.resize[1])
    return round(height / ratio), round(width / ratio)


def _cut_box(frames: Frames, box: tuple[int, int, int, int]) -> Frames:
    top, left, height, width = box
    if top + height > frames.shape[1] or left + width > frames.shape[2]:
        raise ValueError(
            f"crop (top {top}, left {left}, height {height}, width {width}) does not fit into frames of "
            f"{frames.shape[1]} x {frames.shape[2]} (height x width). Make it smaller."
        )
    return frames[:, top : top + height, left : left + width]


def _resize_pillow(
    frames: Frames, size: tuple[int, int], interpolation: str, *, keep: tuple[int, int] | None
) -> Frames:
    """Resize to ``size``; of that only the middle that `_center` will ``keep`` is computed, a third of the work less.

    Pillow rounds the box to 32-bit floats, so some values (bicubic: 1 in 2,000) differ by 1 from cutting afterwards.
    """
    shown = size if keep is None else (min(size[0], keep[0]), min(size[1], keep[1]))
    top, left = (round((whole - part) / 2.0) for whole, part in zip(size, shown, strict=True))
    y, x = frames.shape[1] / size[0], frames.shape[2] / size[1]  # source pixels a resized pixel
    box = (left * x, top * y, (left + shown[1]) * x, (top + shown[0]) * y)
    out = np.empty((len(frames), *shown, 3), np.uint8)
    for index, frame in enumerate(frames):
        image = Image.fromarray(np.ascontiguousarray(frame))
        out[index] = np.asarray(image.resize(shown[::-1], FILTERS[interpolation], box=None if shown == size else box))
    return out


def _resize_bytes(frames: Frames, size: tuple[int, int], interpolation: str) -> Frames:
    """torchvision.transforms.v2.functional.resize(..., antialias=True) on uint8: the same bits on every processor.

    Where a frame shrinks, at most 1 of 255 from Pillow's (0.5 % of the values); where it grows, 2 (bicubic).
    """
    import torch
    from torch.nn.functional import interpolate

    with torch.inference_mode():
        pictures = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
        found: Frames = interpolate(pictures, size=size, mode=interpolation, antialias=True).permute(0, 2, 3, 1).numpy()
    return found


def _resize_torch(frames: Frames, size: tuple[int, int], interpolation: str) -> Frames:
    """torchvision.transforms.functional.resize(..., antialias=False) on uint8: float32, round half to even, clamp."""
    import torch
    from torch.nn.functional import interpolate

    options: dict[str, Any] = {} if interpolation == "nearest" else {"align_corners": False}
    out = np.empty((len(frames), *size, 3), np.uint8)
    with torch.inference_mode():
        for index, frame in enumerate(frames):  # one by one: bounded memory, and the same bits in any batch
            picture = torch.from_numpy(np.array(frame.transpose(2, 0, 1), np.float32, order="C"))[None]
            picture = interpolate(picture, size=size, mode=interpolation, **options)
            out[index] = picture[0].round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
    return out


def _center(frames: Frames, size: tuple[int, int], fill: tuple[int, int, int]) -> Frames:
    """Cut ``size`` from the middle; where the frame is smaller, pad it evenly first (the odd pixel right and below)."""
    lacks = [max(0, wanted - present) for wanted, present in zip(size, frames.shape[1:3], strict=True)]
    if any(lacks):
        (top, left), (height, width) = (lack // 2 for lack in lacks), frames.shape[1:3]
        padded = np.empty((len(frames), height + lacks[0], width + lacks[1], 3), np.uint8)
        padded[:] = fill
        padded[:, top : top + height, left : left + width] = frames
        frames = padded
    top, left = (round((present - wanted) / 2.0) for present, wanted in zip(frames.shape[1:3], size, strict=True))
    return frames[:, top : top + size[0], left : left + size[1]]
