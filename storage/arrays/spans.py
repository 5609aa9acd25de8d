"""Where rows lie in time, and the targets of rows and windows that follow from an annotation.

Times are seconds of presentation time. A row is labelled at the middle of its span, so that a boundary that falls on a
frame's own time stamp is not decided by rounding:

    segments   [0.0 ------- 2.0) upright      [2.0 ------ 5.0) fallen
    rows       |0.0|0.5|1.0|1.5|2.0|...
    labels       u   u   u   u   f
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from reelwright.storage.tables.annotations import UNKNOWN, Annotation

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


class _Columns:
    """Arrays (T,) of one entry a row."""

    def take(self, rows: IntArray | slice) -> Self:
        """Those of some rows, in the order given."""
        make: Callable[..., Self] = type(self)
        return make(**{name: values[rows] for name, values in vars(self).items()})

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """Those of ``parts``, one after the other."""
        make: Callable[..., Self] = cls
        return make(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])})


@dataclass(frozen=True)
class Spans(_Columns):
    """Where the T rows of one video lie: float64 (T,) seconds and int64 (T,) source frames, half-open."""

    start_seconds: FloatArray
    stop_seconds: FloatArray
    source_start: IntArray
    source_stop: IntArray


def row_labels(annotation: Annotation, spans: Spans, *, background: int = UNKNOWN) -> IntArray:
    """The class of each row, int64 (T,); ``background`` where nothing is said.

    Where segments overlap, the one that starts last wins (the newer state), then the later line of the table, as of
    two lines of one time or frame. Without segments, times or frames, every row has the video's own label.
    """
    middle = (spans.start_seconds + spans.stop_seconds) / 2
    own = annotation.label if annotation.label != UNKNOWN else background
    labels = np.full(len(middle), own, dtype=np.int64)
    if annotation.frames:
        named = dict(annotation.frames)
        centre = (spans.source_start + spans.source_stop - 1) // 2
        return np.array([named.get(int(frame), background) for frame in centre], dtype=np.int64)
    if annotation.times:
        starts, values = (np.array(column) for column in zip(*annotation.times, strict=True))
        order = np.argsort(starts, kind="stable")
        position = np.searchsorted(starts[order], middle, side="right") - 1
        return np.where(position >= 0, values[order][position], background).astype(np.int64)
    if annotation.segments:
        labels[:] = background
        for start, stop, label in sorted(annotation.segments, key=lambda segment: segment[0]):
            labels[(middle >= start) & (middle < stop)] = label
    return labels


def majority(labels: Sequence[int] | IntArray) -> int:
    """The commonest known class, the smallest one on a tie; UNKNOWN when none is known."""
    known = np.asarray(labels, dtype=np.int64)
    known = known[known != UNKNOWN]
    return int(np.bincount(known).argmax()) if len(known) else UNKNOWN


def join_by_time(first: Spans, other: Spans) -> IntArray:
    """For every row of ``first`` (T,) the row of ``other`` that saw its middle; between rows, the nearer one.

    Where several saw it (clips that overlap), the one whose own middle is nearest. Starts and stops of ``other`` must
    not decrease.
    """
    middle = (first.start_seconds + first.stop_seconds) / 2
    centres = (other.start_seconds + other.stop_seconds) / 2
    last = len(centres) - 1
    low = np.searchsorted(other.stop_seconds, middle, side="right")  # the first row that ends after the middle
    high = np.searchsorted(other.start_seconds, middle, side="right") - 1  # the last row that starts before it
    inside = np.clip(_nearest(centres, middle), low, np.maximum(low, high))
    before, after = np.clip(high, 0, last), np.clip(low, 0, last)
    is_before = middle - other.stop_seconds[before] <= other.start_seconds[after] - middle
    return np.where(low <= high, np.minimum(inside, last), np.where(is_before, before, after)).astype(np.int64)


def _nearest(sorted_values: FloatArray, wanted: FloatArray) -> IntArray:
    after = np.clip(np.searchsorted(sorted_values, wanted), 0, len(sorted_values) - 1)
    before = np.maximum(after - 1, 0)
    is_before = wanted - sorted_values[before] <= sorted_values[after] - wanted
    return np.where(is_before, before, after).astype(np.int64)


@dataclass(frozen=True, kw_only=True)
class RowTimes(_Columns):
    """Which frame each row is: (T,) arrays."""

    source_frame: IntArray
    pts_seconds: FloatArray
    stop_seconds: FloatArray

    @property
    def num_rows(self) -> int:
        """T."""
        return len(self.source_frame)
