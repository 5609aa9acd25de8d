"""Random resized crops of clips: one box of random area and aspect a clip, the same in all its frames.

Draws are those of torchvision's RandomResizedCrop (Szegedy et al. 2015), from a generator that is given.
Shape letters: B clips, T frames of a clip, C channels, H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

MAX_TRIES = 10  # draws until a box fits into the frame


@dataclass(frozen=True, kw_only=True)
class ResizedCropSettings:
    """Which boxes are cut; CAST has area 0.08 to 1, fractal_video 0.2 to 1, both with the aspects given here."""

    area: tuple[float, float] = (0.08, 1.0)
    # Share of the frame.
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    # Width by height, log-uniform.

    def __post_init__(self) -> None:
        """Refuse what could not be drawn."""
        if not (0 < self.area[0] <= self.area[1] <= 1 and 0 < self.aspect[0] <= self.aspect[1]):
            raise ValueError(f"area {self.area} must lie in (0, 1], aspect {self.aspect} above 0, smallest first.")


def draw_crop(
    settings: ResizedCropSettings, *, height: int, width: int, generator: np.random.Generator
) -> tuple[int, int, int, int]:
    """Top, left, height and width in pixels; where none of 10 draws fits, the largest box of an allowed aspect."""
    low, high = (math.log(bound) for bound in settings.aspect)
    for _ in range(MAX_TRIES):
        area = generator.uniform(*settings.area) * height * width
        aspect = math.exp(generator.uniform(low, high))
        crop_width, crop_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top, left = generator.integers(0, [height - crop_height + 1, width - crop_width + 1]).tolist()
            return top, left, crop_height, crop_width
    crop_width = min(width, round(height * settings.aspect[1]))
    crop_height = min(height, round(width / settings.aspect[0]))
    return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width


def resized_crops(
    x_BTCHW: Tensor,
    settings: ResizedCropSettings,
    generators: Sequence[np.random.Generator],
    *,
    size: tuple[int, int] | None = None,
) -> Tensor:
    """Cut a box out of every clip and resize it, bilinear, to `size` (H, W); None: to the size it came from.

    `x_BTCHW` float, a generator a clip: what a clip is cut to depends on its own generator alone.
    """
    assert len(generators) == len(x_BTCHW)
    height, width = x_BTCHW.shape[-2:]
    cut = []
    for clip, generator in zip(x_BTCHW, generators, strict=True):
        top, left, tall, wide = draw_crop(settings, height=height, width=width, generator=generator)
        box = clip[:, :, top : top + tall, left : left + wide]
        cut.append(functional.interpolate(box, size or (height, width), mode="bilinear", antialias=True))
    return torch.stack(cut)
