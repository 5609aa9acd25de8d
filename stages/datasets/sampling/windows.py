"""Which rows a window takes, and which frames a clip: pure arithmetic, one rule for embed, train, finetune and predict.

A window takes `length` rows, `dilation` apart (1: neighbours), and reaches over
`span_rows = (length - 1) * dilation + 1` rows of the video; windows start `hop` rows apart.
With length 3, dilation 2, hop 2:

    row        0   1   2   3   4   5   6   7        8 rows; span_rows is 5
    window 0   X   .   X   .   X                    [0, 5)  last row 4
    window 1           X   .   X   .   X            [2, 7)  last row 6
    window 2               X   .   X   .   X        [3, 8)  last row 7: with `to_end` only, off the grid

A video shorter than span_rows has one window, or none. Its real rows come first; what follows them says `short`. With 4
rows:

    row        0   1   2   3
    pad        X   .   X        _                   [0, 3)  last row 2, mask True True False
    repeat     X   .   X   X                        [0, 4)  last row 3, which is repeated where more rows are needed
    leave_out                                       no window

Padding is told to temporal models, and to models of clips of frames, by a mask. Encoders know no mask: they are shown
black frames.
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
    """How a window (a clip) lies over the rows (the frames) of a video."""

    length: int  # rows in a window
    hop: int = 1  # rows from one start to the next
    dilation: int = 1  # rows from one row of a window to its next; 1: neighbours
    to_end: bool = False  # one window more, off the grid, where the last one on it does not reach the last row
    short: str = "pad"  # of a video that is too short: pad, repeat or leave_out, as drawn above

    @property
    def span_rows(self) -> int:
        """Rows of the video that a whole window reaches over."""
        return (self.length - 1) * self.dilation + 1

    def num_windows(self, num_rows: int) -> int:
        """Windows of a video with so many rows, as `grid_starts` lists them."""
        room = num_rows - self.span_rows
        if room < 0:
            return int(num_rows > 0 and self.short != "leave_out")
        return room // self.hop + 1 + int(self.to_end and room % self.hop > 0)

    def num_left_out(self, num_rows: int) -> int:
        """Rows that no window reaches over: at the end, between windows, or all of a video that is left out."""
        room = num_rows - self.span_rows
        if room < 0:
            return num_rows if self.short == "leave_out" else 0
        gap, rest = max(self.hop - self.span_rows, 0), room % self.hop
        return room // self.hop * gap + (max(rest - self.span_rows, 0) if self.to_end else rest)


@dataclass(frozen=True)
class Windows:
    """N windows over the rows of videos: int64 (N,) each."""

    video: IntArray  # position of the video among those considered
    start: IntArray  # first row, counted within the video
    count: IntArray  # real rows, 1 to length; the rest is padding or the last one repeated
    rows: IntArray | None = None  # (N, length) row numbers, where they are not evenly apart (`clips`)
    last: IntArray | None = None  # last real rows, where these may be off the window's steps (short: repeat)

    def __len__(self) -> int:
        return len(self.start)

    def last_row(self, shape: WindowShape) -> IntArray:
        """The last real row of each window, (N,)."""
        if self.rows is not None:
            return np.take_along_axis(self.rows, self.count[:, None] - 1, axis=1)[:, 0]
        return self.start + (self.count - 1) * shape.dilation if self.last is None else self.last

    def take(self, selection: IntArray | BoolArray) -> Windows:
        """Some of the windows, in the order of ``selection``."""
        rows = None if self.rows is None else self.rows[selection]
        last = None if self.last is None else self.last[selection]
        return Windows(self.video[selection], self.start[selection], self.count[selection], rows, last)

    @classmethod
    def joined(cls, parts: Sequence[Windows]) -> Windows:
        """All windows of ``parts``, which are of one kind."""
        empty = np.zeros(0, dtype=np.int64)
        video, start, count = (
            np.concatenate([empty, *(getattr(part, name) for part in parts)]) for name in ("video", "start", "count")
        )
        rows = [part.rows for part in parts if part.rows is not None]
        last = [part.last for part in parts if part.last is not None]
        return cls(video, start, count, np.concatenate(rows) if rows else None, np.concatenate(last) if last else None)


def grid_starts(num_rows: int, shape: WindowShape) -> IntArray:
    """First rows of the windows that lie wholly inside ``num_rows`` rows, in order; of a shorter video [0] or none."""
    last = num_rows - shape.span_rows
    if last < 0:
        return np.zeros(shape.num_windows(num_rows), dtype=np.int64)
    starts = np.arange(0, last + 1, shape.hop, dtype=np.int64)
    return np.append(starts, last) if shape.to_end and starts[-1] != last else starts


def windows_at(video: IntArray, start: IntArray, num_rows: int | IntArray, shape: WindowShape) -> Windows:
    """Windows that begin at ``start`` (N,) in videos ``video`` (N,) of ``num_rows`` rows, (N,) or one for all."""
    last = np.minimum(start + shape.span_rows, num_rows) - 1
    count = -(-(last - start) // shape.dilation) + 1
    if shape.short == "repeat":
        return Windows(video, start, count, last=last)
    return Windows(video, start, (last - start) // shape.dilation + 1)


def grid_windows(rows_of_videos: Sequence[int], shape: WindowShape) -> Windows:
    """All grid windows of videos with so many rows each, video by video in order of time."""
    return Windows.joined(
        [
            windows_at(np.full(len(starts), video, dtype=np.int64), starts, rows, shape)
            for video, rows in enumerate(rows_of_videos)
            for starts in [grid_starts(rows, shape)]
        ]
    )


def window_rows(windows: Windows, shape: WindowShape) -> tuple[IntArray, BoolArray]:
    """Row numbers int64 (N, length) and mask bool (N, length), True at real rows; after them the last one repeats."""
    position = np.arange(shape.length, dtype=np.int64)
    mask = position < windows.count[:, None]
    if windows.rows is not None:
        return windows.rows.copy(), mask
    reached = windows.start[:, None] + position * shape.dilation
    return np.minimum(reached, windows.last_row(shape)[:, None]), mask


def shown(mask: BoolArray, shape: WindowShape) -> BoolArray:
    """Which rows of windows a model takes for real: ``mask`` of `window_rows`; all where short windows repeat rows."""
    return np.ones_like(mask) if shape.short == "repeat" else mask
