"""What is behind a clip: a picture or a clip of the same batch, and how both become one.

Source: fractal_video (3.10 of the domain reference).
Shape letters: B clips, T frames of a clip, C channels, H height, W width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from reelwright.stages.augment.resized_crop import Box, CropSettings, draw_crop
from reelwright.stages.augment.scene.config import BackgroundSettings
from reelwright.stages.augment.scene.motion import Crops, Curriculum, IntArray, draw_shift, shift_crops

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
