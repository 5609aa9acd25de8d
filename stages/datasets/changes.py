"""Labels of windows from changes of state: which components changed, once, twice or an odd number of times.

    state of a component    0 0 1 1 0 0 1        changes      . . x . x . x
    window                    [- - - - )         any: changed     net_change: none

Source: STORM-PSR (A3.6 of the domain reference). Shape letters: R rows of a state table, K components, N windows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

MODES = ("net_change", "any")


def step_changes(
    steps: Sequence[tuple[float, int]], *, num_classes: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Completed steps (time, class), as an annotation has them, as changes: times (R,) ascending and changes (R, K)."""
    ordered = sorted(steps)
    changes = np.zeros((len(ordered), num_classes), dtype=np.int64)
    changes[np.arange(len(ordered)), [step for _, step in ordered]] = 1
    return np.array([time for time, _ in ordered], dtype=np.float64), changes


def window_changes(
    times: npt.ArrayLike,
    changes_RK: npt.NDArray[np.int64],
    *,
    start: npt.ArrayLike,
    stop: npt.ArrayLike,
    mode: str = "net_change",
) -> npt.NDArray[np.float32]:
    """Which components changed in the half-open windows [start, stop), float32 (N, K) of 0 and 1.

    `times` (R,) ascending, in the unit of `start` and `stop` (N,); a change counts where it is exactly 1.
    net_change: changed an odd number of times, so that first and last state differ; any: changed at all.
    Raises ValueError for an unknown mode or times that are not in order.
    """
    if mode not in MODES:
        raise ValueError(f"mode {mode!r} is not known; allowed: {', '.join(MODES)}.")
    when = np.asarray(times, dtype=np.float64)
    if (np.diff(when) < 0).any():
        raise ValueError("times of changes must be in ascending order; sort the state table by time.")
    total_RK = np.concatenate([np.zeros((1, changes_RK.shape[1]), dtype=np.int64), np.cumsum(changes_RK == 1, axis=0)])
    first, last = (np.searchsorted(when, np.atleast_1d(np.asarray(bound, dtype=np.float64))) for bound in (start, stop))
    counts_NK = total_RK[np.maximum(last, first)] - total_RK[first]
    labels: npt.NDArray[np.float32] = (counts_NK % 2 if mode == "net_change" else counts_NK > 0).astype(np.float32)
    return labels
