"""What windows are to be told: targets of windows from a video's annotation, by task.

    task          target of a window                                      dtype, shape
    video         the video's own label                                   int64 (N,)
    last_row      the label at the window's last row                      int64 (N,)
    majority      the commonest known label of its rows                   int64 (N,)
    per_row       a label a row, UNKNOWN at padding                       int64 (N, length)
    multi_label   the set of labels that occur in its span of time, or    float32 (N, K) of 0 and 1
                  of those that it changed (`LabelSpace.of_window`)

    heads         the video's own label of each head (verb, noun)         int64 (N, H), counted within the head

UNKNOWN (-1) means that nothing is known; such windows are not trained on, and metrics leave them out. The set of labels
of a video without any annotation is known, as empty, only where the pipeline names a background class.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from reelwright.stages.sampling.changes import step_changes, window_changes
from reelwright.stages.sampling.windows import Windows, WindowShape, window_rows
from reelwright.storage.annotations import UNKNOWN, Annotation
from reelwright.storage.spans import Spans, majority, row_labels, window_label_set

Targets = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class LabelSpace:
    """The classes, and what a row without a label has."""

    classes: tuple[str, ...]
    background: int = UNKNOWN  # class id of rows about which nothing is said
    heads: tuple[tuple[str, int], ...] = ()  # name and number of classes, where `classes` are those of several heads
    of_window: str = "or"  # of multi_label: or, what occurs; xor, what is not as it was before


def window_targets(
    task: str, windows: Windows, *, shape: WindowShape, annotation: Annotation, spans: Spans, labels: LabelSpace
) -> Targets:
    """Targets of the windows of one video (``windows.video`` is not looked at); see the table above.

    Raises KeyError for an unknown task.
    """
    return _TARGETS[task](windows, shape, annotation, spans, labels)


def is_described(annotation: Annotation, labels: LabelSpace) -> bool:
    """Whether it is known which labels occur: something is annotated, or a background stands for nothing annotated."""
    return annotation != Annotation() or labels.background != UNKNOWN


def known_windows(task: str, targets: Targets) -> npt.NDArray[np.bool_]:
    """Which windows can be trained on, bool (N,)."""
    if task == "multi_label":
        return np.ones(len(targets), dtype=np.bool_)
    is_known: npt.NDArray[np.bool_] = (targets != UNKNOWN).any(axis=tuple(range(1, targets.ndim)))
    return is_known


def class_counts(task: str, targets: Targets, *, labels: LabelSpace) -> npt.NDArray[np.int64]:
    """How often each class is a target, int64 (K,)."""
    num_classes = len(labels.classes)
    if task == "heads":
        columns = zip(targets.T, labels.heads, strict=True)
        counts = [np.bincount(column[column != UNKNOWN], minlength=size) for column, (_, size) in columns]
        return np.concatenate(counts).astype(np.int64)
    if task == "multi_label":
        return np.asarray(targets.sum(axis=0), dtype=np.int64)
    return np.bincount(targets[targets != UNKNOWN].ravel(), minlength=num_classes).astype(np.int64)


def _video(windows: Windows, _: WindowShape, annotation: Annotation, _spans: Spans, _labels: LabelSpace) -> Targets:
    return np.full(len(windows), annotation.label, dtype=np.int64)


def _heads(windows: Windows, _: WindowShape, annotation: Annotation, _spans: Spans, labels: LabelSpace) -> Targets:
    known = annotation.labels or (UNKNOWN,) * len(labels.heads)
    first = np.cumsum([0, *(size for _, size in labels.heads)])[:-1]
    own = [UNKNOWN if label == UNKNOWN else label - start for label, start in zip(known, first, strict=True)]
    return np.tile(np.array(own, dtype=np.int64), (len(windows), 1))


def head_sets(target_NH: Targets, labels: LabelSpace) -> npt.NDArray[np.bool_]:
    """Targets of heads as sets of classes, bool (N, K): one class of each head that is known."""
    columns = zip(target_NH.T, labels.heads, strict=True)
    return np.concatenate([column[:, None] == np.arange(size) for column, (_, size) in columns], axis=1)


def _last_row(
    windows: Windows, shape: WindowShape, annotation: Annotation, spans: Spans, labels: LabelSpace
) -> Targets:
    return row_labels(annotation, spans, background=labels.background)[windows.last_row(shape)]


def _per_row(windows: Windows, shape: WindowShape, annotation: Annotation, spans: Spans, labels: LabelSpace) -> Targets:
    rows, mask = window_rows(windows, shape)
    return np.where(mask, row_labels(annotation, spans, background=labels.background)[rows], UNKNOWN)


def _majority(
    windows: Windows, shape: WindowShape, annotation: Annotation, spans: Spans, labels: LabelSpace
) -> Targets:
    of_rows = _per_row(windows, shape, annotation, spans, labels)
    return np.array([majority(row) for row in of_rows], dtype=np.int64)


def _multi_label(
    windows: Windows, shape: WindowShape, annotation: Annotation, spans: Spans, labels: LabelSpace
) -> Targets:
    starts, stops = spans.start_seconds[windows.start], spans.stop_seconds[windows.last_row(shape)]
    return label_sets(annotation, starts, stops, labels)


def label_sets(
    annotation: Annotation, start_seconds: FloatArray, stop_seconds: FloatArray, labels: LabelSpace
) -> npt.NDArray[np.float32]:
    """Labels of windows ``[start_seconds, stop_seconds)`` (N,), float32 (N, K) of 0 and 1.

    or: steps that are completed inside, segments that overlap, the video's own label. xor (the net change: state before
    the window against state at its end): what changed an odd number of times inside, where a step is a change of its
    class, and so is each end of a segment or of a label that holds until the next; the video's own label never
    changes. Source: STORM-PSR (A3.6 of the domain
    reference).
    """
    num_classes = len(labels.classes)
    if labels.of_window == "xor":
        times, changes = step_changes(_changes(annotation), num_classes=num_classes)
        return window_changes(times, changes, start=start_seconds, stop=stop_seconds, mode="xor")
    sets = [
        window_label_set(annotation, start_seconds=start, stop_seconds=stop, num_classes=num_classes)
        for start, stop in zip(start_seconds.tolist(), stop_seconds.tolist(), strict=True)
    ]
    return np.array(sets, dtype=np.float32).reshape(len(start_seconds), num_classes)


def _changes(annotation: Annotation) -> list[tuple[float, int]]:
    """When which class came or went."""
    ends = [(time, label) for start, stop, label in annotation.segments for time in (start, stop)]
    turns = [
        (time, label)
        for (_, before), (time, after) in itertools.pairwise(sorted(annotation.times))
        for label in (before, after)
        if before != after and label != UNKNOWN
    ]
    return [*annotation.steps, *ends, *turns]


_TARGETS: dict[str, Callable[[Windows, WindowShape, Annotation, Spans, LabelSpace], Targets]] = {
    "video": _video,
    "heads": _heads,
    "last_row": _last_row,
    "majority": _majority,
    "per_row": _per_row,
    "multi_label": _multi_label,
}
