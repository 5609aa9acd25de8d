"""The layers of a clip: itself made smaller, anywhere on black, perhaps twice; and what is behind it, which it joins.

Behind is a picture or a clip of the same batch. Source: fractal_video (3.10 of the domain reference).
Shape letters: B clips, T frames of a clip, C channels, H height, W width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as kernels

from reelwright.stages.augment.resized_crop import Box, CropSettings, draw_crop
from reelwright.stages.augment.scene.config import BackgroundSettings, ScaleSettings
from reelwright.stages.augment.scene.motion import Crops, Curriculum, IntArray, draw_shift, shift_crops

_LONGEST_OFFSET = 0.25  # of a copy in time, as a share of the clip
_COIN = 0.5


@dataclass(frozen=True, kw_only=True)
class Copy:
    """A second appearance of a smaller clip."""

    corner: tuple[int, int]  # row and column of its top left pixel
    is_mirrored: bool
    degrees: float
    frames: IntArray  # which frame of the clip each of its frames is


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where a smaller clip appears."""

    scale: tuple[float, float]  # of height and width
    corner: tuple[int, int]
    copy: Copy | None = None


def draw_placement(
    settings: ScaleSettings,
    curriculum: Curriculum,
    *,
    shape: tuple[int, int, int],
    can_clone: bool,
    generator: np.random.Generator,
) -> Placement:
    """For a clip of the shape (T, H, W); copies are made where they can be and the curriculum is over."""
    length, *sides = shape
    is_cloned = generator.random() < settings.clone and curriculum.is_over and can_clone
    smallest = curriculum.value(settings.size[1], settings.size[0])
    low, high = settings.clone_size if is_cloned else (smallest, settings.size[1])
    scale = [max(share, 1.01 / side) for share, side in zip(generator.uniform(low, high, 2), sides, strict=True)]
    free = [side - math.floor(side * share) for side, share in zip(sides, scale, strict=True)]

    def corner() -> tuple[int, int]:
        row, column = generator.integers(0, np.array(free) + 1).tolist()
        return row, column

    place = corner()
    copy = None
    if is_cloned:
        copy = Copy(
            corner=corner(),
            is_mirrored=generator.random() < _COIN,
            degrees=generator.uniform(-settings.clone_degrees, settings.clone_degrees),
            frames=_other_times(length, generator),
        )
    return Placement(scale=(scale[0], scale[1]), corner=place, copy=copy)


def placed(x_TCHW: Tensor, placement: Placement) -> Tensor:
    """The clip as it appears there, black around; resized with cubic interpolation, in [0, 1]."""
    small = functional.interpolate(x_TCHW, scale_factor=placement.scale, mode="bicubic")
    height, width = small.shape[-2:]

    def at(corner: tuple[int, int]) -> Tensor:
        return scene[..., corner[0] : corner[0] + height, corner[1] : corner[1] + width]

    scene = torch.zeros_like(x_TCHW)
    at(placement.corner).copy_(small)
    copy = placement.copy
    if copy is not None:
        other = small.flip(-1) if copy.is_mirrored else small
        other = kernels.rotate(other, copy.degrees, interpolation=InterpolationMode.BILINEAR)
        place = at(copy.corner)
        place.copy_(torch.maximum(place, other[torch.from_numpy(copy.frames).to(other.device)]))
    return scene.clamp_(0, 1)  # cubic interpolation overshoots


def _other_times(length: int, generator: np.random.Generator) -> IntArray:
    """Later or earlier by up to a quarter of the clip, its first or last frame standing still meanwhile."""
    offset = int(generator.integers(0, max(1, int(_LONGEST_OFFSET * length)) + 1))
    shift = -offset if generator.random() < _COIN else offset
    return np.clip(np.arange(length) + shift, 0, length - 1)


ASPECT = (3 / 4, 4 / 3)  # of the part of a still picture
_SHORTEST, _DYNAMIC_SHARE = 2, 0.25  # frames, and share of a clip, that a dynamic background plays


@dataclass(frozen=True, kw_only=True)
class Still:
    """The brighter one of two frames, a part of it enlarged, which may move."""

    clips: tuple[int, int]  # of the batch
    frames: tuple[int, int]
    box: Box
    crops: Crops | None


@dataclass(frozen=True, kw_only=True)
class Dynamic:
    """Another clip played to and fro."""

    clip: int
    frames: IntArray  # (T,), its own


@dataclass(frozen=True, kw_only=True)
class Background:
    """What is behind a clip; of weight None, the brighter pixels of both are taken."""

    source: Still | Dynamic
    weight: float | None
    gamma: float


def draw_background(
    settings: BackgroundSettings,
    curriculum: Curriculum,
    *,
    among: IntArray,
    shape: tuple[int, int, int],
    can_move: bool,
    generator: np.random.Generator,
) -> Background:
    """For a clip of the shape (T, H, W), from the clips ``among`` of its batch, itself too."""
    length, height, width = shape
    is_dynamic, is_maximum = generator.random(2) < (settings.dynamic, settings.maximum)
    weight, gamma = generator.uniform(*settings.weight), generator.uniform(*settings.gamma)
    first, second = generator.choice(among, 2).tolist()
    source: Still | Dynamic
    if is_dynamic:
        source = Dynamic(clip=first, frames=to_and_fro(length, generator))
    else:
        one, other = generator.integers(0, length, 2).tolist()
        box = draw_crop(
            CropSettings(area=settings.area, aspect=ASPECT), height=height, width=width, generator=generator
        )
        crops = None
        if settings.shift is not None and can_move and generator.random() < settings.shift.probability:
            shift = draw_shift(settings.shift, curriculum, num_frames=length, height=height, generator=generator)
            crops = shift_crops(shift, length)
        source = Still(clips=(first, second), frames=(one, other), box=box, crops=crops)
    return Background(source=source, weight=None if is_maximum else weight, gamma=gamma)


def to_and_fro(length: int, generator: np.random.Generator) -> IntArray:
    """Numbers of frames (T,): a random walk by -1, 0 or 1, kept within a quarter of the clip (at least 2 frames)."""
    span = int(generator.integers(_SHORTEST, max(_SHORTEST, int(_DYNAMIC_SHARE * length)) + 1))
    span = min(span, length)
    start = int(generator.integers(0, length - span + 1))
    steps = generator.integers(-1, 2, length)
    steps[0] = 0
    walk: IntArray = np.clip(steps.cumsum(), 0, span - 1) + start
    return walk


def shown_behind(x_BTCHW: Tensor, source: Still | Dynamic) -> Tensor:
    """The background in [0, 1]: (T,C,H,W), or (1,C,H,W) where it stands still."""
    if isinstance(source, Dynamic):
        return x_BTCHW[source.clip, torch.from_numpy(source.frames).to(x_BTCHW.device)]
    (one, other), (first, second) = source.clips, source.frames
    picture = torch.maximum(x_BTCHW[one, first], x_BTCHW[other, second])
    top, left, height, width = source.box
    part = picture[None, :, top : top + height, left : left + width]
    size = picture.shape[-2:]
    part = functional.interpolate(part, size=size, mode="bicubic")
    if source.crops is None:
        return part.clamp_(0, 1)
    margin = source.crops.margin
    large = functional.interpolate(part, size=(size[0] + margin, size[1] + margin), mode="bicubic").clamp_(0, 1)
    return torch.cat(
        [large[..., row : row + size[0], column : column + size[1]] for row, column in source.crops.offsets.tolist()]
    )


def mixed(x_TCHW: Tensor, behind: Tensor, background: Background) -> Tensor:
    """A clip in [0, 1] in front of what is behind it: ((1 - a) clip^0.75 + a behind^0.75)^gamma, or the maximum."""
    weight = background.weight
    if weight is None:
        return torch.maximum(x_TCHW, behind)
    return ((1 - weight) * _powered(x_TCHW) + weight * _powered(behind)).clamp_(0, 1).pow_(background.gamma)


def _powered(x: Tensor) -> Tensor:
    """x^0.75 of values from 0 on; two roots take a third of the time of a power."""
    root = x.sqrt()
    return root * root.sqrt()
