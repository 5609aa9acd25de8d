r"""Where windows are drawn around events: densities over the last row of a window (key-clip-aware sampling).

    event                        e
    gaussian        ............/^\..............      windows that end near it
    bimodal         ..../^\............/^\.......      windows that end well before it, or well after
    poisson         ............/^\..............      windows that end near it, skewed towards later
    uniform         -----------------------------

A window that ends `separation_rows` after an event holds it, if it is longer than that; one that ends as many rows
before it is a hard negative. A density lies over all rows; rows where no whole window can end are counted to the first
whole window. Source: STORM-PSR (A3.7 of the domain reference), which has sigma 15 and separation 80 frames fixed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from reelwright.stages.datasets.sampling.settings import EventSettings
from reelwright.stages.datasets.sampling.windows import IntArray, WindowShape

FloatArray = npt.NDArray[np.float64]


def windows_miss_events(how: EventSettings, shape: WindowShape) -> str | None:
    """Why windows of `shape` would hardly ever hold an event, and what to do; None where they do."""
    if how.density == "bimodal" and shape.span_rows <= how.separation_rows:
        return (
            f"windows reach over {shape.span_rows} rows, no more than separation_rows {how.separation_rows:g}: "
            "hardly one would hold its event. Lengthen the window, or lessen separation_rows."
        )
    return None


def row_density(event_rows: Sequence[float] | FloatArray | IntArray, num_rows: int, how: EventSettings) -> FloatArray:
    """Probability that a window's last row is this row, float64 (L,), summing to 1.

    Events are rows, also between or outside of the video's. Without any event, and with epsilon 0 where nothing else
    is left, all rows are alike. Raises ValueError for a video without rows.
    """
    if num_rows < 1:
        raise ValueError(f"a video has {num_rows} rows; leave videos without rows out.")
    row = np.arange(num_rows, dtype=np.float64)
    events = np.asarray(event_rows, dtype=np.float64).reshape(-1, 1)
    density = DENSITIES[how.density](row, events, how) + how.epsilon
    total = density.sum()
    return density / total if total > 0 else np.full(num_rows, 1 / num_rows)


def start_probabilities(density: FloatArray, shape: WindowShape) -> FloatArray:
    """Probability of every start of a whole window, float64 (L - span + 1,), from a density of last rows (L,).

    What lies before the first row at which a window can end counts to the first window. A video shorter than a window
    has one start, 0.
    """
    first_end = min(shape.span_rows, len(density)) - 1
    return np.concatenate([[density[: first_end + 1].sum()], density[first_end + 1 :]])


def start_of_last_row(last_row: npt.ArrayLike, num_rows: int, shape: WindowShape) -> IntArray:
    """The start of the window that ends at `last_row`, moved so that it lies inside the video as far as it can."""
    last = np.minimum(np.asarray(last_row, dtype=np.int64), num_rows - 1)
    start: IntArray = np.maximum(last - (shape.span_rows - 1), 0)
    return start


def rows_at(times_seconds: npt.ArrayLike, start_seconds: FloatArray) -> IntArray:
    """The row that is shown at each time: the last that starts no later; the first where none does.

    `start_seconds` (L,) ascending, as in `Spans`.
    """
    found = np.searchsorted(start_seconds, np.asarray(times_seconds, dtype=np.float64), side="right")
    rows: IntArray = np.maximum(found - 1, 0).astype(np.int64)
    return rows


def _bimodal(row: FloatArray, events: FloatArray, how: EventSettings) -> FloatArray:
    centres = np.concatenate([events - how.separation_rows, events + how.separation_rows])
    return _normal(row, centres, how.sigma_rows)


def _poisson(row: FloatArray, events: FloatArray, how: EventSettings) -> FloatArray:
    mean = how.sigma_rows
    count = row - np.round(events - mean).astype(np.int64)  # its counts are whole
    top = int(max(count.max(initial=0), 0))
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, top + 1)))])
    counted = np.maximum(count, 0).astype(np.int64)
    mass = np.exp(counted * np.log(mean) - mean - log_factorial[counted])
    total: FloatArray = np.where(count >= 0, mass, 0.0).sum(axis=0)
    return total


def _normal(row: FloatArray, centres: FloatArray, sigma: float) -> FloatArray:
    peaks = np.exp(-0.5 * ((row - centres) / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))
    total: FloatArray = peaks.sum(axis=0)
    return total


DENSITIES: dict[str, Callable[[FloatArray, FloatArray, EventSettings], FloatArray]] = {
    "uniform": lambda row, _events, _how: np.ones_like(row),
    "gaussian": lambda row, events, how: _normal(row, events, how.sigma_rows),
    "bimodal": _bimodal,
    "poisson": _poisson,
}
