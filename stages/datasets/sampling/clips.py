"""Clips that stand for a whole video: which rows they take in training (at random) and at test (spread over it).

                   training                             validation, views at test
    segments       a row somewhere in each segment      the middle of each; views share the segments out
    dense          rows `dilation` apart, any start      starts spread over the video, however short it is
    multi_start    as dense                             up to so many starts, at least `hop` apart
    stretched      stretched over length * dilation     as dense; a short video's last row on the grid repeats (CAST)

Segments are equal parts of a video, with a row, or a short run of rows (`length // segments`), of each (TSN):

    frame          0 1 2 3 4 5 6 7 8 9        10 frames, 3 segments of one frame
    segments      |- - -|- - -|- - - -|
    train            x   x          x         somewhere in each segment
    centre           x     x      x           its middle, int(10 / 3 * (i + 1/2))

Functions of segments take the number of frames of N videos, int64 (N,), at least 1 each, and give frame numbers, int64,
from 0. Sources: TSN (Wang et al. 2016); CAST (1.2) and ST-ABN (2.2) in the domain reference, whose rules are options;
`dense`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from reelwright.stages.datasets.sampling.dense import (
    dense_views,
    multi_starts,
    random_starts,
    repeated_views,
    stretched_clips,
)
from reelwright.stages.datasets.sampling.settings import CLIPS
from reelwright.stages.datasets.sampling.windows import IntArray, Windows, WindowShape, window_rows

PHASES = {"centred": 0.5, "first": 0.0}


@dataclass(frozen=True, kw_only=True)
class SegmentShape:
    """A clip of `num_segments` runs of `length` frames, `step` apart."""

    num_segments: int
    length: int = 1
    step: int = 1
    reach_end: bool = True
    # False: a run never takes the video's last frame, as ST-ABN's reader.

    @property
    def span(self) -> int:
        """Frames that a run is given room for."""
        return self.length * self.step


def train_starts(
    num_frames: npt.ArrayLike, shape: SegmentShape, *, generator: np.random.Generator, rule: str = "even"
) -> IntArray:
    """A random first frame for each segment's run, (N, S).

    even: segments share all places evenly, so that every frame of the video can be drawn; a video with fewer places
    than segments repeats some. whole (TSN, CAST, ST-ABN): segments have a whole number of places, n // S, those left
    over at the end are never drawn; with fewer places than segments they are drawn anywhere and sorted if there are
    more than S frames and more than a run, else all are 0.
    """
    frames, places = _places(num_frames, shape)
    position = np.arange(shape.num_segments)
    share = generator.random((len(frames), shape.num_segments))
    if rule == "even":
        low = position * places // shape.num_segments
        high = np.maximum((position + 1) * places // shape.num_segments, low + 1)
        evenly: IntArray = low + (share * (high - low)).astype(np.int64)
        return evenly
    size = places // shape.num_segments
    in_segments = position * size + (share * size).astype(np.int64)
    anywhere = np.sort((share * places).astype(np.int64), axis=1)
    is_long = frames > max(shape.num_segments, shape.span)
    return np.where(size > 0, in_segments, np.where(is_long, anywhere, 0))


def centre_starts(num_frames: npt.ArrayLike, shape: SegmentShape, *, rule: str = "spread") -> IntArray:
    """The first frame of a run at the middle of each segment, (N, S): int(tick / 2 + tick * i), tick = places / S.

    spread: also where there are fewer places than segments (ST-ABN's test rule). guarded: then all are 0 (ST-ABN's
    and TSN's validation rule).
    """
    frames, places = _places(num_frames, shape)
    tick = places / shape.num_segments
    starts = (tick / 2 + tick * np.arange(shape.num_segments)).astype(np.int64)
    room = shape.span - 1 + (shape.num_segments if rule == "guarded" else 0)
    return np.where(frames > room, starts, 0)


def view_starts(num_frames: npt.ArrayLike, shape: SegmentShape, *, num_views: int, phase: str = "centred") -> IntArray:
    """First frames of `num_views` clips that share the video out among them, (N, V, S): int(tick * (i + shift)).

    centred: view v of V takes the segments at shift (v + 1/2) / V, so that one view is the middle. first: at v / V,
    which for two views is CAST's test (there built by sorting both lists and taking every second).
    """
    _, places = _places(num_frames, shape)
    tick = (places / shape.num_segments)[..., None]
    shift = ((np.arange(num_views) + PHASES[phase]) / num_views)[:, None]
    return np.asarray(tick * shift + tick * np.arange(shape.num_segments)).astype(np.int64)


def clip_frames(num_frames: npt.ArrayLike, starts: IntArray, shape: SegmentShape) -> IntArray:
    """Frames of the runs that begin at `starts` (N, ..., S): (N, ..., S * length), run after run.

    A run stops at the last frame that it can reach, and repeats it.
    """
    frames = np.atleast_1d(np.asarray(num_frames, dtype=np.int64)).reshape(-1, *[1] * (starts.ndim - 1))
    last = frames - 1 - (0 if shape.reach_end else 1)
    num_steps = np.maximum((last - starts) // shape.step, 0)[..., None]
    runs = starts[..., None] + np.minimum(np.arange(shape.length), num_steps) * shape.step
    clip: IntArray = runs.reshape(*starts.shape[:-1], -1)
    return clip


def _places(num_frames: npt.ArrayLike, shape: SegmentShape) -> tuple[IntArray, IntArray]:
    """Frames (N,), and how many places a run can start at (N, 1), at least 1."""
    frames = np.atleast_1d(np.asarray(num_frames, dtype=np.int64))
    if (frames < 1).any():
        raise ValueError(f"a video has {int(frames.min())} frames; leave videos without frames out.")
    column = frames[:, None]
    return column, np.maximum(column - shape.span + 1, 1)


@dataclass(frozen=True, kw_only=True)
class ClipSampling:
    """How clips are taken."""

    kind: str  # of the table above
    shape: WindowShape
    segments: int | None = None  # of kind segments; None: one row each
    segment_rule: str = "even"  # of `train_starts`
    phase: str = "centred"  # of `view_starts`

    def drawn(self, num_rows: IntArray, generator: np.random.Generator) -> Windows:
        """A random clip for each of N videos with so many rows; its ``video`` is the position in ``num_rows``."""
        videos, shape = np.arange(len(num_rows)), self.shape
        if self.kind == "stretched":
            drawn = stretched_clips(num_rows, length=shape.length, step=shape.dilation, generator=generator)
            return _with_rows(videos, drawn)
        if self.kind != "segments":
            return random_starts(num_rows.tolist(), shape, generator=generator)
        starts = train_starts(num_rows, self._segments, generator=generator, rule=self.segment_rule)
        return _with_rows(videos, clip_frames(num_rows, starts, self._segments))

    def views(self, num_rows: Sequence[int], *, num_views: int = 1) -> Windows:
        """The clips of each video at test, video by video; a single view is the middle one.

        Of multi_start it is the first one where a video is less than `hop` rows longer than a clip.
        Videos without rows have none, nor, with short: leave_out, have those that are too short for kinds of one run.
        """
        if self.kind == "multi_start":
            return multi_starts(num_rows, self.shape, max_clips=num_views, min_step=self.shape.hop)
        least = self.shape.span_rows if self.kind == "dense" and self.shape.short == "leave_out" else 1
        videos = np.flatnonzero(np.asarray(num_rows) >= least)
        rows = np.asarray(num_rows, dtype=np.int64)[videos]
        if len(videos) == 0:
            return Windows(rows, rows, rows)
        if self.kind == "dense":
            found = dense_views(rows.tolist(), self.shape, num_views=num_views)
            return replace(found, video=videos[found.video])
        if self.kind == "stretched":
            length, step = self.shape.length, self.shape.dilation
            picked = repeated_views(rows, length=length, step=step, num_views=num_views)
        else:
            starts = view_starts(rows, self._segments, num_views=num_views, phase=self.phase)
            picked = clip_frames(rows, starts, self._segments)
        return _with_rows(np.repeat(videos, num_views), picked.reshape(-1, picked.shape[-1]))

    @property
    def _segments(self) -> SegmentShape:
        count = self.segments or self.shape.length
        return SegmentShape(num_segments=count, length=self.shape.length // count, step=self.shape.dilation)


def distinct(windows: Windows, shape: WindowShape, shown: Sequence[IntArray]) -> Windows:
    """The windows, in order, without those that show the very rows of one before them of the same video.

    ``shown`` says of each video, (T,), what its rows show: rows of one number are the same (`repeats_of`).
    """
    rows, mask = window_rows(windows, shape)
    content = np.full_like(rows, -1)  # padding is not what it repeats: a model sees the mask
    for video in np.unique(windows.video):
        mine = windows.video == video
        content[mine] = np.where(mask[mine], shown[video][rows[mine]], -1)
    _, first = np.unique(np.column_stack([windows.video, content]), axis=0, return_index=True)
    return windows.take(np.sort(first))


def repeats_of(source_start: IntArray, source_stop: IntArray) -> IntArray:
    """A number for each row (T,), the same for rows that saw the same source frames."""
    return np.unique(np.column_stack([source_start, source_stop]), axis=0, return_inverse=True)[1].reshape(-1)


@dataclass(frozen=True)
class DrawnClips:
    """Clips that are drawn anew every epoch, and the rows of each video that they are drawn from."""

    sampling: ClipSampling
    num_rows: IntArray  # (V,)

    def of(self, videos: IntArray, generator: np.random.Generator) -> Windows:
        """A random clip of each of ``videos`` (N,), which may repeat."""
        return replace(self.sampling.drawn(self.num_rows[videos], generator), video=videos)


def clip_sampling(
    kind: str, shape: WindowShape, *, segments: int | None = None, segment_rule: str = "even"
) -> ClipSampling | None:
    """How ``kind`` of window sampling takes clips; None where it has windows."""
    if kind not in CLIPS:
        return None
    return ClipSampling(kind=kind, shape=shape, segments=segments, segment_rule=segment_rule)


def _with_rows(videos: IntArray, rows: IntArray) -> Windows:
    return Windows(videos.astype(np.int64), rows[:, 0], np.full(len(rows), rows.shape[1]), rows)
