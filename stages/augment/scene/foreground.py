"""Size and place of a clip's objects: the clip made smaller, anywhere on black, perhaps twice.

Source: fractal_video (3.10 of the domain reference). Shape letters: T frames of a clip, C channels, H height, W width.
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

from reelwright.stages.augment.scene.config import ScaleSettings
from reelwright.stages.augment.scene.motion import Curriculum, IntArray

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
