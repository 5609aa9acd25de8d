"""Scores of completed steps: of each video, of groups of videos, of each step, and over the delay; and as CSV."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from reelwright.models.metrics.bootstrap import Mean, Measure, intervals
from reelwright.models.metrics.step_summary import mean_performance, once_delays, percent_observed, step_table
from reelwright.models.metrics.steps import StepEvent, StepPerformance, f1_score, step_performance
from reelwright.stages.evaluate.config import StepScoreSettings
from reelwright.stages.evaluate.scoring import ALL_SPLITS, overall
from reelwright.stages.evaluate.tables import number_text
from reelwright.storage.errors import ConfigError
from reelwright.storage.results.steps import StepSet, StepsInfo

RIGHT, EARLY, MISSED, EXTRA = "right", "early", "missed", "extra"
UNCERTAIN = "unknown"  # recognised where it is not known what was done
GROUPS = {"all": None, "without_errors": False, "with_errors": True}
_TICKS_PER_SECOND = 1_000_000  # of times where the procedure has no fps: equal times must be equal


@dataclass(frozen=True, kw_only=True)
class StepVideo:
    """True and recognised steps of one video, and how they compare."""

    video_id: str
    digest: str
    split: str
    procedure: str
    duration_seconds: float | None
    has_errors: bool
    truth: tuple[StepEvent, ...]  # times in ticks: see `unit_of`
    predicted: tuple[StepEvent, ...]
    truth_seconds: tuple[float, ...]
    predicted_seconds: tuple[float, ...]
    performance: StepPerformance | None  # None: it is not known what was completed
    pairs: tuple[tuple[int, int], ...]  # (true, recognised), nearest in time whatever the variant


def unit_of(info: StepsInfo) -> float:
    """Ticks in a second: frames of the procedure, or microseconds."""
    return info.fps or _TICKS_PER_SECOND


def step_videos(steps: StepSet, *, splits: Sequence[str], settings: StepScoreSettings) -> list[StepVideo]:
    """Every video of the splits, in the order of the manifest.

    Wrong installations are annotated, not recognised: they are not scored. Raises ConfigError when a variant that
    counts frames meets a procedure without fps.
    """
    info = steps.info
    if settings.variant != "corrected" and info.fps is None:
        raise ConfigError(
            f"evaluate: steps.variant {settings.variant} counts in frames, but the procedure {info.procedure} has no "
            "fps. Set it there, or use variant corrected"
        )
    truth, predicted = _by_video(steps.truth()), _by_video(steps.steps())
    found = []
    for row in steps.videos().to_pylist():
        if row["split"] in splits:
            true = [entry for entry in truth.get(row["video_id"], []) if entry["action"] != "wrong"]
            found.append(_video(row, true, predicted.get(row["video_id"], []), info=info, settings=settings))
    return found


def _by_video(table: pa.Table) -> dict[str, list[dict[str, Any]]]:
    found = defaultdict(list)
    for row in table.to_pylist():
        found[row["video_id"]].append(row)
    return found


def _video(
    row: Mapping[str, Any],
    true: Sequence[Mapping[str, Any]],
    recognised: Sequence[Mapping[str, Any]],
    *,
    info: StepsInfo,
    settings: StepScoreSettings,
) -> StepVideo:
    truth = tuple(StepEvent(_ticks(entry, info), entry["step_id"]) for entry in true)
    predicted = tuple(
        StepEvent(_ticks(entry, info), entry["step_id"], float(entry["observed"])) for entry in recognised
    )
    steps = range(len(info.step_names))
    performance = None
    if row["has_truth"]:
        window = settings.pos_tie_window
        in_ticks = None if window is None else window if info.fps else window * _TICKS_PER_SECOND
        performance = step_performance(truth, predicted, steps=steps, variant=settings.variant, pos_tie_window=in_ticks)
    return StepVideo(
        **{name: row[name] for name in ("video_id", "split", "procedure", "duration_seconds")},
        digest=row["video_digest"],
        has_errors=bool(row["has_errors"]),
        truth=truth,
        predicted=predicted,
        truth_seconds=tuple(entry["time_seconds"] for entry in true),
        predicted_seconds=tuple(entry["time_seconds"] for entry in recognised),
        performance=performance,
        pairs=step_performance(truth, predicted, steps=steps).pairs,
    )


def _ticks(entry: Mapping[str, Any], info: StepsInfo) -> int:
    return int(entry["frame"]) if info.fps else round(entry["time_seconds"] * _TICKS_PER_SECOND)


def score_steps(videos: Sequence[StepVideo], *, info: StepsInfo) -> dict[str, Any]:
    """Scores by split, and by `ALL_SPLITS` where there are several: each group, each step, the curve over the delay.

    Only videos whose true steps are known count; a split without any is left out.
    """
    known = [video for video in videos if video.performance is not None]
    splits = list(dict.fromkeys(video.split for video in known))
    parts = {split: [video for video in known if video.split == split] for split in splits}
    if len(splits) > 1:
        parts = {ALL_SPLITS: known, **parts}
    return {split: _score(part, info=info) for split, part in parts.items()}


def _score(videos: Sequence[StepVideo], *, info: StepsInfo) -> dict[str, Any]:
    unit = unit_of(info)
    groups = {
        name: [video for video in videos if wanted is None or video.has_errors == wanted]
        for name, wanted in GROUPS.items()
    }
    rows = step_table([(video.truth, video.performance) for video in videos if video.performance], unit=unit)
    return {
        "groups": {
            name: mean_performance([video.performance for video in part if video.performance], unit=unit)
            for name, part in groups.items()
        },
        "per_step": {info.step_names[step]: {"step_id": step, **row} for step, row in rows.items()},
        "delay_curve": _curve(videos, unit=unit),
    }


def _curve(videos: Sequence[StepVideo], *, unit: float) -> dict[str, list[float]]:
    """Percent of steps observed within a delay: of all true steps, and of those that are recognised exactly once."""
    delays = [delay / unit for video in videos if video.performance for delay in video.performance.delays.values()]
    once = [delay / unit for video in videos for delay in once_delays(video.truth, video.predicted)]
    at = sorted({0.0, *delays, *once})  # between these nothing changes
    total = sum(len(video.truth) for video in videos)
    return {
        "delay_seconds": at,
        "percent_of_all": percent_observed(delays, at=at, num_steps=total),
        "percent_of_recognised_once": percent_observed(once, at=at),
    }


def headline(scores: Mapping[str, Any]) -> dict[str, float]:
    """The few numbers that stand for all, of all splits together; empty when nothing is known."""
    if not scores:
        return {}
    chosen = overall(scores)["groups"]["all"]
    names = ("pos", "f1", "delay_seconds", "true_positives", "false_positives", "false_negatives")
    return {f"step_{name}": chosen[name] for name in names if chosen[name] is not None}


def step_intervals(videos: Sequence[StepVideo], *, info: StepsInfo) -> dict[str, list[float]]:
    """By the names of `headline`, [low, high]: 95 % bootstrap intervals over the videos whose true steps are known."""
    known = [video.performance for video in videos if video.performance is not None]
    delays = [np.nan if found.delay is None else found.delay / unit_of(info) for found in known]
    measures: dict[str, Measure] = {
        "step_pos": Mean(value=np.array([found.pos for found in known]), best=1.0),
        "step_f1": Mean(value=np.array([found.f1 for found in known]), best=f1_score(1, 0, 0)),
        "step_delay_seconds": Mean(value=np.array(delays)),
    }
    return {name: [each.low, each.high] for name, each in intervals(measures, num_videos=len(known)).items()}


class Event(NamedTuple):
    """A true step with what was recognised of it, or a recognised one that was none."""

    step: int
    verdict: str  # RIGHT (at its time or late), EARLY, MISSED, EXTRA, UNCERTAIN
    true_seconds: float | None
    seconds: float | None  # recognised


def events_of(video: StepVideo) -> list[Event]:
    """In order of time, true steps before others at one time."""
    partner = dict(video.pairs)
    found = []
    for index, event in enumerate(video.truth):
        other = partner.get(index)
        if other is None:
            found.append(Event(event.step, MISSED, video.truth_seconds[index], None))
        else:
            verdict = RIGHT if video.predicted[other].time >= event.time else EARLY
            found.append(Event(event.step, verdict, video.truth_seconds[index], video.predicted_seconds[other]))
    taken, verdict = set(partner.values()), UNCERTAIN if video.performance is None else EXTRA
    found += [
        Event(event.step, verdict, None, video.predicted_seconds[index])
        for index, event in enumerate(video.predicted)
        if index not in taken
    ]
    return sorted(found, key=lambda event: event.true_seconds if event.true_seconds is not None else event.seconds or 0)


def video_lines(videos: Sequence[StepVideo], *, info: StepsInfo) -> Iterator[Sequence[Any]]:
    """A head and a line a video; numbers are empty where the truth is not known."""
    yield [
        *("video_id", "video_digest", "split", "procedure", "has_errors", "num_true", "num_recognised"),
        *("pos", "f1", "delay_seconds", "true_positives", "false_positives", "false_negatives"),
        *("perception_false_positives", "perception_false_negatives"),
    ]
    for video in videos:
        head = [video.video_id, video.digest, video.split, video.procedure]
        found = video.performance
        if found is None:
            yield [*head, "", "", len(video.predicted), *[""] * 8]
            continue
        delay = None if found.delay is None else found.delay / unit_of(info)
        counts = [found.true_positives, found.false_positives, found.false_negatives]
        perception = [found.perception_false_positives, found.perception_false_negatives]
        numbers = [number_text(found.pos), number_text(found.f1), number_text(delay)]
        yield [*head, video.has_errors, len(video.truth), len(video.predicted), *numbers, *counts, *perception]


def step_lines(per_step: Mapping[str, Mapping[str, Any]]) -> Iterator[Sequence[Any]]:
    """A head and a line a step."""
    counts = ("num_true", "num_predicted", "true_positives", "false_positives", "false_negatives")
    yield ["step_id", "step", *counts, "f1", "delay_seconds"]
    for name, row in per_step.items():
        numbers = [number_text(row["f1"]), number_text(row["delay_seconds"])]
        yield [row["step_id"], name, *[row[key] for key in counts], *numbers]


def curve_lines(curve: Mapping[str, Sequence[float]]) -> Iterable[Sequence[Any]]:
    """A head and a line a delay."""
    yield list(curve)
    for values in zip(*curve.values(), strict=True):
        yield [number_text(value) for value in values]


def event_lines(videos: Sequence[StepVideo], *, info: StepsInfo) -> Iterator[Sequence[Any]]:
    """A head and a line an event of the videos whose truth is known."""
    yield ["video_id", "split", "step_id", "step", "verdict", "true_seconds", "recognised_seconds", "delay_seconds"]
    for video in videos:
        for event in events_of(video) if video.performance is not None else ():
            both = event.true_seconds is not None and event.seconds is not None
            delay = (event.seconds or 0.0) - (event.true_seconds or 0.0) if both else None
            times = [number_text(event.true_seconds), number_text(event.seconds), number_text(delay)]
            yield [video.video_id, video.split, event.step, info.step_names[event.step], event.verdict, *times]
