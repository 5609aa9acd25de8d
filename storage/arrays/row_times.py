"""Which frame of a video each of its rows is, and when it is on the screen."""

from __future__ import annotations

from collections.abc import Sequence
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

    @classmethod
    def join(cls, parts: Sequence[RowTimes]) -> RowTimes:
        """Those of ``parts``, one after the other."""
        return cls(
            source_frame=np.concatenate([part.source_frame for part in parts]),
            pts_seconds=np.concatenate([part.pts_seconds for part in parts]),
            stop_seconds=np.concatenate([part.stop_seconds for part in parts]),
        )
