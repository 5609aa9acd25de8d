"""From frames to rows: one row a frame for image encoders, one row a clip for video encoders.

A clip has `length` frames with `skip` left out between two, and begins `stride` frames after the one before:

    frames        0 1 2 3 4 5 6 7 8
    length 3      |---------|             skip 1: frames 0, 2, 4
    stride 2          |---------|         frames 2, 4, 6
                          |---------|     frames 4, 6, 8

Frames at the end that fill no clip are in no row. A video shorter than one clip has one row, its last frame repeated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reelwright.stages.sampling.needed import Needed
from reelwright.storage.spans import Spans

Frames = npt.NDArray[np.uint8]
Seconds = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class InputRows:
    """Rows as the encoder is fed: frames (n,H,W,3) or clips (n,T,H,W,3), uint8, beginning at row ``start``."""

    start: int
    frames: Frames
    spans: Spans


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Which frames make a row; length 1, stride 1 for image encoders."""

    length: int = 1
    stride: int = 1
    skip: int = 0

    @property
    def extent(self) -> int:
        """Frames from the first of a clip to its last, both counted."""
        return (self.length - 1) * (self.skip + 1) + 1

    def num_rows(self, num_frames: int) -> int:
        """Rows of a video: at least one for a video with a frame."""
        if num_frames < 1:
            return 0
        return max(0, num_frames - self.extent) // self.stride + 1

    def first_frame(self, row: int) -> int:
        """The frame with which ``row`` begins."""
        return row * self.stride

    def stop_frame(self, row: int) -> int:
        """The frame before which to stop when the rows before ``row`` are wanted, at least one."""
        return self.first_frame(row - 1) + self.extent


@dataclass(frozen=True)
class FrameSpans:
    """Presentation times (n,) float64 seconds, half-open, and source frame numbers (n,) int64 of consecutive frames."""

    start_seconds: Seconds
    stop_seconds: Seconds
    source_frame: Numbers

    def joined(self, later: FrameSpans) -> FrameSpans:
        """These and those that follow."""
        return FrameSpans(
            np.concatenate([self.start_seconds, later.start_seconds]),
            np.concatenate([self.stop_seconds, later.stop_seconds]),
            np.concatenate([self.source_frame, later.source_frame]),
        )

    def after(self, count: int) -> FrameSpans:
        """All but the first ``count``."""
        return FrameSpans(self.start_seconds[count:], self.stop_seconds[count:], self.source_frame[count:])

    def of_rows(self, first: Numbers, last: Numbers) -> Spans:
        """Spans of rows from frame ``first`` to frame ``last``, both included."""
        return Spans(
            start_seconds=self.start_seconds[first],
            stop_seconds=self.stop_seconds[last],
            source_start=self.source_frame[first],
            source_stop=self.source_frame[last] + 1,
        )


class RowMaker:
    """Turns the frames of one video, in order, into rows with their spans, however the frames are cut into chunks.

    At most one clip and one chunk are held. With ``start_row``, frames begin at `Clip.first_frame(start_row)`.
    """

    def __init__(self, clip: Clip, *, start_row: int = 0, rows_at_once: int = 8) -> None:
        self._clip = clip
        self._rows_at_once = rows_at_once
        self._first = clip.first_frame(start_row)  # number of the first frame held
        self._frames: Frames | None = None
        self._spans: FrameSpans | None = None
        self.num_rows = start_row  # given out up to now, those before the start included

    def add(self, frames: Frames, spans: FrameSpans) -> Iterator[InputRows]:
        """The rows that ``frames`` (n,H,W,3), which follow those before, complete."""
        if self._clip == Clip():
            rows = np.arange(len(frames))
            self.num_rows += len(frames)
            yield InputRows(self.num_rows - len(frames), frames, spans.of_rows(rows, rows))
            return
        self._frames = frames if self._frames is None else np.concatenate([self._frames, frames])
        self._spans = spans if self._spans is None else self._spans.joined(spans)
        num_frames = self._first + len(self._frames)
        complete = (num_frames - self._clip.extent) // self._clip.stride + 1 if num_frames >= self._clip.extent else 0
        while self.num_rows < complete:
            yield self._take(min(complete - self.num_rows, self._rows_at_once))
        self._forget()

    def close(self) -> Iterator[InputRows]:
        """The one row, its last frame repeated, of a video that is shorter than a clip."""
        if self.num_rows == 0 and self._frames is not None:
            yield self._take(1)
        self._frames = self._spans = None

    def _take(self, count: int) -> InputRows:
        assert self._frames is not None
        assert self._spans is not None
        rows = np.arange(self.num_rows, self.num_rows + count)
        inner = np.arange(self._clip.length) * (self._clip.skip + 1)
        first = rows * self._clip.stride - self._first
        wanted = np.minimum(first[:, None] + inner[None, :], len(self._frames) - 1)
        self.num_rows += count
        return InputRows(int(rows[0]), self._frames[wanted], self._spans.of_rows(first, wanted[:, -1]))

    def _forget(self) -> None:
        """Drop the frames before the next clip; where the stride is longer than a clip, also some still to come."""
        assert self._frames is not None
        assert self._spans is not None
        drop = min(self._clip.first_frame(self.num_rows) - self._first, len(self._frames))
        if drop > 0:
            # A copy: a view would keep the whole chunk alive.
            self._frames, self._spans = self._frames[drop:].copy(), self._spans.after(drop)
            self._first += drop


class NeededRowMaker:
    """As `RowMaker`, of a video of which only the frames of some rows come (`sampling.needed`), in order.

    Rows count among those needed; their spans are those of their frames.
    """

    def __init__(self, needed: Needed, *, num_frames: int, rows_at_once: int = 8) -> None:
        frames = needed.frames_of_rows(num_frames)
        self._places = np.searchsorted(needed.frames(num_frames), frames)  # (R, length) among the frames that come
        self._rows_at_once = rows_at_once
        self._first = 0
        self._frames: Frames | None = None
        self._spans: FrameSpans | None = None
        self.num_rows = 0

    @property
    def num_planned(self) -> int:
        """Rows that there will be."""
        return len(self._places)

    def add(self, frames: Frames, spans: FrameSpans) -> Iterator[InputRows]:
        """The rows that ``frames`` (n,H,W,3), the next of those needed, complete."""
        self._frames = frames if self._frames is None else np.concatenate([self._frames, frames])
        self._spans = spans if self._spans is None else self._spans.joined(spans)
        complete = int(np.searchsorted(self._places[:, -1], self._first + len(self._frames)))
        while self.num_rows < complete:
            yield self._take(min(complete - self.num_rows, self._rows_at_once))
        drop = len(self._frames) if self.num_rows == len(self._places) else self._places[self.num_rows, 0] - self._first
        if drop > 0:
            self._frames, self._spans = self._frames[drop:].copy(), self._spans.after(drop)
            self._first += drop

    def close(self) -> Iterator[InputRows]:
        """Nothing is left: every row was complete with its last frame."""
        self._frames = self._spans = None
        yield from ()

    def _take(self, count: int) -> InputRows:
        assert self._frames is not None
        assert self._spans is not None
        start = self.num_rows
        places = self._places[start : start + count] - self._first
        self.num_rows += count
        rows = self._frames[places[:, 0]] if places.shape[1] == 1 else self._frames[places]
        return InputRows(start, rows, self._spans.of_rows(places[:, 0], places[:, -1]))
