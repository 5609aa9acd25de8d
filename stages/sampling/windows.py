"""Which rows a window takes: pure arithmetic over row numbers, shared by train, finetune and predict.

A window takes `length` rows, leaving out `skip` between two of them, and reaches over
`span_rows = (length - 1) * (skip + 1) + 1` rows of the video; windows start `stride` rows apart.
With length 3, skip 1, stride 2:

    row        0   1   2   3   4   5   6   7        8 rows; span_rows is 5
    window 0   X   .   X   .   X                    [0, 5)  last row 4
    window 1           X   .   X   .   X            [2, 7)  last row 6
    (a third would reach row 8, which is not there)

A video shorter than span_rows has one padded window, or none. Real rows come first, padding after them; the last real
row is the window's last row. With 4 rows:

    row        0   1   2   3
    window 0   X   .   X        _                   [0, 3)  last row 2, mask True True False
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class WindowShape:
    """How a window lies over the rows of a video."""

    length: int  # rows in a window
    stride: int = 1  # rows from one start to the next
    skip: int = 0  # rows left out between two rows of a window
    pad: bool = True  # one padded window for a video that is too short; else it has none
    to_end: bool = False  # one window more, off the grid, where the last one on it does not reach the last row

    @property
    def step(self) -> int:
        """Rows from one row of a window to its next."""
        return self.skip + 1

    @property
    def span_rows(self) -> int:
        """Rows of the video that a whole window reaches over."""
        return (self.length - 1) * self.step + 1


@dataclass(frozen=True)
class Windows:
    """N windows over the rows of videos: int64 (N,) each."""

    video: IntArray  # position of the video among those considered
    start: IntArray  # first row, counted within the video
    count: IntArray  # real rows, 1 to length; the rest is padding
    rows: IntArray | None = None  # (N, length) row numbers, where they are not evenly apart (`clips`)

    def __len__(self) -> int:
        return len(self.start)

    def last_row(self, shape: WindowShape) -> IntArray:
        """The last real row of each window, (N,)."""
        if self.rows is not None:
            return np.take_along_axis(self.rows, self.count[:, None] - 1, axis=1)[:, 0]
        return self.start + (self.count - 1) * shape.step

    def take(self, selection: IntArray | BoolArray) -> Windows:
        """Some of the windows, in the order of ``selection``."""
        rows = None if self.rows is None else self.rows[selection]
        return Windows(self.video[selection], self.start[selection], self.count[selection], rows)


def grid_starts(num_rows: int, shape: WindowShape) -> IntArray:
    """First rows of the windows that lie wholly inside ``num_rows`` rows, in order; of a shorter video [0] or none."""
    if num_rows >= shape.span_rows:
        last = num_rows - shape.span_rows
        starts = np.arange(0, last + 1, shape.stride, dtype=np.int64)
        return np.append(starts, last) if shape.to_end and starts[-1] != last else starts
    return np.zeros(int(shape.pad and num_rows > 0), dtype=np.int64)


def real_counts(starts: IntArray, num_rows: int, shape: WindowShape) -> IntArray:
    """How many rows of each window exist in a video of ``num_rows`` rows, (N,)."""
    return np.minimum(shape.length, -(-(num_rows - starts) // shape.step)).astype(np.int64)


def grid_windows(rows_of_videos: Sequence[int], shape: WindowShape) -> Windows:
    """All grid windows of videos with so many rows each, video by video in order of time."""
    return _joined([(video, grid_starts(rows, shape), rows) for video, rows in enumerate(rows_of_videos)], shape)


def window_rows(windows: Windows, shape: WindowShape) -> tuple[IntArray, BoolArray]:
    """Row numbers int64 (N, length) and mask bool (N, length), True at real rows; padding repeats the last real row."""
    position = np.arange(shape.length, dtype=np.int64)
    mask = position < windows.count[:, None]
    if windows.rows is not None:
        return windows.rows.copy(), mask
    return windows.start[:, None] + np.minimum(position, windows.count[:, None] - 1) * shape.step, mask


def _joined(parts: Sequence[tuple[int, IntArray, int]], shape: WindowShape) -> Windows:
    empty = np.zeros(0, dtype=np.int64)
    return Windows(
        np.concatenate([empty, *(np.full(len(starts), video, dtype=np.int64) for video, starts, _ in parts)]),
        np.concatenate([empty, *(starts for _, starts, _ in parts)]),
        np.concatenate([empty, *(real_counts(starts, rows, shape) for _, starts, rows in parts)]),
    )
