"""Random crops of stored frames: one box a clip, the same in all its frames, resized to what the encoder sees.

    stored frame   +-----------------+       what the encoder sees in validation: resized, the middle cut out
                   |   +----+        |
                   |   | box|        |  ->   (h, w), by the encoder's own filter
                   |   +----+        |
                   +-----------------+       a box may lie anywhere in the stored frame, not in that middle alone

With aspects given, draws are those of torchvision's RandomResizedCrop (Szegedy et al. 2015), from a generator.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from reelwright.stages.datasets.sampling.generators import generator_at
from reelwright.stages.decode.geometry import Geometry, apply

MAX_TRIES = 10  # draws until a box fits into the frame

Frames = npt.NDArray[np.uint8]  # (T, H, W, 3) RGB
ClipTransform = Callable[[Frames, int, int], Frames]  # a clip, the epoch, its place in the epoch's order
Box = tuple[int, int, int, int]  # top, left, height and width in pixels


@dataclass(frozen=True, kw_only=True)
class CropSettings:
    """Which boxes are cut; CAST has area 0.08 to 1, fractal_video 0.2 to 1, both aspects 3/4 to 4/3."""

    area: tuple[float, float] = (0.08, 1.0)
    # Share of the frame; without aspects, of the largest box of the encoder's shape that lies in it.
    aspect: tuple[float, float] | None = None
    # Width by height, log-uniform; None: the encoder's shape.


def build_crop(settings: CropSettings, geometry: Geometry, *, seed: int) -> ClipTransform:
    """How clips are cut for an encoder that otherwise sees them through ``geometry``; drawn from ``seed``."""
    return lambda frames, epoch, place: cropped(
        frames, settings, geometry, generator_at(seed, "crop", epoch=epoch, place=place)
    )


def cropped(frames: Frames, settings: CropSettings, geometry: Geometry, generator: np.random.Generator) -> Frames:
    """One box of all frames (T,H,W,3), at the size (h,w) that the encoder sees: (T,h,w,3) uint8.

    Without aspects, an encoder that sees the whole frame, squashed or with a border, sees the whole box so.
    """
    height, width = frames.shape[1:3]
    assert geometry.size is not None
    if settings.aspect is not None:
        box = draw_crop(settings, height=height, width=width, generator=generator)
    else:
        sees_all = geometry.crop in {"squash", "border"}
        shape = (height, width) if sees_all else geometry.size
        box = draw_scaled(settings.area, shape, height=height, width=width, generator=generator)
    top, left, tall, wide = box
    exactly = replace(geometry, resize=geometry.size, crop="center")
    keeps_border = geometry.crop == "border" and settings.aspect is None
    return apply(frames[:, top : top + tall, left : left + wide], geometry if keeps_border else exactly)


def draw_crop(settings: CropSettings, *, height: int, width: int, generator: np.random.Generator) -> Box:
    """A box of random area and aspect; where none of 10 draws fits, the largest one of an allowed aspect."""
    assert settings.aspect is not None
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


def draw_scaled(
    area: tuple[float, float], shape: tuple[int, int], *, height: int, width: int, generator: np.random.Generator
) -> Box:
    """A box of the ratio of ``shape`` (height, width): a random share of the largest one, anywhere in the frame."""
    side = math.sqrt(generator.uniform(*area)) * min(height / shape[0], width / shape[1])
    crop_height = min(height, max(1, round(side * shape[0])))
    crop_width = min(width, max(1, round(side * shape[1])))
    top, left = generator.integers(0, [height - crop_height + 1, width - crop_width + 1]).tolist()
    return top, left, crop_height, crop_width
