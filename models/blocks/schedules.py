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
from typing import Any, Protocol

Schedule = Callable[[int], float]


class _ScheduleAfterWarmup(Protocol):
    def multiplier(self, step: int, num_steps: int) -> float:
        """Multiplier at `step` after warm-up, of `num_steps` in all."""


@dataclass(frozen=True, kw_only=True)
class Constant:
    """Always 1."""

    def multiplier(self, step: int, num_steps: int) -> float:  # noqa: ARG002 -- the signature all schedules share
        """1."""
        return 1.0


@dataclass(frozen=True, kw_only=True)
class Cosine:
    """Half a cosine from 1 to `min_ratio` at the last step, and `min_ratio` from there on."""

    min_ratio: float = 0.0

    def multiplier(self, step: int, num_steps: int) -> float:
        """Reaches `min_ratio` at `step == num_steps`."""
        return _half_cosine(step / max(num_steps, 1), self.min_ratio)


@dataclass(frozen=True, kw_only=True)
class CosineRestarts:
    """Half cosines from 1 towards `min_ratio`, restarting (SGDR; Loshchilov and Hutter 2017, equation 5)."""

    T_0: int
    # Steps of the first period.
    T_mult: int = 1
    # Each period is so many times as long as the one before.
    min_ratio: float = 0.0

    def __post_init__(self) -> None:
        """Refuse periods that never end or never grow."""
        _check_at_least_one(T_0=self.T_0, T_mult=self.T_mult)

    def multiplier(self, step: int, num_steps: int) -> float:  # noqa: ARG002 -- the signature all schedules share
        """1 at the first step of every period."""
        period = self.T_0
        while step >= period:
            step, period = step - period, period * self.T_mult
        return _half_cosine(step / period, self.min_ratio)


@dataclass(frozen=True, kw_only=True)
class Step:
    """Times `gamma` every `size` steps."""

    size: int
    gamma: float = 0.1

    def __post_init__(self) -> None:
        """Refuse a size below 1."""
        _check_at_least_one(size=self.size)

    def multiplier(self, step: int, num_steps: int) -> float:  # noqa: ARG002 -- the signature all schedules share
        """Powers of `gamma`."""
        return self.gamma ** (step // self.size)


@dataclass(frozen=True, kw_only=True)
class MultiStep:
    """Times `gamma` at each of the steps in `milestones`."""

    milestones: tuple[int, ...]
    gamma: float = 0.1

    def multiplier(self, step: int, num_steps: int) -> float:  # noqa: ARG002 -- the signature all schedules share
        """Powers of `gamma`: as many as there are milestones up to `step`, itself included."""
        num_passed = sum(step >= milestone for milestone in self.milestones)
        return float(self.gamma**num_passed)


@dataclass(frozen=True, kw_only=True)
class Cyclic:
    """Up in `size` steps from `min_ratio` to 1 and down again; the rise shrinks by `gamma` a step.

    Smith 2017, "Cyclical learning rates for training neural networks", section 3.2: `triangular` with gamma 1, else
    `exp_range`, as torch's CyclicLR.
    """

    size: int
    gamma: float = 1.0
    min_ratio: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a size below 1."""
        _check_at_least_one(size=self.size)

    def multiplier(self, step: int, num_steps: int) -> float:  # noqa: ARG002 -- the signature all schedules share
        """`min_ratio` at the first step of every cycle, the peak `size` steps later."""
        position = step % (2 * self.size)
        rise = 1.0 - abs(position / self.size - 1.0)
        return self.min_ratio + (1.0 - self.min_ratio) * rise * self.gamma**step


@dataclass(frozen=True, kw_only=True)
class Polynomial:
    """(1 - progress) to a power, from 1 to `min_ratio` at the last step; a straight line with power 1."""

    power: float = 1.0
    min_ratio: float = 0.0

    def multiplier(self, step: int, num_steps: int) -> float:
        """Reaches `min_ratio` at `step == num_steps`."""
        left = 1.0 - min(step / max(num_steps, 1), 1.0)
        return self.min_ratio + (1.0 - self.min_ratio) * math.pow(left, self.power)


SCHEDULES: dict[str, Callable[..., _ScheduleAfterWarmup]] = {
    "constant": Constant,
    "cosine": Cosine,
    "cosine_restarts": CosineRestarts,
    "step": Step,
    "multi_step": MultiStep,
    "cyclic": Cyclic,
    "polynomial": Polynomial,
}


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

    `options` are the fields of the schedule's dataclass. Raises ValueError for a size or period below 1.
    """
    after = SCHEDULES[name](**options)
    first = 0 if warmup.overlaps else warmup.steps

    def schedule(step: int) -> float:
        step = max(step - warmup.lag, 0)
        if step < warmup.steps:
            return warmup.factor(step)
        return after.multiplier(step - first, total_steps - first)

    return schedule


def _half_cosine(progress: float, min_ratio: float) -> float:
    return min_ratio + (1.0 - min_ratio) * 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))


def _check_at_least_one(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            message = f"{name} is {value}; it must be at least 1."
            raise ValueError(message)
