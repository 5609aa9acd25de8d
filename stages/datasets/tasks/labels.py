"""The classes of a node, and which of them occur in windows of a video, from its annotation.

UNKNOWN (-1) means that nothing is known; such windows are not trained on, and metrics leave them out. The set of labels
of a video without any annotation is known, as empty, only where the pipeline names a background class.

    state of a component    0 0 1 1 0 0 1        changes      . . x . x . x
    window                    [- - - - )         any: changed     net_change: none

Source of changes: STORM-PSR (A3.6 of the domain reference). Shape letters: R rows of a state table, K classes or
components, N windows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from reelwright.storage.arrays.spans import Spans
from reelwright.storage.tables.annotations import UNKNOWN, Annotation

Targets = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]
Sets = npt.NDArray[np.bool_]  # (N, K), of windows or of times
WHOLE_VIDEO = Spans(np.array([-np.inf]), np.array([np.inf]), np.array([0]), np.array([np.iinfo(np.int64).max]))


@dataclass(frozen=True, kw_only=True)
class LabelSpace:
    """The classes, and what a row without a label has."""

    classes: tuple[str, ...]
    background: int = UNKNOWN  # class id of rows about which nothing is said
    heads: tuple[tuple[str, int], ...] = ()  # name and number of classes, where `classes` are those of several heads
    of_window: str = "any"  # of multi_label: any, what occurs; net_change, what is not as it was before


def is_described(annotation: Annotation, labels: LabelSpace) -> bool:
    """Whether it is known which labels occur: something is annotated, or a background stands for nothing annotated."""
    return annotation.is_known or labels.background != UNKNOWN


def label_sets(annotation: Annotation, reach: Spans, labels: LabelSpace) -> npt.NDArray[np.float32]:
    """Labels of N windows that reach over ``reach``, half-open in seconds and in source frames: float32 (N, K), 0 or 1.

    any: steps that are completed inside; segments that overlap; labels of times, each of which holds until the next
    time; labels of frames inside; the video's own label. net_change (state before the window against state at
    its end): what changed an odd number of times inside, where a step is a change of its class, and so is each end of
    a segment, and what a time or a labelled frame has that the one before it has not, or the other way round; the
    video's own label never changes. Lines of one time, or of one frame, are one set of labels. Source: STORM-PSR (A3.6
    of the domain reference).
    """
    parts = _CHANGES if labels.of_window == "net_change" else _PRESENT
    found = [part(annotation, reach, len(labels.classes)) for part in parts]
    merge = np.logical_xor if labels.of_window == "net_change" else np.logical_or
    return np.asarray(merge.reduce(found), dtype=np.float32)


MODES = ("net_change", "any")


def step_changes(
    steps: Sequence[tuple[float, int]], *, num_classes: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Completed steps (time, class), as an annotation has them, as changes: times (R,) ascending and changes (R, K)."""
    ordered = sorted(steps)
    changes = np.zeros((len(ordered), num_classes), dtype=np.int64)
    changes[np.arange(len(ordered)), [step for _, step in ordered]] = 1
    return np.array([time for time, _ in ordered], dtype=np.float64), changes


def window_changes(
    times: npt.ArrayLike,
    changes_RK: npt.NDArray[np.int64],
    *,
    start: npt.ArrayLike,
    stop: npt.ArrayLike,
    mode: str = "net_change",
) -> npt.NDArray[np.float32]:
    """Which components changed in the half-open windows [start, stop), float32 (N, K) of 0 and 1.

    `times` (R,) ascending, in the unit of `start` and `stop` (N,); a change counts where it is exactly 1.
    net_change: changed an odd number of times, so that first and last state differ; any: changed at all.
    Raises ValueError for an unknown mode or times that are not in order.
    """
    if mode not in MODES:
        raise ValueError(f"mode {mode!r} is not known; allowed: {', '.join(MODES)}.")
    when = np.asarray(times, dtype=np.float64)
    if (np.diff(when) < 0).any():
        raise ValueError("times of changes must be in ascending order; sort the state table by time.")
    total_RK = np.concatenate([np.zeros((1, changes_RK.shape[1]), dtype=np.int64), np.cumsum(changes_RK == 1, axis=0)])
    first, last = (np.searchsorted(when, np.atleast_1d(np.asarray(bound, dtype=np.float64))) for bound in (start, stop))
    counts_NK = total_RK[np.maximum(last, first)] - total_RK[first]
    labels: npt.NDArray[np.float32] = (counts_NK % 2 if mode == "net_change" else counts_NK > 0).astype(np.float32)
    return labels


def _own_labels(annotation: Annotation, reach: Spans, num_classes: int) -> Sets:
    own = [label for label in (annotation.label, *annotation.labels) if label != UNKNOWN]
    return np.tile(np.isin(np.arange(num_classes), own), (len(reach.start_seconds), 1))


def _overlapping(annotation: Annotation, reach: Spans, num_classes: int) -> Sets:
    present = np.zeros((len(reach.start_seconds), num_classes), dtype=np.bool_)
    for start, stop, label in annotation.segments:
        if label != UNKNOWN:
            present[:, label] |= (start < reach.stop_seconds) & (stop > reach.start_seconds)
    return present


def _completed(annotation: Annotation, reach: Spans, num_classes: int, *, mode: str) -> Sets:
    return _in_seconds(*step_changes(annotation.steps, num_classes=num_classes), reach, mode)


def _holding(annotation: Annotation, reach: Spans, num_classes: int) -> Sets:
    """Labels of times: those that begin inside, and those that hold as the window begins."""
    times, sets = _by_position(annotation.times, num_classes)
    before = np.searchsorted(times, reach.start_seconds, side="right")
    with_none = np.concatenate([np.zeros((1, num_classes), dtype=np.bool_), sets])
    return with_none[before] | _in_seconds(times, sets, reach, "any")


def _named(annotation: Annotation, reach: Spans, num_classes: int) -> Sets:
    return _in_frames(*_by_position(annotation.frames, num_classes), reach, "any")


def _ends(annotation: Annotation, reach: Spans, num_classes: int) -> Sets:
    known = [segment for segment in annotation.segments if segment[-1] != UNKNOWN]
    ends = [(time, label) for start, stop, label in known for time in (start, stop)]
    return _in_seconds(*step_changes(ends, num_classes=num_classes), reach, "net_change")


def _turns_of_times(annotation: Annotation, reach: Spans, num_classes: int) -> Sets:
    times, sets = _by_position(annotation.times, num_classes)
    return _in_seconds(times[1:], sets[1:] ^ sets[:-1], reach, "net_change")


def _turns_of_frames(annotation: Annotation, reach: Spans, num_classes: int) -> Sets:
    frames, sets = _by_position(annotation.frames, num_classes)
    return _in_frames(frames[1:], sets[1:] ^ sets[:-1], reach, "net_change")


def _by_position(entries: Sequence[tuple[float, int]], num_classes: int) -> tuple[FloatArray, Sets]:
    """Times or frames (P,), ascending and each once, and the labels of each, (P, K)."""
    positions, which = np.unique(np.array([position for position, _ in entries]), return_inverse=True)
    labels = np.array([label for _, label in entries], dtype=np.int64)
    sets = np.zeros((len(positions), num_classes), dtype=np.bool_)
    sets[which[labels != UNKNOWN], labels[labels != UNKNOWN]] = True
    return positions.astype(np.float64), sets


def _in_seconds(times: FloatArray, changes: npt.NDArray[Any], reach: Spans, mode: str) -> Sets:
    inside = window_changes(times, changes, start=reach.start_seconds, stop=reach.stop_seconds, mode=mode)
    return inside.astype(np.bool_)


def _in_frames(frames: FloatArray, changes: npt.NDArray[Any], reach: Spans, mode: str) -> Sets:
    inside = window_changes(frames, changes, start=reach.source_start, stop=reach.source_stop, mode=mode)
    return inside.astype(np.bool_)


# What each kind of annotation says of windows; a video has one kind.
_PRESENT: tuple[Callable[[Annotation, Spans, int], Sets], ...] = (
    _own_labels,
    _overlapping,
    partial(_completed, mode="any"),
    _holding,
    _named,
)
_CHANGES: tuple[Callable[[Annotation, Spans, int], Sets], ...] = (
    partial(_completed, mode="net_change"),
    _ends,
    _turns_of_times,
    _turns_of_frames,
)
