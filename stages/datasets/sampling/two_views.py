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

Frames past the end of the video are masked, and stand for its last frame. Source: CARL (Chen et al. 2022; B3.2 of the
domain reference). Shape letters: T frames of a clip, L frames of a video, C frames of a context.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

BASES = ("clip", "video")


@dataclass(frozen=True, kw_only=True)
class TimeAugment:
    """How two views are drawn."""

    length: int
    # T, frames of a view.
    max_stretch: float = 1.5
    # Largest length of a block, in lengths of its base.
    overlap: float = 0.2
    # The second block starts at most (1 - overlap) clips before or after the first frame of view 1; 0: anywhere.
    base: str = "clip"
    # clip: blocks are crops of the video (CARL's FineGym). video: blocks are longer than the video, offsets are 0, and
    # a random number of frames at the end is masked (CARL's Pouring, Penn Action and Kinetics).

    def __post_init__(self) -> None:
        """Refuse what could not be drawn."""
        if self.base not in BASES:
            raise ValueError(f"base {self.base!r} is not known; allowed: {', '.join(BASES)}.")
        if self.length < 1 or self.max_stretch < 1 or not 0 <= self.overlap <= 1:
            message = f"length {self.length} and max_stretch {self.max_stretch} must be at least 1, overlap "
            raise ValueError(message + f"{self.overlap} in [0, 1].")


@dataclass(frozen=True)
class View:
    """Frames of one view, int64 (T,), ascending, and a mask, bool (T,), that is False at frames past the end."""

    frames: IntArray
    mask: BoolArray


def two_views(num_frames: int, how: TimeAugment, generator: np.random.Generator) -> tuple[View, View]:
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


def context_frames(frames: IntArray, *, num: int, stride: int) -> IntArray:
    """Each frame (...) and `num` - 1 before it, `stride` apart: int64 (..., num), the frame itself last.

    Before the start of the video stands its first frame. Raises ValueError for numbers below 1.
    """
    if num < 1 or stride < 1:
        raise ValueError(f"context of {num} frames, {stride} apart: both must be at least 1.")
    found: IntArray = np.maximum(frames[..., None] + stride * np.arange(1 - num, 1, dtype=np.int64), 0)
    return found


def block_size(num_frames: int, stretch: float, how: TimeAugment) -> int:
    """Frames that a view is drawn from."""
    valid = min(num_frames, how.length)
    return math.ceil(stretch * (valid if how.base == "clip" else num_frames))


def offset_bounds(num_frames: int, block: int, how: TimeAugment, *, before: int | None) -> tuple[int, int]:
    """Where a block may start, half-open; `before` is the first frame of the view drawn before, None for the first."""
    if before is None or how.overlap == 0:
        return 0, max(num_frames - block, 1)
    shift = int((1 - how.overlap) * min(num_frames, how.length))
    low = max(0, min(num_frames - block, before - shift))
    return low, max(1, min(num_frames - block + 1, before + shift + 1))


def _steps(num_frames: int, how: TimeAugment, generator: np.random.Generator, *, before: int | None) -> IntArray:
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
