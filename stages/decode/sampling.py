"""Which source frames a decode configuration asks for: pure arithmetic on presentation times."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from reelwright.storage.errors import ItemError

if TYPE_CHECKING:
    from reelwright.stages.decode.config import DecodeConfig

TOLERANCE_SECONDS = 1e-6  # times of containers are rounded to their time base, times of people to some digits


def plan_rows(pts_seconds: NDArray[np.float64], config: DecodeConfig, *, end_seconds: float) -> NDArray[np.int64]:
    """The source frame of every row, (T,) ascending.

    pts_seconds: (N,) ascending presentation times of all frames. end_seconds: when the last of them leaves the screen.

    First `start` and `stop` (half-open, on presentation times) choose frames, as if the video had only those. Then:

        fps     rows lie on the grid t_k = first + k / fps, before the end of the last frame's span. Row k is the frame
                on screen at t_k, the last one with pts <= t_k. A frame repeats where fps exceeds the video's own
                rate, so that row k always stands for the k-th step of the grid.

                frames  |0--------|1---|2-------------|3----|     rows at fps: 0 0 1 2 2 3
                t_k     ^     ^     ^     ^     ^     ^

        stride  every stride-th chosen frame
        times   the frame on screen at each time
        (none)  every chosen frame

    Raises ItemError: `no_frames` when there are none at all, `no_frames_in_range` when start/stop leave none,
    `time_outside` when one of `times` lies outside the chosen frames.
    """
    if len(pts_seconds) == 0:
        raise ItemError(
            "no_frames", "the video stream has no frames. Replace the file, or take it out of the manifest."
        )
    chosen, end = _in_range(pts_seconds, config, end_seconds)
    if config.fps is not None:
        rows = _on_screen(pts_seconds[chosen], grid_times(pts_seconds[chosen.start], end, config.fps))
    elif config.times is not None:
        times = np.asarray(config.times, np.float64)
        _check_times(times, pts_seconds[chosen.start], end)
        rows = _on_screen(pts_seconds[chosen], times)
    else:
        rows = np.arange(0, chosen.stop - chosen.start, config.stride or 1)
    return np.asarray(rows + chosen.start, dtype=np.int64)


def grid_times(first_seconds: float, end_seconds: float, fps: float) -> NDArray[np.float64]:
    """The times first + k / fps that lie before the end, (T,); the first always."""
    count = max(1, int(np.ceil((end_seconds - first_seconds - TOLERANCE_SECONDS) * fps)))
    return first_seconds + np.arange(count) / fps


def _in_range(pts_seconds: NDArray[np.float64], config: DecodeConfig, end_seconds: float) -> tuple[slice, float]:
    """The frames with start <= pts < stop, and when the last of them leaves the screen."""
    lowest = -np.inf if config.start is None else config.start - TOLERANCE_SECONDS
    highest = np.inf if config.stop is None else config.stop - TOLERANCE_SECONDS
    start, stop = (int(np.searchsorted(pts_seconds, limit)) for limit in (lowest, highest))
    if stop <= start:
        raise ItemError(
            "no_frames_in_range",
            f"no frame lies in [start {config.start}, stop {config.stop}) seconds: the video's frames lie in "
            f"[{pts_seconds[0]:.3f}, {end_seconds:.3f}). Change start or stop, or take the video out of the manifest.",
        )
    last_end = float(pts_seconds[stop]) if stop < len(pts_seconds) else end_seconds
    return slice(start, stop), min(last_end, np.inf if config.stop is None else config.stop)


def _on_screen(pts_seconds: NDArray[np.float64], times: NDArray[np.float64]) -> NDArray[np.int64]:
    found: NDArray[np.int64] = np.searchsorted(pts_seconds, times + TOLERANCE_SECONDS, side="right") - 1
    return np.asarray(np.clip(found, 0, len(pts_seconds) - 1), dtype=np.int64)


def _check_times(times: NDArray[np.float64], first_seconds: float, end_seconds: float) -> None:
    outside = times[(times < first_seconds - TOLERANCE_SECONDS) | (times >= end_seconds)]
    if len(outside):
        raise ItemError(
            "time_outside",
            f"time {outside[0]:g} s is outside the video: its frames lie in [{first_seconds:.6g}, {end_seconds:.6g}) "
            "seconds of presentation time. Correct `times`.",
        )
