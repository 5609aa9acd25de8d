"""Schedules of a rate (learning rate, weight decay) as pure functions: step -> multiplier of the base rate.

A step is whatever the caller counts (an optimizer step or an epoch). Warm-up is linear from `start` at step 0 to 1 at
step `steps`, where the schedule proper starts with its own step 0:

    step          0     1     2     3     4     5            Warmup(steps=3, start=0.1)
    warm-up      0.1   0.4   0.7
    schedule                       s(0)  s(1)  s(2)          s(0) is 1
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Schedule = Callable[[int], float]


def _constant(_step: int, _num_steps: int) -> float:
    """Always 1."""
    return 1.0


def _cosine(step: int, num_steps: int, *, min_ratio: float = 0.0) -> float:
    """Half a cosine from 1 to `min_ratio` at `num_steps`, and `min_ratio` from there on."""
    return min_ratio + (1.0 - min_ratio) * 0.5 * (1.0 + math.cos(math.pi * min(step / max(num_steps, 1), 1.0)))


def _cosine_restarts(step: int, _num_steps: int, *, T_0: int, T_mult: int = 1, min_ratio: float = 0.0) -> float:
    """Half cosines from 1 towards `min_ratio`, restarting (SGDR; Loshchilov and Hutter 2017, equation 5).

    The first period has `T_0` steps, each is `T_mult` times as long as the one before.
    """
    period = T_0
    while step >= period:
        step, period = step - period, period * T_mult
    return _cosine(step, period, min_ratio=min_ratio)


def _step(step: int, _num_steps: int, *, size: int, gamma: float = 0.1) -> float:
    """Times `gamma` every `size` steps."""
    return gamma ** (step // size)


def _multi_step(step: int, _num_steps: int, *, milestones: tuple[int, ...], gamma: float = 0.1) -> float:
    """Times `gamma` at each of the steps in `milestones`."""
    return float(gamma ** sum(step >= milestone for milestone in milestones))


def _cyclic(step: int, _num_steps: int, *, size: int, gamma: float = 1.0, min_ratio: float = 0.0) -> float:
    """Up in `size` steps from `min_ratio` to 1 and down again; the rise shrinks by `gamma` a step.

    Smith 2017, "Cyclical learning rates for training neural networks", section 3.2: `triangular` with gamma 1, else
    `exp_range`, as torch's CyclicLR.
    """
    rise = 1.0 - abs(step % (2 * size) / size - 1.0)
    return min_ratio + (1.0 - min_ratio) * rise * gamma**step


def _polynomial(step: int, num_steps: int, *, power: float = 1.0, min_ratio: float = 0.0) -> float:
    """(1 - progress) to a power, from 1 to `min_ratio` at `num_steps`; a straight line with power 1."""
    left = 1.0 - min(step / max(num_steps, 1), 1.0)
    return min_ratio + (1.0 - min_ratio) * math.pow(left, power)


SCHEDULES: dict[str, Callable[..., float]] = {
    "constant": _constant,
    "cosine": _cosine,
    "cosine_restarts": _cosine_restarts,
    "step": _step,
    "multi_step": _multi_step,
    "cyclic": _cyclic,
    "polynomial": _polynomial,
}
# Step behind the warm-up, number of such steps in all, options -> multiplier.
_AT_LEAST_ONE = ("T_0", "T_mult", "size")  # options


@dataclass(frozen=True, kw_only=True)
class Warmup:
    """A linear warm-up, and three odd forms of it that some papers' code has."""

    steps: int = 0
    start: float = 0.0
    # Share of the base rate at step 0.
    is_inclusive: bool = False
    # The last step of the warm-up has the whole rate already, as numpy's linspace (CAST, CARL); the peak comes twice.
    overlaps: bool = False
    # The schedule counts from step 0 instead of the end of the warm-up, so the rate jumps there (fractal_video).
    lag: int = 0
    # Steps by which every rate comes late; with 1 the first two steps share the first rate (fractal_video).

    def factor(self, step: int) -> float:
        """Multiplier at a step below `steps`."""
        whole = self.steps - 1 if self.is_inclusive else self.steps
        return self.start + (1.0 - self.start) * (step / whole if whole else 0.0)


NO_WARMUP = Warmup()


def build_schedule(name: str, *, total_steps: int, warmup: Warmup = NO_WARMUP, **options: Any) -> Schedule:
    """The schedule `name` over `total_steps` steps, warm-up included, as a function step (from 0) -> multiplier.

    `options` are those of the schedule's function. Raises ValueError for a size or period below 1.
    """
    for option in _AT_LEAST_ONE:
        if options.get(option, 1) < 1:
            raise ValueError(f"{option} is {options[option]}; it must be at least 1.")
    multiplier = SCHEDULES[name]
    first = 0 if warmup.overlaps else warmup.steps

    def schedule(step: int) -> float:
        step = max(step - warmup.lag, 0)
        if step < warmup.steps:
            return warmup.factor(step)
        return multiplier(step - first, total_steps - first, **options)

    return schedule
