"""Step metrics over many videos: means, sums, counts of each step, and how much was observed after which delay."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from reelwright.models.metrics.steps import StepEvent, StepPerformance, f1_score

Pair = tuple[Sequence[StepEvent], Sequence[StepEvent]]  # true and predicted steps of a video


def mean_performance(videos: Sequence[StepPerformance], *, unit: float = 1.0) -> dict[str, Any]:
    """POS, F1 and delay as unweighted means over videos, counts as sums; delays are divided by ``unit`` (frames/s).

    `delay` is the mean of the videos' own mean delays; videos without one are left out, and it is None when none has
    one. F1 is the mean of the videos' own, not that of the sums. Returns num_videos alone for no video.
    """
    if not videos:
        return {"num_videos": 0}
    delays = [video.delay for video in videos if video.delay is not None]
    return {
        "num_videos": len(videos),
        "pos": math.fsum(video.pos for video in videos) / len(videos),
        "f1": math.fsum(video.f1 for video in videos) / len(videos),
        "delay_seconds": math.fsum(delays) / len(delays) / unit if delays else None,
        "num_with_delay": sum(bool(video.delays) for video in videos),
        "true_positives": sum(video.true_positives for video in videos),
        "false_positives": sum(video.false_positives for video in videos),
        "false_negatives": sum(video.false_negatives for video in videos),
        "perception_false_positives": sum(video.perception_false_positives for video in videos),
        "perception_false_negatives": sum(video.perception_false_negatives for video in videos),
    }


def step_table(videos: Sequence[tuple[Sequence[StepEvent], StepPerformance]], *, unit: float = 1.0) -> dict[int, Any]:
    """Of every step that occurs or is predicted, over all videos: counts, F1 of their sums, mean delay, by step id.

    ``videos`` are (true steps, performance).
    """
    counts: dict[int, Counter[str]] = defaultdict(Counter)
    delays: dict[int, list[float]] = defaultdict(list)
    for truth, found in videos:
        for step, number in found.by_step.items():
            counts[step].update(
                num_true=number.num_true,
                num_predicted=number.num_predicted,
                true_positives=number.true_positives,
                false_positives=number.false_positives,
                false_negatives=number.false_negatives,
            )
        for index, delay in found.delays.items():
            delays[truth[index].step].append(delay)
    return {step: _step_row(counts[step], delays[step], unit=unit) for step in sorted(counts)}


def _step_row(counts: Mapping[str, int], delays: Sequence[float], *, unit: float) -> dict[str, Any]:
    hits, extra, missed = (counts[name] for name in ("true_positives", "false_positives", "false_negatives"))
    return {
        **counts,
        "f1": f1_score(hits, extra, missed),
        "delay_seconds": math.fsum(delays) / len(delays) / unit if delays else None,
    }


def once_delays(truth: Sequence[StepEvent], predicted: Sequence[StepEvent]) -> list[float]:
    """Delays of true steps whose id is predicted exactly once and not before them, in the order of the truth.

    What the public code plots: misses, repeated and early predictions are left out.
    """
    times: dict[int, list[float]] = defaultdict(list)
    for event in predicted:
        times[event.step].append(event.time)
    found = [(event, times[event.step]) for event in truth if len(times[event.step]) == 1]
    return [own[0] - event.time for event, own in found if own[0] >= event.time]


def percent_observed(delays: Sequence[float], *, at: Sequence[float], num_steps: int | None = None) -> list[float]:
    """Percent of steps whose delay is at most each value of ``at``.

    ``num_steps`` is what 100 percent are: all true steps, or None for those that have a delay, as in the public code.
    All 0 when there is no step.
    """
    total = len(delays) if num_steps is None else num_steps
    return [100.0 * sum(delay <= limit for delay in delays) / total if total else 0.0 for limit in at]
