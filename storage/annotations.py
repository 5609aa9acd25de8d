"""What is known about a video, and the targets that follow from it for rows and windows.

Times are seconds of presentation time. A row is labelled at the middle of its span, so that a boundary that falls on a
frame's own time stamp is not decided by rounding:

    segments   [0.0 ------- 2.0) upright      [2.0 ------ 5.0) fallen
    rows       |0.0|0.5|1.0|1.5|2.0|...
    labels       u   u   u   u   f
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

UNKNOWN = -1  # no label; losses and metrics leave such rows out

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """Labels of one video as class ids; every part may be empty."""

    label: int = UNKNOWN  # of the whole video
    segments: tuple[tuple[float, float, int], ...] = ()  # start_seconds, stop_seconds, class; half-open
    steps: tuple[tuple[float, int], ...] = ()  # time_seconds of completion, step
    times: tuple[tuple[float, int], ...] = ()  # time_seconds from which on the label holds, class
    frames: tuple[tuple[int, int], ...] = ()  # source frame number, class

    def plain(self) -> dict[str, Any]:
        """Plain data for work units and keys."""
        return {
            "label": self.label,
            "segments": [list(entry) for entry in self.segments],
            "steps": [list(entry) for entry in self.steps],
            "times": [list(entry) for entry in self.times],
            "frames": [list(entry) for entry in self.frames],
        }

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> Annotation:
        """The inverse of `plain`."""
        return cls(
            label=values["label"],
            segments=tuple((float(start), float(stop), int(label)) for start, stop, label in values["segments"]),
            steps=tuple((float(time), int(step)) for time, step in values["steps"]),
            times=tuple((float(time), int(label)) for time, label in values["times"]),
            frames=tuple((int(frame), int(label)) for frame, label in values["frames"]),
        )


@dataclass(frozen=True)
class Spans:
    """Where the T rows of one video lie: float64 (T,) seconds and int64 (T,) source frames, half-open."""

    start_seconds: FloatArray
    stop_seconds: FloatArray
    source_start: IntArray
    source_stop: IntArray


def row_labels(annotation: Annotation, spans: Spans, *, background: int = UNKNOWN) -> IntArray:
    """The class of each row, int64 (T,); ``background`` where nothing is said.

    Where segments overlap, the one that starts last wins (the newer state), then the later line of the table. Without
    segments, times or frames, every row has the video's own label.
    """
    middle = (spans.start_seconds + spans.stop_seconds) / 2
    labels = np.full(len(middle), background, dtype=np.int64)
    if annotation.frames:
        named = dict(annotation.frames)
        centre = (spans.source_start + spans.source_stop - 1) // 2
        return np.array([named.get(int(frame), background) for frame in centre], dtype=np.int64)
    if annotation.times:
        starts, values = (np.array(column) for column in zip(*sorted(annotation.times), strict=True))
        position = np.searchsorted(starts, middle, side="right") - 1
        return np.where(position >= 0, values[position], background).astype(np.int64)
    if annotation.segments:
        for start, stop, label in sorted(annotation.segments, key=lambda segment: segment[0]):
            labels[(middle >= start) & (middle < stop)] = label
        return labels
    return np.full(len(middle), annotation.label, dtype=np.int64)


def window_label_set(
    annotation: Annotation, *, start_seconds: float, stop_seconds: float, num_classes: int
) -> npt.NDArray[np.bool_]:
    """Which classes occur in ``[start_seconds, stop_seconds)``: bool (K,).

    Steps count when they are completed inside; segments when they overlap; the video's own label always.
    """
    present = np.zeros(num_classes, dtype=np.bool_)
    for start, stop, label in annotation.segments:
        present[label] |= start < stop_seconds and stop > start_seconds
    for time, step in (*annotation.steps, *annotation.times):
        present[step] |= start_seconds <= time < stop_seconds
    if annotation.label != UNKNOWN:
        present[annotation.label] = True
    return present


def majority(labels: Sequence[int] | IntArray) -> int:
    """The commonest known class, the smallest one on a tie; UNKNOWN when none is known."""
    known = np.asarray(labels, dtype=np.int64)
    known = known[known != UNKNOWN]
    return int(np.bincount(known).argmax()) if len(known) else UNKNOWN
