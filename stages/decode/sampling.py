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


class RowPicker:
    """The rows of `plan_rows`, of frames that come one after the other and whose end is not known before.

    A frame is told with the time of the next, so its rows are known before the next one is decoded.
    """

    def __init__(self, config: DecodeConfig) -> None:
        self._config = config
        self._count = 0  # chosen frames up to now
        self._next = 0  # row of the grid, or of `times`
        self._begin: float | None = None  # time of the first frame
        self._first = 0.0  # time of the first chosen frame
        self.num_rows = 0
        self.is_done = False  # no later frame has a row

    def rows_of(self, pts_seconds: float, stop_seconds: float, *, is_last: bool = False) -> int:
        """How many rows the next frame has, on screen from ``pts_seconds`` to ``stop_seconds``.

        Raises ItemError as `plan_rows`; what only the end can tell with ``is_last``.
        """
        config = self._config
        self._begin = pts_seconds if self._begin is None else self._begin
        if config.stop is not None and pts_seconds >= config.stop - TOLERANCE_SECONDS:
            self.close(self._begin, stop_seconds)
            self.is_done = True
            return 0
        if config.start is not None and pts_seconds < config.start - TOLERANCE_SECONDS:
            return 0
        if self._count == 0:
            self._first = pts_seconds
        end = stop_seconds if config.stop is None else min(stop_seconds, config.stop)
        is_last = is_last or (config.stop is not None and stop_seconds >= config.stop - TOLERANCE_SECONDS)
        rows = self._rows(end, is_last=is_last)
        self._count += 1
        self.num_rows += rows
        return rows

    def close(self, first_seconds: float, end_seconds: float) -> None:
        """All frames have come. Raises ItemError where there were none in the range, or `times` lie after them."""
        config = self._config
        if self._count == 0:
            raise _nothing_in_range(config, first_seconds, end_seconds)
        if config.times is not None and self._next < len(config.times):
            end = end_seconds if config.stop is None else min(end_seconds, config.stop)
            _check_times(np.asarray(config.times, np.float64), self._first, end)

    def _rows(self, end: float, *, is_last: bool) -> int:
        config, first = self._config, self._next
        if config.fps is not None:
            # as plan_rows: t_k lies before the end of the frame's span, rounding apart; the first row always is there
            last = int(np.ceil((end - self._first - TOLERANCE_SECONDS) * config.fps))
            self._next = max(first, last, 1 if is_last else 0)
        elif config.times is not None:
            if self._count == 0:
                _check_times(np.asarray(config.times[:1], np.float64), self._first, np.inf)
            while self._next < len(config.times) and config.times[self._next] + TOLERANCE_SECONDS < end:
                self._next += 1
            if is_last:  # rounding apart, up to the very end
                while self._next < len(config.times) and config.times[self._next] < end:
                    self._next += 1
            self.is_done = self._next == len(config.times)
        else:
            return int(self._count % (config.stride or 1) == 0)
        return self._next - first


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
        raise _nothing_in_range(config, float(pts_seconds[0]), end_seconds)
    last_end = float(pts_seconds[stop]) if stop < len(pts_seconds) else end_seconds
    return slice(start, stop), min(last_end, np.inf if config.stop is None else config.stop)


def _nothing_in_range(config: DecodeConfig, first_seconds: float, end_seconds: float) -> ItemError:
    return ItemError(
        "no_frames_in_range",
        f"no frame lies in [start {config.start}, stop {config.stop}) seconds: the video's frames lie in "
        f"[{first_seconds:.3f}, {end_seconds:.3f}). Change start or stop, or take the video out of the manifest.",
    )


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
