"""Perlin noise videos: gradient noise in space and time whose label is how fine it is.

Source: Perlin, "Improving Noise" (2002), for the fade; frequencies and gradients of davidsvy/fractal_video (domain
notes, 3.5): gradients are not spread evenly over the sphere, and the contrast is not stretched.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reelwright.stages.synthesize.config import PERLIN_SIZE, SynthesizeConfig
from reelwright.stages.synthesize.families.motion import draw_num_frames

Floats = NDArray[np.float64]

SPACE_FREQUENCIES = (1, 2, 3, 5, 6, 8, 10, 12, 16, 20, 30, 40, 60, 80, 120, 240)
TIME_FREQUENCIES = (1,)


def labels() -> list[str]:
    """The 256 class names, as `<fy>-<fx>-<ft>`."""
    return ["-".join(map(str, each)) for each in product(SPACE_FREQUENCIES, SPACE_FREQUENCIES, TIME_FREQUENCIES)]


def parameters_of(label: str) -> dict[str, NDArray[Any]]:
    """The class of a label."""
    return {"frequencies": np.array([int(part) for part in label.split("-")])}


def render(
    parameters: Mapping[str, NDArray[Any]], *, rng: np.random.Generator, config: SynthesizeConfig, is_instance: bool
) -> NDArray[np.uint8]:
    """(T, 240, 240) grey frames of new noise; every video is an instance of its label."""
    del config, is_instance
    frequencies = tuple(int(value) for value in parameters["frequencies"])
    shape = (PERLIN_SIZE, PERLIN_SIZE, draw_num_frames(rng))
    angles = rng.uniform(0.0, 2 * np.pi, size=(2, *(value + 1 for value in frequencies)))
    noise = gradient_noise(gradients_of(angles[0], angles[1]), shape=shape)
    return np.rint(255 * noise).astype(np.uint8)


def gradients_of(theta: Floats, phi: Floats) -> Floats:
    """(..., 3) unit vectors (y, x, t) of two angles in radians."""
    return np.stack([np.sin(phi) * np.cos(theta), np.sin(phi) * np.sin(theta), np.cos(phi)], axis=-1)


def fade(share: Floats) -> Floats:
    """6 t^5 - 15 t^4 + 10 t^3: a step from 0 to 1 without a kink."""
    return share**3 * (share * (share * 6 - 15) + 10)


def gradient_noise(gradients: Floats, *, shape: tuple[int, int, int]) -> Floats:
    """(T, H, W) noise around 0.5, which it is on every lattice point, from gradients (fy + 1, fx + 1, ft + 1, 3).

    ``shape`` is (H, W, T). Raises ValueError where a frequency does not divide its side.

    Noise is linear in time within a corner's ramp, `plane + slope * (t - corner)`, so that space is interpolated once
    a layer of the lattice and not once a frame.
    """
    frequencies = tuple(size - 1 for size in gradients.shape[:3])
    if any(side % frequency for side, frequency in zip(shape, frequencies, strict=True)):
        raise ValueError(f"frequencies {frequencies} do not divide the sides {shape}")
    layers = [_layer(gradients[:, :, index], shape[:2]) for index in range(frequencies[2] + 1)]
    cells, shares = _lattice(shape[2], frequencies[2])
    frames = []
    for cell, share, weight in zip(cells.tolist(), shares.tolist(), fade(shares).tolist(), strict=True):
        (plane, slope), (next_plane, next_slope) = layers[cell], layers[cell + 1]
        frames.append((1 - weight) * (plane + share * slope) + weight * (next_plane + (share - 1) * next_slope))
    return (np.stack(frames) + 1) / 2


def _layer(gradients: Floats, shape: tuple[int, int]) -> tuple[Floats, Floats]:
    """(H, W) ramps in space, and slopes along time, of one layer of gradients (fy + 1, fx + 1, 3)."""
    (rows, row_shares), (columns, column_shares) = (
        _lattice(side, size - 1) for side, size in zip(shape, gradients.shape, strict=False)
    )
    row_fade, column_fade = fade(row_shares)[:, None], fade(column_shares)[None, :]
    plane, slope = np.zeros(shape), np.zeros(shape)
    for down, right in product((0, 1), (0, 1)):
        corner = gradients[(rows + down)[:, None], (columns + right)[None, :]]
        weight = (row_fade if down else 1 - row_fade) * (column_fade if right else 1 - column_fade)
        ramp = corner[..., 0] * (row_shares - down)[:, None] + corner[..., 1] * (column_shares - right)[None, :]
        plane += weight * ramp
        slope += weight * corner[..., 2]
    return plane, slope


def _lattice(side: int, frequency: int) -> tuple[NDArray[np.int64], Floats]:
    """The lattice cell of each of ``side`` pixels, and how far into it the pixel is."""
    step = side // frequency
    pixels = np.arange(side)
    return pixels // step, (pixels % step) / step
