"""Learning-rate schedules as pure functions: step -> multiplier of the base rate.

A step is whatever the caller counts (an optimizer step or an epoch). Warm-up is linear from `warmup_start` at step 0 to
1 at step `warmup_steps`, where the schedule proper starts with its own step 0.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass, fields
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


SCHEDULES: dict[str, Callable[..., _ScheduleAfterWarmup]] = {
    "constant": Constant,
    "cosine": Cosine,
    "cosine_restarts": CosineRestarts,
    "step": Step,
}


def build_schedule(
    name: str, *, total_steps: int, warmup_steps: int = 0, warmup_start: float = 0.0, **options: Any
) -> Schedule:
    """The schedule `name` over `total_steps` steps, warm-up included, as a function step (from 0) -> multiplier.

    `options` are the fields of the schedule's dataclass. Raises ValueError for an unknown name or option, a missing
    option, a `warmup_start` outside [0, 1], or a warm-up that is longer than the whole.
    """
    if name not in SCHEDULES:
        raise ValueError(_unknown("schedule", name, list(SCHEDULES)))
    if not 0 <= warmup_start <= 1:
        message = f"warmup_start is {warmup_start}; it must be a share of the base rate in [0, 1]."
        raise ValueError(message)
    if not 0 <= warmup_steps <= total_steps:
        message = f"warmup_steps is {warmup_steps}; it must lie in [0, total_steps = {total_steps}]."
        raise ValueError(message)
    after = _build_after_warmup(name, options)

    def schedule(step: int) -> float:
        if step < warmup_steps:
            return warmup_start + (1.0 - warmup_start) * step / warmup_steps
        return after.multiplier(step - warmup_steps, total_steps - warmup_steps)

    return schedule


def _build_after_warmup(name: str, options: dict[str, Any]) -> _ScheduleAfterWarmup:
    kind: Any = SCHEDULES[name]
    allowed = [option.name for option in fields(kind)]
    for option in options:
        if option not in allowed:
            raise ValueError(_unknown(f"option of schedule {name}", option, allowed))
    try:
        made: _ScheduleAfterWarmup = kind(**options)
    except TypeError as error:
        message = f"schedule {name!r} lacks an option: {error}; its options are {', '.join(allowed)}."
        raise ValueError(message) from error
    return made


def _half_cosine(progress: float, min_ratio: float) -> float:
    return min_ratio + (1.0 - min_ratio) * 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))


def _check_at_least_one(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            message = f"{name} is {value}; it must be at least 1."
            raise ValueError(message)


def _unknown(what: str, value: str, allowed: list[str]) -> str:
    nearest = difflib.get_close_matches(value, allowed, n=1, cutoff=0.5)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else "."
    return f"unknown {what} {value!r}; allowed: {', '.join(allowed) or 'none'}{hint}"
