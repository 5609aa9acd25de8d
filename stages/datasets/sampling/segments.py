"""Frames of a clip that spreads over a whole video: one short run of frames in each of S equal segments (TSN).

    frame          0 1 2 3 4 5 6 7 8 9        10 frames, 3 segments of one frame
    segments      |- - -|- - -|- - - -|
    train            x   x          x         somewhere in each segment
    centre           x     x      x           its middle, int(10 / 3 * (i + 1/2))

All functions take the number of frames of N videos, int64 (N,), at least 1 each, and give frame numbers, int64. Which
frame a number stands for is the caller's: here the first frame is 0.
Sources: TSN (Wang et al. 2016); CAST (1.2) and ST-ABN (2.2) in the domain reference, whose rules are options.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]

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
