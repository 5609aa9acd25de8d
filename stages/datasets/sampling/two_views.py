"""Clips of a video for learning without labels: which frames each view takes, and how far two of them overlap.

time_augment draws a block of frames that is 1 to `max_stretch` times as long as the clip or the video, and from it as
many frames as the clip has, at random and in order, so that the views differ in speed and place:

    video     |--------------------------|            L frames
    block        |-------------|                      ceil(stretch * valid) frames, base "clip"
    view 1        x  xx   x x  x                      T of them, sorted
    block              |-------------|                its offset keeps the overlap that is asked for

anchor_positive draws frames, and for each another one shortly before it; they stand in turn, positive after anchor:

    video     |--p-a------pa----p---a----|            a - p is 1 to `window` frames
    view          a p a p a p

A frame may come with its context, frames before it that a model sees with it:

    num 3, stride 2       . c . c . x                 the frame x and its context, x last

clip takes neighbouring frames, or frames a fixed `stride` apart, from a start anywhere in the video (fractal_video).

Frames past the end of the video are masked, and stand for its last frame. Views of a batch are drawn from (seed, epoch,
place): the same in any batch, worker, process or resume.

    videos    7 2                    two places of the epoch's order
    views     7a 7b 2a 2b            side by side, as objectives of two views take them

What is drawn are numbers of rows: of stored rows, or of stored frames where a model reads these. Source: CARL (Chen et
al. 2022; B3.2 of the domain reference). Shape letters: N videos, V views of each, T frames of a clip, L frames of a
video, C frames of a context (1: the frame alone).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reelwright.stages.datasets.sampling.generators import generators_at
from reelwright.stages.datasets.sampling.settings import ViewSettings

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class View:
    """Frames of one view, int64 (T,), ascending, and a mask, bool (T,), that is False at frames past the end."""

    frames: IntArray
    mask: BoolArray


def two_views(num_frames: int, how: ViewSettings, generator: np.random.Generator) -> tuple[View, View]:
    """Draw both views of a video of `num_frames`; the second keeps `how.overlap` with the first."""
    first = _steps(num_frames, how, generator, before=None)
    second = _steps(num_frames, how, generator, before=int(first[0]))
    return _view(first, num_frames), _view(second, num_frames)


def uniform_view(num_frames: int, *, length: int, generator: np.random.Generator) -> View:
    """`length` frames anywhere in the video, in order; of a shorter video all, and the rest masked (offset_uniform)."""
    _check(num_frames)
    if num_frames < length:
        return _view(np.arange(length, dtype=np.int64), num_frames)
    return _view(np.sort(generator.choice(num_frames, length, replace=False)), num_frames)


def anchor_positive_view(num_frames: int, *, length: int, window: int, generator: np.random.Generator) -> View:
    """`length` / 2 anchors anywhere in the video, in order, each followed by a frame 1 to `window` before it (TCN).

    Anchors are never the first frame, before which there is none; a video too short for so many has as many as it has
    such frames, and the rest is masked. Raises ValueError for an odd length or a window below 1.
    """
    if length < 2 or length % 2 or window < 1:
        raise ValueError(f"length {length} must be even and at least 2 (pairs), window {window} at least 1.")
    _check(num_frames)
    num_pairs = min(length // 2, num_frames - 1)
    steps = np.full((length // 2, 2), num_frames, dtype=np.int64)
    if num_pairs:
        anchors = 1 + np.sort(generator.choice(num_frames - 1, num_pairs, replace=False))
        steps[:num_pairs, 0] = anchors
        steps[:num_pairs, 1] = anchors - generator.integers(1, np.minimum(anchors, window) + 1)
    return _view(steps.reshape(-1), num_frames)


def clip_view(num_frames: int, *, length: int, stride: int, generator: np.random.Generator) -> View:
    """`length` frames, `stride` apart, from any start at which they fit; of a shorter video all such frames from 0 on.

    The rest is masked. Raises ValueError for a stride below 1.
    """
    _check(num_frames)
    if stride < 1:
        raise ValueError(f"stride is {stride}; it must be at least 1.")
    start = int(generator.integers(max(num_frames - (length - 1) * stride, 1)))
    return _view(start + stride * np.arange(length, dtype=np.int64), num_frames)


def context_frames(frames: IntArray, *, num: int, stride: int) -> IntArray:
    """Each frame (...) and `num` - 1 before it, `stride` apart: int64 (..., num), the frame itself last.

    Before the start of the video stands its first frame. Raises ValueError for numbers below 1.
    """
    if num < 1 or stride < 1:
        raise ValueError(f"context of {num} frames, {stride} apart: both must be at least 1.")
    found: IntArray = np.maximum(frames[..., None] + stride * np.arange(1 - num, 1, dtype=np.int64), 0)
    return found


def block_size(num_frames: int, stretch: float, how: ViewSettings) -> int:
    """Frames that a view is drawn from."""
    valid = min(num_frames, how.length)
    return math.ceil(stretch * (valid if how.base == "clip" else num_frames))


def offset_bounds(num_frames: int, block: int, how: ViewSettings, *, before: int | None) -> tuple[int, int]:
    """Where a block may start, half-open; `before` is the first frame of the view drawn before, None for the first."""
    if before is None or how.overlap == 0:
        return 0, max(num_frames - block, 1)
    shift = int((1 - how.overlap) * min(num_frames, how.length))
    low = max(0, min(num_frames - block, before - shift))
    return low, max(1, min(num_frames - block + 1, before + shift + 1))


def _steps(num_frames: int, how: ViewSettings, generator: np.random.Generator, *, before: int | None) -> IntArray:
    _check(num_frames)
    valid = min(num_frames, how.length)
    block = block_size(num_frames, generator.uniform(1, how.max_stretch), how)
    low, high = offset_bounds(num_frames, block, how, before=before)
    offset = int(generator.integers(low, max(high, low + 1)))
    steps = offset + np.sort(generator.choice(block, valid, replace=False))
    steps[0] = min(steps[0], num_frames - 1)  # one real frame at least, or attention had nothing to look at
    return np.concatenate([steps, np.full(how.length - valid, num_frames)]).astype(np.int64)


def _view(steps: IntArray, num_frames: int) -> View:
    return View(np.minimum(steps, num_frames - 1), steps < num_frames)


def _check(num_frames: int) -> None:
    if num_frames < 1:
        raise ValueError(f"a video has {num_frames} frames; leave videos without frames out.")


@dataclass(frozen=True)
class DrawnViews:
    """The views of N videos, (N * V, ...), those of a video side by side."""

    video: IntArray  # (N * V,) which video
    num_rows: IntArray  # (N * V,) of that video
    positions: IntArray  # (N * V, T) row numbers, counted within the video; masked ones are its last
    mask: BoolArray  # (N * V, T) True at real rows
    rows: IntArray  # (N * V, T, C) rows that are read for each position, its own last


@dataclass(frozen=True, kw_only=True)
class ViewSampler:
    """How views are drawn."""

    strategy: str
    # time_augment, offset_uniform: as `two_views`, `uniform_view`; anchor_positive, clip: `anchor_positive_view`,
    # `clip_view`.
    views: ViewSettings
    num_views: int = 2
    num_contexts: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what could not be drawn."""
        if self.num_views not in (1, 2):
            raise ValueError(f"num_views is {self.num_views}; allowed: 1 or 2.")
        if self.strategy == "anchor_positive":
            self._view(1, np.random.default_rng(0))
        context_frames(np.zeros(1, dtype=np.int64), num=self.num_contexts, stride=self.views.context_stride)

    @property
    def least_rows(self) -> int:
        """Rows that a video needs for a view with anything real in it."""
        return 2 if self.strategy == "anchor_positive" else 1

    @property
    def full_rows(self) -> int:
        """Rows that a video needs for a view without padding."""
        length = self.views.length
        return (length - 1) * self.views.stride + 1 if self.strategy == "clip" else length

    def drawn(self, videos: Sequence[int], num_rows: Sequence[int], *, epoch: int, places: Sequence[int]) -> DrawnViews:
        """Views of ``videos`` (N,), of ``num_rows`` (N,) each, that stand at ``places`` (N,) of the epoch's order.

        A video that comes twice in an epoch has other views each time. Raises ValueError for a video without rows.
        """
        generators = generators_at(self.seed, "views", epoch=epoch, places=places)
        found = [
            view
            for rows, generator in zip(num_rows, generators, strict=True)
            for view in self._views(int(rows), generator)
        ]
        shape = (len(found), self.views.length)
        positions = np.array([view.frames for view in found], dtype=np.int64).reshape(shape)
        return DrawnViews(
            video=np.repeat(np.asarray(videos, dtype=np.int64), self.num_views),
            num_rows=np.repeat(np.asarray(num_rows, dtype=np.int64), self.num_views),
            positions=positions,
            mask=np.array([view.mask for view in found], dtype=np.bool_).reshape(shape),
            rows=context_frames(positions, num=self.num_contexts, stride=self.views.context_stride),
        )

    def _views(self, num_rows: int, generator: np.random.Generator) -> tuple[View, ...]:
        if self.strategy == "time_augment":
            return two_views(num_rows, self.views, generator)[: self.num_views]
        return tuple(self._view(num_rows, generator) for _ in range(self.num_views))

    def _view(self, num_rows: int, generator: np.random.Generator) -> View:
        length = self.views.length
        if self.strategy == "offset_uniform":
            return uniform_view(num_rows, length=length, generator=generator)
        if self.strategy == "clip":
            return clip_view(num_rows, length=length, stride=self.views.stride, generator=generator)
        return anchor_positive_view(num_rows, length=length, window=self.views.positive_window, generator=generator)
