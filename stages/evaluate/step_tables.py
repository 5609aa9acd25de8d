"""Step scores as CSV: a line a video, a step, a delay, and an event."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from reelwright.stages.evaluate.step_scores import StepVideo, unit_of
from reelwright.stages.evaluate.tables import number_text
from reelwright.storage.results.steps import StepsInfo

RIGHT, EARLY, MISSED, EXTRA = "right", "early", "missed", "extra"


class Event(NamedTuple):
    """A true step with what was recognised of it, or a recognised one that was none."""

    step: int
    verdict: str  # RIGHT (at its time or late), EARLY, MISSED, EXTRA
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
    taken = set(partner.values())
    found += [
        Event(event.step, EXTRA, None, video.predicted_seconds[index])
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
