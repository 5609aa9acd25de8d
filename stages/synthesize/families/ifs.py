"""The parameters of a fractal: maps of an iterated function system, how they are drawn, moved and varied.

Map i at frame f takes a point (x, y) to (a x + b y + tx, c x + d y + ty), with

    [a b; c d] = R(theta) Delta1 Sigma R(phi) Delta2

where angles, singular values and translation are interpolated each for itself (not the matrix), and the reflections
Delta stay. Weights are stored as [a, b, tx, c, d, ty].

Source: davidsvy/fractal_video (domain notes, 3.4); singular values: Anderson and Farrell, "Improving Fractal
Pre-training", WACV 2022, section 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reelwright.stages.synthesize.families.motion import draw_jitter, draw_profiles, interpolate, linear_profile

Floats = NDArray[np.float64]

MIN_MAPS, MAX_MAPS = 3, 8
CONSTANT_BIAS_SHARE = 0.2
NUM_STILLS = 16  # images of one draw in the still-image mode
INSTANCE_JITTER, INSTANCE_OFFSET = 0.4, 0.2
WEIGHTS_PER_MAP = 6


@dataclass(frozen=True, kw_only=True)
class MovingMaps:
    """A fractal video's class: start and end of every parameter and the profiles between them."""

    profiles: Floats  # (F, n)
    angle: Floats  # (2, n, 2) radians: start and end of theta and phi
    sigma: Floats  # (2, n, 2) singular values, sorted by their product
    delta: Floats  # (2, n, 2) of -1 and 1: the diagonals of Delta1 and Delta2 (not start and end)
    bias: Floats  # (2, n, 2) translations
    is_constant: bool  # the translation does not move

    def weights(self, *, linear_motion: bool = False) -> Floats:
        """(F, n, 6) weights of every frame; ``linear_motion`` puts one linear profile in place of all."""
        profiles = self.profiles
        if linear_motion:
            profiles = np.repeat(linear_profile(len(profiles))[:, None], profiles.shape[1], axis=1)
        angle = interpolate(self.angle[0], self.angle[1], profiles)
        sigma = interpolate(self.sigma[0], self.sigma[1], profiles)
        bias = interpolate(self.bias[0], self.bias[0 if self.is_constant else 1], profiles)
        return compose_weights(angle, sigma=sigma, delta=self.delta[:, None], bias=bias)


def compose_weights(angle: Floats, *, sigma: Floats, delta: Floats, bias: Floats) -> Floats:
    """(..., 6) weights of maps from angles, singular values and translations (..., 2) and reflections (2, ..., 2)."""
    theta, phi = _rotation(angle[..., 0]), _rotation(angle[..., 1])
    # A diagonal matrix from the left scales rows, from the right columns.
    scale = (delta[0] * sigma)[..., None, :]
    matrix = (theta * scale) @ (phi * delta[1][..., None, :])
    weights = np.concatenate([matrix, bias[..., None]], axis=-1)
    return np.ascontiguousarray(weights.reshape(*weights.shape[:-2], WEIGHTS_PER_MAP))


def draw_moving_maps(rng: np.random.Generator) -> MovingMaps:
    """The parameters of a fractal video: 3 to 8 maps, 18 to 20 frames."""
    num_maps = int(rng.integers(MIN_MAPS, MAX_MAPS + 1))
    profiles = draw_profiles(rng, num_maps)
    start = rng.uniform(0.0, 2 * np.pi, size=(num_maps, 2))
    is_constant = bool(rng.random() < CONSTANT_BIAS_SHARE)
    return MovingMaps(
        profiles=profiles,
        angle=np.stack([start, start + rng.uniform(-np.pi, np.pi, size=(num_maps, 2))]),
        sigma=np.stack([draw_sorted_singular_values(rng, num_maps) for _ in range(2)]),
        delta=rng.choice([-1.0, 1.0], size=(2, num_maps, 2)),
        bias=_draw_bias(rng, num_maps, is_constant=is_constant),
        is_constant=is_constant,
    )


def draw_still_weights(rng: np.random.Generator) -> Floats:
    """(16, n, 6) weights of independent images with the same number of maps."""
    num_maps = int(rng.integers(MIN_MAPS, MAX_MAPS + 1))
    shape = (NUM_STILLS, num_maps, 2)
    return compose_weights(
        rng.uniform(0.0, 2 * np.pi, size=shape),
        sigma=np.stack([draw_sorted_singular_values(rng, num_maps) for _ in range(NUM_STILLS)]),
        delta=rng.choice([-1.0, 1.0], size=(2, *shape)),
        bias=rng.uniform(-1.0, 1.0, size=shape),
    )


def draw_singular_values(rng: np.random.Generator | np.random.RandomState, num_maps: int) -> Floats:
    """(n, 2) singular values s1 >= s2 whose sum of s1 + 2 s2 lies in [(5 + n) / 2, (6 + n) / 2]."""
    low, high = 0.5 * (5 + num_maps), 0.5 * (6 + num_maps)
    alpha = float(rng.uniform(low, high))
    values = np.zeros((num_maps, 2))
    # What the maps from here on still have to sum up to, at least (of 3 a map) and at most.
    low, high = alpha - 3 * num_maps + 3, alpha
    for index in range(num_maps - 1):
        first = float(rng.uniform(max(0.0, low / 3), min(1.0, high)))
        low, high = low - first, high - first
        second = float(rng.uniform(max(0.0, low / 2), min(first, high / 2)))
        low, high = low - 2 * second + 3, high - 2 * second
        values[index] = first, second
    second = float(rng.uniform(max(0.0, (high - 1) / 2), high / 3))
    values[-1] = high - 2 * second, second
    return values


def draw_sorted_singular_values(rng: np.random.Generator | np.random.RandomState, num_maps: int) -> Floats:
    """`draw_singular_values`, the map of the largest determinant first: large maps then turn into large ones."""
    values = draw_singular_values(rng, num_maps)
    return values[np.argsort(-values[:, 0] * values[:, 1])]


def jitter_weights(rng: np.random.Generator, weights: Floats) -> Floats:
    """Another instance of a class: (F, n, 6) weights times six curves, one an entry, plus a constant offset a map."""
    num_frames, num_maps, _ = weights.shape
    curves = np.stack([draw_jitter(rng, num_frames, eps=INSTANCE_JITTER) for _ in range(WEIGHTS_PER_MAP)], axis=1)
    offset = rng.uniform(-INSTANCE_OFFSET, INSTANCE_OFFSET, size=(1, num_maps, WEIGHTS_PER_MAP))
    return weights * curves[:, None] + offset


def map_probabilities(weights: Floats) -> Floats:
    """(..., n) chance of each map, in proportion to |a d - b c|; equal where all of them are 0."""
    areas = np.abs(weights[..., 0] * weights[..., 4] - weights[..., 1] * weights[..., 3])
    total = areas.sum(axis=-1, keepdims=True)
    return np.where(total > 0, areas / np.where(total > 0, total, 1.0), 1.0 / areas.shape[-1])


def _draw_bias(rng: np.random.Generator, num_maps: int, *, is_constant: bool) -> Floats:
    if is_constant:
        return np.repeat(rng.uniform(-1.0, 1.0, size=(1, num_maps, 2)), 2, axis=0)
    return rng.uniform(-1.0, 1.0, size=(2, num_maps, 2))


def _rotation(angle: Floats) -> Floats:
    """(..., 2, 2) matrices that turn by (...,) radians."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([np.stack([cos, -sin], axis=-1), np.stack([sin, cos], axis=-1)], axis=-2)
