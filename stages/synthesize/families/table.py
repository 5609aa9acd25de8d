"""What a family of synthetic videos has to offer: how a class is drawn, and how a video of it is rendered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from reelwright.stages.synthesize.actions import draw as actions
from reelwright.stages.synthesize.config import SynthesizeConfig
from reelwright.stages.synthesize.families import dead_leaves, fractal, octopus, perlin

Parameters = Mapping[str, NDArray[Any]]
Frames = NDArray[np.uint8]

VISIBLE_LEVEL = 8  # of 255: darker pixels count as the black behind
MIN_VISIBLE_SHARE = 0.01


class DrawClass(Protocol):
    """Draw the parameters of a class; ``variation`` is a fractal's and chosen before."""

    def __call__(
        self, rng: np.random.Generator, config: SynthesizeConfig, *, variation: int
    ) -> dict[str, NDArray[Any]]:
        """New parameters."""


class Render(Protocol):
    """Frames of a class, (T, H, W) grey or (T, H, W, 3) colour; ``is_instance`` varies the class's parameters."""

    def __call__(
        self, parameters: Parameters, *, rng: np.random.Generator, config: SynthesizeConfig, is_instance: bool
    ) -> Frames:
        """New frames."""


@dataclass(frozen=True)
class Family:
    """One family: its classes are drawn, and come from class files too, or have names that are fixed."""

    render: Render
    draw_class: DrawClass | None = None
    check: Callable[[Parameters], None] | None = None
    # Raises ValueError for parameters out of a class file that cannot be drawn.
    labels: Callable[[SynthesizeConfig], list[str]] | None = None
    # Names of its classes where these are fixed.
    parameters_of: Callable[[str], Parameters] | None = None
    # Of such a name.
    is_black_behind: bool = True


FAMILIES: dict[str, Family] = {
    "fractal": Family(fractal.render, fractal.draw_class, fractal.check),
    "perlin": Family(
        perlin.render, labels=lambda _: perlin.labels(), parameters_of=perlin.parameters_of, is_black_behind=False
    ),
    "actions": Family(
        actions.render, labels=actions.labels, parameters_of=actions.parameters_of, is_black_behind=False
    ),
    "octopus": Family(octopus.render, octopus.draw_class, octopus.check),
    "dead_leaves": Family(dead_leaves.render, dead_leaves.draw_class, dead_leaves.check),
}


def fixed_labels(config: SynthesizeConfig) -> tuple[str, ...]:
    """Names of the classes that a family has by itself; () of those whose classes are drawn or read."""
    labels = FAMILIES[config.family].labels
    return () if labels is None else tuple(labels(config))


def visible_share(frame: Frames) -> float:
    """The share of pixels of an (H, W) or (H, W, 3) frame that are not nearly black."""
    brightest = frame if frame.ndim == 2 else frame.max(axis=2)
    return float(np.count_nonzero(brightest >= VISIBLE_LEVEL) / brightest.size)


def is_degenerate(frames: Frames, *, is_still: bool) -> bool:
    """Whether next to nothing is to be seen: at both ends of a video, or in any of a set of images."""
    if is_still:
        return any(visible_share(frame) < MIN_VISIBLE_SHARE for frame in frames)
    return max(visible_share(frames[0]), visible_share(frames[-1])) < MIN_VISIBLE_SHARE
