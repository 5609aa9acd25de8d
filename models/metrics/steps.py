"""How well completed steps are recognised: true and false positives, misses, F1, delay and order, of one video.

Schoonbeek et al. 2024, "IndustReal", in three variants, which differ in how predicted steps are matched
with true ones:

- `corrected`: same step only, one to one, the nearest in time, a difference of 0 allowed; steps that the procedure does
  not know are false positives; a video without any delay has none.
- `storm`: as the public code of STORM-PSR. The nearest in time, but a difference of exactly 0 is passed over, and where
  nothing else is left, the entry of another step takes its place and gives its time. No delay counts as 0.
- `industreal`: as the public code of IndustReal. As storm, but only what comes later can be matched; no delay counts
  as 100 frames.

There is no tolerance: a prediction after the truth is right however late, one before it is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from reelwright.models.metrics.step_order import order_similarity, reorder_ties

VARIANTS = ("corrected", "industreal", "storm")
_FAR = 1e9  # the time of an entry that is not to be matched, in the public code
_EPSILON = 1e-6
_NO_DELAY: dict[str, float | None] = {"corrected": None, "industreal": 100.0, "storm": 0.0}


class StepEvent(NamedTuple):
    """One completed step."""

    time: float  # frames; for `corrected`, any unit
    step: int
    observed: float = 1.0  # below 1: not seen, but implied by other steps (truncated to a whole number)


@dataclass(frozen=True)
class StepCounts:
    """Of one step in one video."""

    num_true: int
    num_predicted: int
    false_positives: int
    false_negatives: int

    @property
    def true_positives(self) -> int:
        """Predictions that are not false, as the public code counts them."""
        return self.num_predicted - self.false_positives


@dataclass(frozen=True, kw_only=True)
class StepPerformance:
    """Of one video. Times are in the unit of the events."""

    pos: float
    f1: float
    true_positives: int
    false_positives: int
    false_negatives: int
    perception_false_positives: int
    perception_false_negatives: int
    delay: float | None  # mean of delays
    delays: dict[int, float]  # by index of the true event
    pairs: tuple[tuple[int, int], ...]  # (true, predicted) indexes that were matched
    by_step: dict[int, StepCounts]
    order: tuple[int, ...]  # predicted steps as POS saw them
    times: tuple[float, ...]  # and their times


def f1_score(true_positives: int, false_positives: int, false_negatives: int) -> float:
    """2PR / (P + R + 1e-6) as the public code has it: a perfect video has 0.9999995. P or R over nothing is 1e-6."""
    predicted, true = true_positives + false_positives, true_positives + false_negatives
    precision = true_positives / predicted if predicted else _EPSILON
    recall = true_positives / true if true else _EPSILON
    return 2 * precision * recall / (precision + recall + _EPSILON)


def step_performance(
    truth: Sequence[StepEvent],
    predicted: Sequence[StepEvent],
    *,
    steps: Collection[int],
    variant: str = "corrected",
    pos_tie_window: float | None = None,
) -> StepPerformance:
    """Compare the steps of one video; both as they were completed or emitted, which is the order that POS looks at.

    ``steps`` are the ids of the procedure. ``pos_tie_window`` reorders predictions for POS only (`reorder_ties`).
    Raises ValueError for an unknown variant.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant {variant!r} is not known; choose one of {', '.join(VARIANTS)}.")
    count = _Count(truth, predicted, match=_MATCHES[variant])
    for step in dict.fromkeys(steps):
        count.add(step)
    if variant == "corrected":
        for step in sorted({event.step for event in predicted} - set(steps)):
            count.add_unknown(step)
    order, times = [event.step for event in predicted], [event.time for event in predicted]
    true_order = [event.step for event in truth]
    if pos_tie_window is not None:
        true_times = [event.time for event in truth]
        order, times = reorder_ties(
            true_order, order, truth_times=true_times, predicted_times=times, window=pos_tie_window
        )
    true_positives = len(predicted) - count.false_positives
    delays = dict(sorted(count.delays.items()))
    return StepPerformance(
        pos=order_similarity(true_order, order),
        f1=f1_score(true_positives, count.false_positives, count.false_negatives),
        true_positives=true_positives,
        false_positives=count.false_positives,
        false_negatives=count.false_negatives,
        perception_false_positives=count.perception_false_positives,
        perception_false_negatives=count.perception_false_negatives,
        delay=math.fsum(delays.values()) / len(delays) if delays else _NO_DELAY[variant],
        delays=delays,
        pairs=tuple(sorted(count.pairs)),
        by_step=count.by_step,
        order=tuple(order),
        times=tuple(times),
    )


Matches = Callable[[Sequence[int], Sequence[float], Sequence[float]], list[int]]


class _Count:
    """Counts that grow step by step."""

    def __init__(self, truth: Sequence[StepEvent], predicted: Sequence[StepEvent], *, match: Matches) -> None:
        self.truth, self.predicted, self.match = truth, predicted, match
        self.true_times = [event.time for event in truth]
        self.predicted_times = [event.time for event in predicted]
        self.false_positives = self.false_negatives = 0
        self.perception_false_positives = self.perception_false_negatives = 0
        self.delays: dict[int, float] = {}
        self.pairs: list[tuple[int, int]] = []
        self.by_step: dict[int, StepCounts] = {}

    def add(self, step: int) -> None:
        """Count what there is of one step of the procedure."""
        true = [index for index, event in enumerate(self.truth) if event.step == step]
        predicted = [index for index, event in enumerate(self.predicted) if event.step == step]
        num_true, num_predicted = len(true), len(predicted)
        surplus, missing = max(num_predicted - num_true, 0), max(num_true - num_predicted, 0)
        self.perception_false_positives += surplus
        self.perception_false_negatives += missing
        if true and predicted:
            if missing:
                times = [self.predicted_times[index] for index in predicted]
                true = self.match(true, self.true_times, times)
            else:
                times = [self.true_times[index] for index in true]
                predicted = self.match(predicted, self.predicted_times, times)
            surplus += sum(self._is_false(*pair) for pair in zip(true, predicted, strict=True))
        self.false_positives += surplus
        self.false_negatives += missing
        if num_true or num_predicted:
            self.by_step[step] = StepCounts(num_true, num_predicted, surplus, missing)

    def add_unknown(self, step: int) -> None:
        """A step that the procedure does not know is false wherever it is predicted."""
        number = sum(event.step == step for event in self.predicted)
        self.false_positives += number
        self.perception_false_positives += number
        self.by_step[step] = StepCounts(0, number, number, 0)

    def _is_false(self, true: int, predicted: int) -> bool:
        """Take note of a matched pair; whether the prediction is a false positive."""
        self.pairs.append((true, predicted))
        observed = int(self.predicted[predicted].observed)
        delay = self.predicted_times[predicted] - self.true_times[true]
        if delay >= 0:
            # One true event may be matched twice where another step's entry stood in; the later one counts.
            self.delays[true] = delay
        if observed == 0:
            self.perception_false_negatives += 1
            self.perception_false_positives += delay < 0
        return delay < 0 and observed == 1


def nearest_matches(candidates: Sequence[int], times: Sequence[float], wanted: Sequence[float]) -> list[int]:
    """For each wanted time, in order, the nearest candidate (an index into ``times``) that is not taken yet.

    The earlier index of two that are equally near. There are at least as many candidates as wanted times.
    """
    free, found = list(candidates), []
    for time in wanted:
        best = min(free, key=lambda index: (abs(times[index] - time), index))
        free.remove(best)
        found.append(best)
    return found


def _public_matches(*, only_later: bool) -> Matches:
    """Matching as in the public code: differences of 0 (and, where only later ones count, below) are infinite.

    Every entry of another step, and every taken one, has the time 1e9; when all candidates are infinitely far, the
    first of those entries is taken, and the first entry of all when there is none.
    """

    def match(candidates: Sequence[int], times: Sequence[float], wanted: Sequence[float]) -> list[int]:
        allowed = set(candidates)
        open_times = [time if index in allowed else _FAR for index, time in enumerate(times)]
        found = []
        for time in wanted:
            differences = [other - time if only_later else abs(other - time) for other in open_times]
            costs = [difference if difference > 0 else math.inf for difference in differences]
            best = costs.index(min(costs))
            open_times[best] = _FAR
            found.append(best)
        return found

    return match


_MATCHES: dict[str, Matches] = {
    "corrected": nearest_matches,
    "industreal": _public_matches(only_later=True),
    "storm": _public_matches(only_later=False),
}
