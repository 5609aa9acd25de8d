"""How parameters move over the frames of a synthetic video: interpolation profiles and jitter curves, pure arithmetic.

A profile g has a value a frame: 0 gives the start parameters, 1 the end parameters, `start * (1 - g) + end * g` what
lies between or beyond. Kinds, over 19 frames:

    linear      0 ............................................ 1
    sharp       0 0 0 0 0 0 ramp of 4 to 8 frames .. 1 1 1 1 1 1     at least 4 frames flat on each side
    curve       a quadratic spline through 5 to 9 random values      may leave [0, 1] a little
    periodic    a wobbling sine of 5 to 15 frames a period           stays near the start

Source: davidsvy/fractal_video, as written down in the project's domain notes, 3.3.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import make_interp_spline

Floats = NDArray[np.float64]

MIN_FRAMES, MAX_FRAMES = 18, 20
LINEAR_ONLY_SHARE = 0.2
SHARED_SHARE = 0.4  # of the rest: one profile for all functions
FLAT_FRAMES = 4
CURVE_TRIES, CURVE_MIN_MEAN_STEP = 6, 0.45
SINE_STEP = 0.01


def draw_num_frames(rng: np.random.Generator) -> int:
    """The length of a synthetic video: 18 to 20 frames."""
    return int(rng.integers(MIN_FRAMES, MAX_FRAMES + 1))


def interpolate(start: NDArray[Any], end: NDArray[Any], profiles: NDArray[Any]) -> Floats:
    """Parameters at every frame: (F, n, ...) from start and end (n, ...) and profiles (F, n)."""
    weights = profiles.reshape(profiles.shape + (1,) * (start.ndim - profiles.ndim + 1))
    return np.asarray(start * (1 - weights) + end * weights)


def spline_through(values: NDArray[Any], positions: NDArray[Any]) -> Floats:
    """The quadratic spline through ``values`` at equal distances over [0, 1], at ``positions``. Needs 3 values."""
    knots = np.linspace(0, 1, len(values))
    return np.asarray(make_interp_spline(knots, np.asarray(values, np.float64), k=2)(positions))


def linear_profile(num_frames: int) -> Floats:
    """0 to 1 in equal steps."""
    return np.linspace(0.0, 1.0, num_frames)


def sharp_profile(num_frames: int, *, before: int, ramp: int) -> Floats:
    """0 for ``before`` frames, a ramp from 0 to 1 of ``ramp`` frames, then 1."""
    return np.concatenate([np.zeros(before), np.linspace(0.0, 1.0, ramp), np.ones(num_frames - before - ramp)])


def curve_profile(num_frames: int, *, values: NDArray[Any]) -> Floats:
    """A spline through control ``values``."""
    return spline_through(values, np.linspace(0.0, 1.0, num_frames))


def periodic_profile(
    num_frames: int, *, period: int, amplitude: float, frequencies: NDArray[Any], amplitudes: NDArray[Any]
) -> Floats:
    """A sine of about ``period`` frames whose frequency and amplitude follow splines, within [0, ``amplitude``].

    ``frequencies`` and ``amplitudes`` have `num_modulations` values each, one every half period.
    """
    num_periods = math.ceil(num_frames / period)
    half_periods = np.arange(len(frequencies)) * np.pi
    phase = np.arange(0, num_periods * 2 * np.pi, SINE_STEP)
    frequency = make_interp_spline(half_periods, frequencies, k=2)(phase)
    height = make_interp_spline(half_periods, amplitudes, k=2)(phase)
    wave = (np.sin(np.cumsum(frequency * SINE_STEP) - np.pi / 2) * height + 1) / 2
    return np.asarray(amplitude * wave[:: len(wave) // (period * num_periods)][:num_frames])


def num_modulations(num_frames: int, period: int) -> int:
    """How many control values modulate a periodic profile."""
    return 2 * (math.ceil(num_frames / period) + 1)


def draw_sharp(rng: np.random.Generator, num_frames: int) -> Floats:
    """A `sharp_profile` of random place and steepness."""
    ramp = int(rng.integers(4, 9))
    before = int(rng.integers(FLAT_FRAMES, num_frames - ramp - FLAT_FRAMES + 1))
    return sharp_profile(num_frames, before=before, ramp=ramp)


def draw_curve(rng: np.random.Generator, num_frames: int) -> Floats:
    """A `curve_profile` through values that are redrawn, up to 6 times, until they move enough."""
    num_values = int(rng.integers(5, 10))
    for _ in range(CURVE_TRIES):
        values = rng.uniform(0.0, 1.0, size=num_values)
        if np.abs(np.diff(values)).mean() > CURVE_MIN_MEAN_STEP:
            break
    return curve_profile(num_frames, values=values)


def draw_periodic(rng: np.random.Generator, num_frames: int) -> Floats:
    """A `periodic_profile` that covers 0.075 to 0.6 of the way."""
    period = int(rng.integers(5, 16))
    count = num_modulations(num_frames, period)
    return periodic_profile(
        num_frames,
        period=period,
        amplitude=float(rng.uniform(1.5, 4.0)) * period / 100,
        frequencies=rng.uniform(0.15, 1.7, size=count),
        amplitudes=rng.uniform(0.6, 1.0, size=count),
    )


# Name -> (draw, weight).
NON_LINEAR: dict[str, tuple[Callable[[np.random.Generator, int], Floats], float]] = {
    "sharp": (draw_sharp, 0.2),
    "curve": (draw_curve, 0.55),
    "periodic": (draw_periodic, 0.25),
}


def draw_profiles(rng: np.random.Generator, num_functions: int, *, num_frames: int | None = None) -> Floats:
    """(F, n) profiles of ``num_functions`` functions; F is drawn where ``num_frames`` is not given.

    With p = 0.2 all are linear; else with p = 0.4 one non-linear profile is shared by all; else one or two non-linear
    ones and the linear one are assigned at random.
    """
    frames = draw_num_frames(rng) if num_frames is None else num_frames
    if rng.random() < LINEAR_ONLY_SHARE:
        return np.repeat(linear_profile(frames)[:, None], num_functions, axis=1)
    if rng.random() < SHARED_SHARE:
        return np.repeat(_draw_non_linear(rng, frames)[:, None], num_functions, axis=1)
    count = min(num_functions, int(rng.integers(1, 3)))
    profiles = [*(_draw_non_linear(rng, frames) for _ in range(count)), linear_profile(frames)]
    return np.stack([profiles[choice] for choice in rng.integers(0, len(profiles), size=num_functions)], axis=1)


def draw_jitter(rng: np.random.Generator, num_frames: int, *, eps: float) -> Floats:
    """(F,) factors around 1: a spline through 4 to 7 values in [1 - eps, 1 + eps]."""
    values = rng.uniform(1 - eps, 1 + eps, size=int(rng.integers(4, 8)))
    return curve_profile(num_frames, values=values)


def _draw_non_linear(rng: np.random.Generator, num_frames: int) -> Floats:
    names = list(NON_LINEAR)
    chosen = names[int(rng.choice(len(names), p=[weight for _, weight in NON_LINEAR.values()]))]
    return NON_LINEAR[chosen][0](rng, num_frames)
