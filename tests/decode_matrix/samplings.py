"""The samplings of the matrix, and the rows that each must give: the stated rule, written anew on the true times."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TOLERANCE = 1e-6  # as stages/decode/sampling.py states it
_LONG_SECONDS = 60
NAMES = ("every", "fps1", "fps7", "stride31", "times", "range", "shard", "shard_fps7")


@dataclass(frozen=True)
class Sampling:
    """Settings of DecodeConfig, and the part of the rows (by thirds) that is asked for."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    is_shard: bool = False  # the middle third of the rows only

    def rows_asked(self, num_rows: int) -> range:
        """Of ``num_rows`` in all."""
        return range(num_rows // 3, max(num_rows // 3 + 1, 2 * num_rows // 3)) if self.is_shard else range(num_rows)


def sampling(name: str, seconds: NDArray[np.float64]) -> Sampling:
    """The sampling ``name`` for a file with these times; files with like times get the same, to be decoded together."""
    if name in ("every", "shard"):
        return Sampling(name, {}, name == "shard")
    if "fps" in name:
        is_long = seconds[-1] - seconds[0] > _LONG_SECONDS  # an hour's gap of time would be filled with rows
        return Sampling(name, {"fps": float(name[-1]) / (100 if is_long else 1)}, name.startswith("shard"))
    if name == "stride31":
        return Sampling(name, {"stride": 31})
    first, last = _window(seconds)
    if name == "range":
        return Sampling(name, {"start": first, "stop": last})
    parts = (0.05, 0.1, 0.13, 0.5, 0.77, 0.97)
    return Sampling(name, {"times": tuple(round(first + part * (last - first), 6) for part in parts)})


def expected_rows(
    wanted: Sampling, seconds: NDArray[np.float64], last_seconds: Sequence[float]
) -> list[NDArray[np.int64]]:
    """The picture of every row, for each way to say how long the last picture stays; most are the same."""
    found: dict[bytes, NDArray[np.int64]] = {}
    for last in last_seconds or (0.0,):
        rows = np.asarray(_rows(wanted.settings, seconds.tolist(), float(seconds[-1]) + last), np.int64)
        found.setdefault(rows.tobytes(), rows)
    return list(found.values())


def _window(seconds: NDArray[np.float64]) -> tuple[float, float]:
    first, last = float(seconds[0]), float(seconds[-1])
    for start, stop in ((1.61, 2.83), (0.61, 1.23), (3601.61, 3602.83)):
        if first <= start and stop <= last:
            return start, stop
    length = last - first
    start, stop = max(0.0, first + 0.25 * length), max(0.01, first + 0.75 * length)
    return round(start, 6), round(max(stop, start + 1e-3), 6)


def _rows(settings: dict[str, Any], seconds: list[float], end: float) -> list[int]:
    start, stop = settings.get("start", -np.inf), settings.get("stop", np.inf)
    chosen = [place for place, time in enumerate(seconds) if start - _TOLERANCE <= time < stop - _TOLERANCE]
    if "times" in settings:
        return [_on_screen(seconds, time) for time in settings["times"]]
    if "fps" in settings:
        times, step = [], 0
        while (time := seconds[0] + step / settings["fps"]) < end - _TOLERANCE or not step:
            times.append(time)
            step += 1
        return [_on_screen(seconds, time) for time in times]
    return chosen[:: settings.get("stride", 1)]


def _on_screen(seconds: list[float], time: float) -> int:
    return max(0, bisect_right(seconds, time + _TOLERANCE) - 1)
