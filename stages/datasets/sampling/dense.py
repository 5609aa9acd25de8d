"""Clips of frames a fixed step apart: at random, or several spread over the video; as windows of `sampling.windows`.

A `WindowShape` of length T and dilation = step says which frames a start stands for (`windows.window_rows`); a video
that is too short has one window, filled up as `WindowShape.short` says. CAST's way of stretching is apart, at the end.
Sources: CAST (1.2), fractal_video (3.10) in the domain reference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from reelwright.stages.datasets.sampling.windows import IntArray, Windows, WindowShape, windows_at


def random_starts(
    num_rows: Sequence[int], shape: WindowShape, *, generator: np.random.Generator, num_clips: int = 1
) -> Windows:
    """`num_clips` windows of each video, each anywhere in it with equal chance; all at 0 in a video that is short."""
    rows = np.asarray(num_rows, dtype=np.int64)
    starts = generator.integers(0, np.maximum(rows - shape.span_rows + 1, 1)[:, None], size=(len(rows), num_clips))
    return _windows(list(starts), rows, shape)


def multi_starts(
    num_rows: Sequence[int], shape: WindowShape, *, max_clips: int, min_step: int = 1, rule: str = "spread"
) -> Windows:
    """Up to `max_clips` windows of each video, at least `min_step` rows apart, in order of time.

    As many as lie `min_step` apart, where these are no more than `max_clips`; otherwise `max_clips`:
    spread: from the first to the last place, evenly; a single one in the middle. whole (fractal_video): a whole number
    of rows apart from 0 on, (rows - span) // (max_clips - 1), which leaves out up to max_clips - 2 rows at the end.
    With `shape.short` leave_out videos that are too short have none. Raises ValueError for an unknown rule or a number
    below 1.
    """
    _check(max_clips=max_clips, min_step=min_step)
    if rule not in RULES:
        raise ValueError(f"rule {rule!r} is not known; allowed: {', '.join(RULES)}.")
    rows = np.asarray(num_rows, dtype=np.int64)
    return _windows([_multi_starts(int(n), shape, max_clips, min_step, rule) for n in rows], rows, shape)


def covering_starts(num_rows: Sequence[int], shape: WindowShape, *, max_clips: int) -> Windows:
    """As few windows of each video as see all of it from its first row to its last, evenly spread; at most `max_clips`.

    A single one of a longer video lies in the middle. Raises ValueError for a number below 1.
    """
    _check(max_clips=max_clips)
    rows = np.asarray(num_rows, dtype=np.int64)
    last = np.maximum(rows - shape.span_rows, 0)
    counts = np.minimum(-(-rows // shape.span_rows), max_clips)
    starts = [
        _spread(int(end), int(count), 1) if count else np.zeros(0, dtype=np.int64)
        for end, count in zip(last, counts, strict=True)
    ]
    return _windows(starts, rows, shape)


def dense_views(num_rows: Sequence[int], shape: WindowShape, *, num_views: int) -> Windows:
    """`num_views` windows of each video, on the grid of every `dilation`-th row, from its first place to its last.

    View v starts at grid row int(v * (grid rows - length) / (V - 1)); a single view in the middle. Views of a video
    that is short are all the same. (CAST's dense test; there one view divides by zero.)
    """
    rows = np.asarray(num_rows, dtype=np.int64)
    starts = _view_places(rows, shape.length, shape.dilation, num_views=num_views) * shape.dilation
    return _windows(list(starts), rows, shape)


def stretched_clips(num_frames: npt.ArrayLike, *, length: int, step: int, generator: np.random.Generator) -> IntArray:
    """CAST's dense training clips, (N, length): `length` frames stretched over a span of `length * step`, of N videos.

    The first and last frame of a clip are those of its span, so that steps are not whole; it starts anywhere but at the
    last place. A video of no more frames than the span is stretched to num_frames // step frames, and its last one
    repeated.
    """
    frames = np.atleast_1d(np.asarray(num_frames, dtype=np.int64))
    span = length * step
    clips = np.empty((len(frames), length), dtype=np.int64)
    for size in np.unique(frames[frames <= span]).tolist():
        stretched = np.linspace(0, size, num=size // step)
        padded = np.concatenate([stretched, np.full(length - len(stretched), size)])
        clips[frames == size] = np.clip(padded, 0, size - 1).astype(np.int64)
    is_long = frames > span
    stops = generator.integers(span, frames[is_long])[:, None]
    reached = np.linspace(stops - span, stops, num=length, axis=-1)[:, 0]
    clips[is_long] = np.clip(reached, stops - span, stops - 1).astype(np.int64)
    return clips


def repeated_views(num_frames: npt.ArrayLike, *, length: int, step: int, num_views: int) -> IntArray:
    """CAST's dense test clips, (N, V, length): as `dense_views`, but of a short video the last on the grid repeats.

    With 6 frames, step 4 and length 3: 0 4 4, where `short: repeat` of a window gives 0 4 5.
    """
    frames = np.atleast_1d(np.asarray(num_frames, dtype=np.int64))
    places = _view_places(frames, length, step, num_views=num_views)[..., None] + np.arange(length)
    last: IntArray = np.minimum(places, (-(-frames // step) - 1)[:, None, None]) * step
    return last


def _view_places(num_rows: IntArray, length: int, step: int, *, num_views: int) -> IntArray:
    """Where views (V,) of each video begin on its grid of every `step`-th row, (N, V)."""
    _check(num_views=num_views)
    room = np.maximum(-(-num_rows // step) - length, 0)[:, None]
    views = np.arange(num_views) * (room / (num_views - 1)) if num_views > 1 else room / 2
    return views.astype(np.int64)


def _spread(last: int, count: int, _min_step: int) -> IntArray:
    if count == 1:
        return np.array([last // 2], dtype=np.int64)
    return np.round(np.linspace(0, last, count)).astype(np.int64)


def _whole(last: int, count: int, min_step: int) -> IntArray:
    return np.arange(count, dtype=np.int64) * (last // (count - 1) if count > 1 else min_step)


RULES: dict[str, Callable[[int, int, int], IntArray]] = {"spread": _spread, "whole": _whole}


def _multi_starts(num_rows: int, shape: WindowShape, max_clips: int, min_step: int, rule: str) -> IntArray:
    last = num_rows - shape.span_rows
    if last < 0:
        return np.zeros(shape.num_windows(num_rows), dtype=np.int64)
    count = last // min_step + 1
    return np.arange(count, dtype=np.int64) * min_step if count <= max_clips else RULES[rule](last, max_clips, min_step)


def _windows(starts: Sequence[IntArray], rows: IntArray, shape: WindowShape) -> Windows:
    counts = [len(part) for part in starts]
    video = np.repeat(np.arange(len(rows), dtype=np.int64), counts)
    empty = np.zeros(0, dtype=np.int64)
    return windows_at(video, np.concatenate([empty, *starts]), rows[video], shape)


def _check(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} is {size}; it must be at least 1.")
