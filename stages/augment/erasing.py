"""Random erasing of clips: boxes that are the same in every frame, filled with black, a colour or noise.

Applied to normalised frames, as timm and CAST do. Sources: Zhong et al. 2020; CAST (1.3 of the domain reference).
Shape letters: B clips, T frames of a clip, C channels, H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reelwright.stages.augment.config import ErasingSettings

MAX_TRIES = 100  # draws until a box fits into the frame


@dataclass(frozen=True)
class ErasedBox:
    """Pixels that are lost: rows [top, bottom), columns [left, right)."""

    top: int
    bottom: int
    left: int
    right: int


def draw_boxes(
    settings: ErasingSettings, *, height: int, width: int, generator: np.random.Generator
) -> tuple[ErasedBox, ...]:
    """The boxes of one clip; none where the coin says so, or where none of 100 draws fits."""
    if generator.random() >= settings.probability:
        return ()
    count = int(generator.integers(1, settings.max_count + 1))
    found = [_draw_box(settings, count, (height, width), generator) for _ in range(count)]
    return tuple(box for box in found if box is not None)


def erase(x_BTCHW: Tensor, settings: ErasingSettings, generators: Sequence[np.random.Generator]) -> Tensor:
    """Erase boxes of normalised clips, a generator a clip; a new tensor of the same shape.

    What a clip loses depends on its own generator alone, not on the batch that it is in or the device.
    """
    assert len(generators) == len(x_BTCHW)
    erased = x_BTCHW.clone()
    height, width = x_BTCHW.shape[-2:]
    for clip, generator in zip(erased, generators, strict=True):
        for box in draw_boxes(settings, height=height, width=width, generator=generator):
            hole = clip[:, :, box.top : box.bottom, box.left : box.right]
            hole.copy_(FILLS[settings.mode](tuple(hole.shape), generator).to(hole).expand_as(hole))
    return erased


def _draw_box(
    settings: ErasingSettings, count: int, size: tuple[int, int], generator: np.random.Generator
) -> ErasedBox | None:
    low, high = (math.log(bound) for bound in settings.aspect)
    for _ in range(MAX_TRIES):
        area = generator.uniform(*settings.area) * size[0] * size[1] / count
        aspect = math.exp(generator.uniform(low, high))
        height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < height < size[0] and 0 < width < size[1]:
            top, left = generator.integers(0, [size[0] - height + 1, size[1] - width + 1]).tolist()
            return ErasedBox(top, top + height, left, left + width)
    return None


def _noise(generator: np.random.Generator, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(generator.standard_normal(shape, dtype=np.float32))


FILLS: dict[str, Callable[[tuple[int, ...], np.random.Generator], Tensor]] = {
    "const": lambda _shape, _generator: torch.zeros(1),
    "rand": lambda shape, generator: _noise(generator, (1, shape[1], 1, 1)),
    "pixel": lambda shape, generator: _noise(generator, shape),
}
