"""Dead leaves videos: coloured polygons and discs on paths of their own, over each other in a fixed order.

Source: davidsvy/fractal_video (domain notes, 3.7), after the dead leaves model (Matheron 1968; Lee, Mumford and Huang,
"Occlusion Models for Natural Images", IJCV 2001).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reelwright.stages.synthesize.config import SynthesizeConfig
from reelwright.stages.synthesize.families.motion import draw_jitter, draw_num_frames, draw_profiles
from reelwright.stages.synthesize.families.painting import Shapes, paint

Floats = NDArray[np.float64]

MIN_LEAVES, MAX_LEAVES = 15, 30
DROP_SHARE, JITTER, OFFSET_SHARE = 0.2, 0.2, 0.08  # what tells instances of a class apart


def draw_class(rng: np.random.Generator, config: SynthesizeConfig, *, variation: int) -> dict[str, NDArray[Any]]:
    """A class: the paths `coords` (F, n, 2) of 15 to 30 leaves."""
    del config, variation
    num_frames = draw_num_frames(rng)
    num_leaves = int(rng.integers(MIN_LEAVES, MAX_LEAVES + 1))
    return {"coords": np.stack([_draw_path(rng, num_frames) for _ in range(num_leaves)], axis=1)}


def check(parameters: Mapping[str, NDArray[Any]]) -> None:
    """Raise ValueError for paths of another shape than (F, n, 2)."""
    shape = parameters["coords"].shape
    if len(shape) != 3 or shape[0] < 2 or shape[1] < 1 or shape[2] != 2:
        raise ValueError(f"coords has the shape {shape}: (frames, leaves, 2) is needed")


def render(
    parameters: Mapping[str, NDArray[Any]], *, rng: np.random.Generator, config: SynthesizeConfig, is_instance: bool
) -> NDArray[np.uint8]:
    """(F, size, size, 3) frames; how the leaves look is drawn anew for every video."""
    coords = np.asarray(parameters["coords"], np.float64)
    centres = normalize(vary(rng, coords) if is_instance else coords, size=config.size)
    num_leaves: int = centres.shape[1]
    shapes = Shapes(
        num_corners=rng.integers(1, 9, size=num_leaves),
        rotation=rng.integers(0, 360, size=num_leaves),
        radius=rng.integers(12, 33, size=num_leaves),
        colour=rng.integers(0, 256, size=(num_leaves, 3)),
    )
    black = np.zeros((config.size, config.size, 3), np.uint8)
    return np.stack([paint(black, shapes, places) for places in centres])


def vary(rng: np.random.Generator, coords: Floats) -> Floats:
    """Another instance: a fifth of the leaves dropped, their order shuffled, paths bent and moved a little."""
    kept = np.flatnonzero(rng.random(coords.shape[1]) > DROP_SHARE)
    if len(kept) == 0:
        kept = np.array([int(rng.integers(coords.shape[1]))])
    coords = coords[:, rng.permutation(kept)]
    num_frames, num_leaves, _ = coords.shape
    curves = [draw_jitter(rng, num_frames, eps=JITTER) for _ in range(2 * num_leaves)]
    coords = coords * np.stack(curves, axis=1).reshape(num_frames, num_leaves, 2)
    extent = coords.max(axis=(0, 1)) - coords.min(axis=(0, 1))
    return np.asarray(coords + rng.uniform(-1.0, 1.0, size=(num_leaves, 2)) * extent * OFFSET_SHARE)


def normalize(coords: Floats, *, size: int) -> NDArray[np.int64]:
    """Whole pixels (F, n, 2): each axis over all frames and leaves stretched to the canvas."""
    low, high = coords.min(axis=(0, 1)), coords.max(axis=(0, 1))
    shares = (coords - low) / np.where(high > low, high - low, 1.0)
    return np.asarray(np.clip(np.around(shares * size), 0, size - 1), np.int64)


def _draw_path(rng: np.random.Generator, num_frames: int) -> Floats:
    """(F, 2) of one leaf: a profile an axis, stretched, moved, and backwards half of the time."""
    path: Floats = np.concatenate([draw_profiles(rng, 1, num_frames=num_frames) for _ in range(2)], axis=1)
    low, high = path.min(axis=0), path.max(axis=0)
    path = (path - low) / (high - low)
    path = path * rng.uniform(1.0, 2.0, size=2) * rng.choice([-1.0, 1.0], size=2) + rng.uniform(-2.0, 2.0, size=2)
    for axis in range(2):
        if rng.random() < 0.5:
            path[:, axis] = path[::-1, axis].copy()
    return path
