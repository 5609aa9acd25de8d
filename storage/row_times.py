"""Which frame of a video each of its rows is, and when it is on the screen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class RowTimes:
    """Which frame each row is: (T,) arrays."""

    source_frame: NDArray[np.int64]
    pts_seconds: NDArray[np.float64]
    stop_seconds: NDArray[np.float64]

    @property
    def num_rows(self) -> int:
        """T."""
        return len(self.source_frame)

    def take(self, rows: NDArray[np.int64]) -> RowTimes:
        """Those of some rows, in the order given."""
        return RowTimes(
            source_frame=self.source_frame[rows],
            pts_seconds=self.pts_seconds[rows],
            stop_seconds=self.stop_seconds[rows],
        )
