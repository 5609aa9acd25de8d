"""From frames to rows: one row a frame for image encoders, one row a clip for video encoders.

A clip has `length` frames, `dilation` apart, and begins `hop` frames after the one before:

    frames        0 1 2 3 4 5 6 7 8
    length 3      |---------|             dilation 2: frames 0, 2, 4
    hop 2             |---------|         frames 2, 4, 6
                          |---------|     frames 4, 6, 8

What becomes of frames at the end, and of a video shorter than a clip, says `sampling.windows`, the same for windows of
rows. The number of frames need not be known before the last one has come.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reelwright.stages.datasets.sampling.left_out import LeftOut
from reelwright.stages.datasets.sampling.needed import Needed
from reelwright.stages.datasets.sampling.windows import BoolArray, WindowShape, window_rows, windows_at
from reelwright.storage.arrays.spans import RowTimes, Spans

Frames = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class InputRows:
    """Rows as the encoder is fed: frames (n,H,W,3) or clips (n,T,H,W,3), uint8, beginning at row ``start``."""

    start: int
    frames: Frames
    spans: Spans
    mask: BoolArray | None = None  # (n,T) of clips, False at black frames behind the end of a video; None: all are real


@dataclass(frozen=True, kw_only=True)
class Clip(WindowShape):
    """Which frames make a row; length 1, hop 1 for image encoders."""

    length: int = 1
    short: str = "repeat"

    def num_rows(self, num_frames: int) -> int:
        """Rows of a video."""
        return self.num_windows(num_frames)

    def first_frame(self, row: int) -> int:
        """The frame from which on ``row`` and those after it can be made, however many frames there are.

        With `to_end` any row may be the last one, which begins before its place on the grid.
        """
        return max(0, (row - 1) * self.hop + 1) if self.to_end else row * self.hop

    def stop_frame(self, row: int) -> int:
        """The frame before which to stop when the rows before ``row``, at least one and not all, are wanted."""
        return (row - 1) * self.hop + self.span_rows


def clips_leave_out(clip: Clip) -> LeftOut:
    """Counts of what clips leave out."""
    return LeftOut(shape=clip, block="clip", rows="frames", fate="are in no clip")


class _Frames:
    """Consecutive frames of a video that rows are still to be made of, with their times."""

    def __init__(self, first: int) -> None:
        self.first = first  # number of the first one held
        self._frames: Frames | None = None
        self._times: RowTimes | None = None

    @property
    def stop(self) -> int:
        """The number after that of the last one."""
        return self.first + (0 if self._frames is None else len(self._frames))

    def add(self, frames: Frames, times: RowTimes) -> None:
        """The next ones, (n,H,W,3)."""
        self._frames = frames if self._frames is None else np.concatenate([self._frames, frames])
        self._times = times if self._times is None else RowTimes.join([self._times, times])

    def take(self, numbers: Numbers) -> Frames:
        """Those of these numbers, of any shape."""
        assert self._frames is not None
        return self._frames[numbers - self.first]

    def spans(self, first: Numbers, last: Numbers) -> Spans:
        """Of rows from frame ``first`` to frame ``last``, both included."""
        assert self._times is not None
        return self._times.spans(first - self.first, last - self.first)

    def drop(self, stop: int) -> None:
        """Forget those before number ``stop``, as far as they have come."""
        count = min(stop, self.stop) - self.first
        if count > 0:
            assert self._frames is not None
            assert self._times is not None
            # A copy: a view would keep the whole chunk alive.
            self._frames, self._times = self._frames[count:].copy(), self._times.take(slice(count, None))
            self.first += count


class ClipAssembler:
    """Turns the frames of one video, in order, into rows with their spans, however the frames are cut into chunks.

    At most one clip and one chunk are held. With ``start_row``, frames begin at `Clip.first_frame(start_row)`. How many
    frames there are is known when they end (`close`).
    """

    def __init__(self, clip: Clip, *, start_row: int = 0, rows_at_once: int = 8) -> None:
        self._clip = clip
        self._rows_at_once = rows_at_once
        self._frames = _Frames(clip.first_frame(start_row))
        self.num_rows = start_row  # given out up to now, those before the start included

    def add(self, frames: Frames, times: RowTimes) -> Iterator[InputRows]:
        """The rows that ``frames`` (n,H,W,3), which follow those before, complete."""
        if self._clip == Clip():
            rows = np.arange(len(frames))
            self.num_rows += len(frames)
            yield InputRows(self.num_rows - len(frames), frames, times.spans(rows, rows))
            return
        self._frames.add(frames, times)
        room = self._frames.stop - self._clip.span_rows
        complete = room // self._clip.hop + 1 if room >= 0 else 0
        while self.num_rows < complete:
            count = min(complete - self.num_rows, self._rows_at_once)
            yield self._take(np.arange(self.num_rows, self.num_rows + count) * self._clip.hop)
        # where the hop is longer than a clip, some are still to come
        first = self._clip.first_frame(self.num_rows)
        if self._clip.to_end:  # if the video ended here, its last clip would begin there
            first = max(first, self._frames.stop - self._clip.span_rows)
        self._frames.drop(first)

    def close(self) -> Iterator[InputRows]:
        """The row that only the end of the video makes: of one shorter than a clip, or one that reaches to the end."""
        if self.num_rows < self._clip.num_rows(self._frames.stop):
            yield self._take(np.array([max(self._frames.stop - self._clip.span_rows, 0)]))
        self._frames.drop(self._frames.stop)

    def _take(self, starts: Numbers) -> InputRows:
        rows = windows_at(np.zeros_like(starts), starts, self._frames.stop, self._clip)
        numbers, is_real = window_rows(rows, self._clip)
        self.num_rows += len(rows)
        clips, mask = padded(self._frames.take(numbers), is_real, self._clip)
        return InputRows(self.num_rows - len(rows), clips, self._frames.spans(starts, rows.last_row(self._clip)), mask)


def padded(clips: Frames, is_real: BoolArray, shape: WindowShape) -> tuple[Frames, BoolArray | None]:
    """``clips`` (n,T,H,W,3), changed in place: black where ``is_real`` (n,T) is not and ``shape`` says pad; the mask.

    None: no frame is padding.
    """
    if shape.short != "pad" or is_real.all():
        return clips, None
    clips[~is_real] = 0
    return clips, is_real


class NeededRowMaker:
    """As `ClipAssembler`, of a video of which only the frames of some rows come (`sampling.needed`), in order.

    Rows count among those needed; their spans are those of their frames.
    """

    def __init__(self, needed: Needed, *, num_frames: int, rows_at_once: int = 8) -> None:
        frames, self._is_real = needed.frames_of_rows(num_frames)
        self._places = np.searchsorted(needed.frames(num_frames), frames)  # (R, length) among the frames that come
        self._row = needed.row
        self._rows_at_once = rows_at_once
        self._frames = _Frames(0)
        self.num_rows = 0

    @property
    def num_planned(self) -> int:
        """Rows that there will be."""
        return len(self._places)

    def add(self, frames: Frames, times: RowTimes) -> Iterator[InputRows]:
        """The rows that ``frames`` (n,H,W,3), the next of those needed, complete."""
        self._frames.add(frames, times)
        complete = int(np.searchsorted(self._places[:, -1], self._frames.stop))
        while self.num_rows < complete:
            yield self._take(min(complete - self.num_rows, self._rows_at_once))
        is_done = self.num_rows == len(self._places)
        self._frames.drop(self._frames.stop if is_done else int(self._places[self.num_rows, 0]))

    def close(self) -> Iterator[InputRows]:
        """Nothing is left: every row was complete with its last frame."""
        yield from ()

    def _take(self, count: int) -> InputRows:
        start = self.num_rows
        places = self._places[start : start + count]
        self.num_rows += count
        if places.shape[1] > 1:
            rows, mask = padded(self._frames.take(places), self._is_real[start : start + count], self._row)
        else:
            rows, mask = self._frames.take(places[:, 0]), None
        return InputRows(start, rows, self._frames.spans(places[:, 0], places[:, -1]), mask)
