"""Clips that stand for a whole video: which rows they take in training (at random) and at test (spread over it).

                   training                             validation, views at test
    segments       a row somewhere in each segment      the middle of each; views share the segments out
    dense          rows `dilation` apart, any start      starts spread over the video, however short it is
    multi_start    as dense                             up to so many starts, at least `hop` apart
    stretched      stretched over length * dilation     as dense; a short video's last row on the grid repeats (CAST)

A run of rows can stand for each segment, `length // segments` long. Sources: `segments`, `dense`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from reelwright.stages.datasets.sampling.dense import (
    dense_views,
    multi_starts,
    random_starts,
    repeated_views,
    stretched_clips,
)
from reelwright.stages.datasets.sampling.segments import SegmentShape, clip_frames, train_starts, view_starts
from reelwright.stages.datasets.sampling.settings import CLIPS
from reelwright.stages.datasets.sampling.windows import IntArray, Windows, WindowShape, window_rows


@dataclass(frozen=True, kw_only=True)
class ClipSampling:
    """How clips are taken."""

    kind: str  # of the table above
    shape: WindowShape
    segments: int | None = None  # of kind segments; None: one row each
    segment_rule: str = "even"  # of `segments.train_starts`
    phase: str = "centred"  # of `segments.view_starts`

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
