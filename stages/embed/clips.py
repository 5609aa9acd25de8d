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

from reelwright.storage.annotations import Spans

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


def frame_durations(pts_seconds: Seconds, source_frame: Numbers, *, before: float = 0.0) -> Seconds:
    """How long each frame is on screen, in seconds (n,); ``before`` is how long the frame before the first one was.

    Until the next source frame would begin: the time to the next other frame over the source frames in between. The last
    frame lasts as long as the one before it; the only frame of a video has no length that is known, so 0.

        frames stored   0 . . 3 . . 6       of a 30 fps video, every third
        seconds         0.0   0.1   0.2     frame 0 lasts [0, 0.0333)
    """
    steps = np.diff(source_frame)
    changes = np.flatnonzero(steps > 0)  # frames may repeat where rows are denser than the video
    lasting = np.diff(pts_seconds)[changes] / steps[changes]
    last = lasting[-1] if len(lasting) else before
    of_row: Seconds = np.append(lasting, last)[np.searchsorted(changes, np.arange(len(pts_seconds)))]
    return of_row


class RowMaker:
    """Turns the frames of one video, in order, into rows with their spans, however the frames are cut into chunks.

    A row is given out when another frame after it is known, since that says how long its last frame lasted. So at most one
    clip, one frame and one chunk are held. With ``start_row``, frames begin at `first_needed`.
    """

    def __init__(self, clip: Clip, *, start_row: int = 0, rows_at_once: int = 8) -> None:
        self._clip = clip
        self._next_row = start_row
        self._rows_at_once = rows_at_once
        self._first = first_needed(clip, start_row)  # number of the first frame held
        self._frames: list[Frames] = []
        self._pts: Seconds = np.empty(0)
        self._sources: Numbers = np.empty(0, dtype=np.int64)
        self._lasting: Seconds = np.empty(0)
        self._before = 0.0

    @property
    def num_frames(self) -> int:
        """Frames of the video up to now, those before the start included."""
        return self._first + len(self._pts)

    @property
    def num_rows(self) -> int:
        """Rows given out up to now, those before the start included."""
        return self._next_row

    def add(self, frames: Frames, pts_seconds: Seconds, source_frame: Numbers) -> Iterator[InputRows]:
        """The rows that ``frames`` (n,H,W,3), which follow those before, complete."""
        self._frames.append(frames)
        self._pts = np.concatenate([self._pts, pts_seconds])
        self._sources = np.concatenate([self._sources, source_frame])
        self._lasting = frame_durations(self._pts, self._sources, before=self._before)
        known = int(np.searchsorted(self._sources, self._sources[-1]))
        yield from self._take_until(self._num_complete(self._first + known))
        self._forget()

    def close(self) -> Iterator[InputRows]:
        """What is left at the end of the video; one row, its last frame repeated, for one shorter than a clip."""
        if len(self._pts):
            yield from self._take_until(self._clip.num_rows(self.num_frames))
        self._frames = []

    def _num_complete(self, num_frames: int) -> int:
        return (num_frames - self._clip.extent) // self._clip.stride + 1 if num_frames >= self._clip.extent else 0

    def _take_until(self, stop: int) -> Iterator[InputRows]:
        if stop <= self._next_row:
            return
        held = self._frames[0] if len(self._frames) == 1 else np.concatenate(self._frames)
        self._frames = [held]
        while self._next_row < stop:
            rows = np.arange(self._next_row, stop if self._clip.length == 1 else min(stop, self._next_row + self._rows_at_once))
            self._next_row += len(rows)
            yield self._rows(rows, held)

    def _rows(self, rows: Numbers, held: Frames) -> InputRows:
        inner = np.arange(self._clip.length) * (self._clip.skip + 1)
        first = rows * self._clip.stride - self._first
        wanted = np.minimum(first[:, None] + inner[None, :], len(held) - 1)
        last = wanted[:, -1]
        spans = Spans(
            start_seconds=self._pts[first],
            stop_seconds=self._pts[last] + self._lasting[last],
            source_start=self._sources[first],
            source_stop=self._sources[last] + 1,
        )
        if self._clip.length > 1:
            return InputRows(int(rows[0]), held[wanted], spans)
        return InputRows(int(rows[0]), held[first[0] : first[-1] + 1 : self._clip.stride], spans)

    def _forget(self) -> None:
        """Drop the frames that no later row needs, but one, from which the last frame's length may have to be told."""
        drop = min(first_needed(self._clip, self._next_row) - self._first, len(self._pts))
        if drop <= 0:
            return
        held = self._frames[0] if len(self._frames) == 1 else np.concatenate(self._frames)
        # A copy: a view would keep the whole chunk alive.
        self._frames = [held[drop:].copy()]
        self._before = float(self._lasting[drop - 1])
        self._pts, self._sources, self._lasting = self._pts[drop:], self._sources[drop:], self._lasting[drop:]
        self._first += drop


def first_needed(clip: Clip, row: int) -> int:
    """Number of the first frame that must be read to go on at ``row``: the one before it tells the spans at the end."""
    return max(0, row * clip.stride - 1)
