"""Videos as probes see them: a row for each frame, with its label and time where they are known.

Shape letters: T rows of a video, D size of a row, Q and N rows that are compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
UNKNOWN = -1  # label of a row that has none
DISTANCES = ("sqeuclidean", "euclidean", "cosine")
_CHUNK_CELLS = 4_000_000  # distances in memory at a time (32 MB)


@dataclass(frozen=True, kw_only=True, eq=False)
class EmbeddedVideo:
    """Rows of one video in order of time.

    ``rows`` (T, D): any floats, kept as float64. ``labels`` (T,): int64 from 0 on, -1 where unknown, or None for a
    video without labels. ``seconds`` (T,): times of the rows, ascending (equal where a rate above the
    video's own repeats frames), or None. Raises ValueError for wrong shapes, for values that are not finite, and for
    labels below -1.
    """

    name: str
    rows: npt.NDArray[Any]
    labels: npt.NDArray[Any] | None = None
    seconds: npt.NDArray[Any] | None = None
    action: str = ""  # what is done in it, where phases of one action are not those of another (PennAction)

    def __post_init__(self) -> None:
        rows_TD = np.asarray(self.rows, np.float64)
        if rows_TD.ndim != 2 or 0 in rows_TD.shape:
            raise ValueError(f"video {self.name!r}: rows must be (T, D) with T and D above 0, got {rows_TD.shape}.")
        if not np.isfinite(rows_TD).all():
            number = int((~np.isfinite(rows_TD)).any(axis=1).sum())
            raise ValueError(f"video {self.name!r}: {number} of {len(rows_TD)} rows hold NaN or infinity.")
        object.__setattr__(self, "rows", rows_TD)
        if self.labels is not None:
            object.__setattr__(self, "labels", self._column("labels", np.asarray(self.labels, np.int64)))
            if self.label_of_rows.min() < UNKNOWN:
                raise ValueError(
                    f"video {self.name!r}: label {self.label_of_rows.min()}; allowed: -1 (unknown), 0, ..."
                )
        if self.seconds is not None:
            seconds_T = self._column("seconds", np.asarray(self.seconds, np.float64))
            if not np.isfinite(seconds_T).all() or (np.diff(seconds_T) < 0).any():
                raise ValueError(f"video {self.name!r}: times of rows must be finite and must not go back.")
            object.__setattr__(self, "seconds", seconds_T)

    def _column(self, what: str, values_T: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if values_T.shape != (len(self),):
            raise ValueError(f"video {self.name!r}: {what} must be ({len(self)},) as its rows, got {values_T.shape}.")
        return values_T

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def label_of_rows(self) -> Integers:
        """Labels (T,); all -1 for a video without."""
        return np.full(len(self), UNKNOWN) if self.labels is None else self.labels

    @property
    def has_labels(self) -> bool:
        """Whether any row has one."""
        return bool((self.label_of_rows != UNKNOWN).any())

    @property
    def times(self) -> Floats:
        """Seconds of the rows (T,); their numbers where no times are known."""
        return np.arange(len(self), dtype=np.float64) if self.seconds is None else self.seconds

    @property
    def seconds_per_row(self) -> float | None:
        """Mean time from row to row; None for a video without times or of one row."""
        if self.seconds is None or len(self) < 2:
            return None
        return float(self.seconds[-1] - self.seconds[0]) / (len(self) - 1)

    def at(self, rows: npt.NDArray[Any]) -> Self:
        """Of some of its rows, by index or as a mask."""
        return replace(
            self,
            rows=self.rows[rows],
            labels=None if self.labels is None else self.labels[rows],
            seconds=None if self.seconds is None else self.seconds[rows],
        )

    def every(self, stride: int) -> Self:
        """Of rows 0, stride, 2 stride, ... Raises ValueError for a stride below 1."""
        if stride < 1:
            raise ValueError(f"stride must be 1 or more rows, got {stride}.")
        return self.at(np.arange(0, len(self), stride))

    def every_seconds(self, seconds: float) -> Self:
        """Of the first row at or after each multiple of so many seconds from its first row.

        Raises ValueError for a video without times, and for seconds that are not above 0.
        """
        if self.seconds is None or not seconds > 0:
            raise ValueError(f"video {self.name!r}: a stride of {seconds} seconds needs times and must be above 0.")
        passed_T = self.seconds - self.seconds[0]
        # 1e-9: a time that is a multiple but for rounding is at it, not after it.
        multiple_T = np.floor(passed_T / seconds + 1e-9)
        return self.at(np.unique(multiple_T, return_index=True)[1])

    def labelled(self) -> Self:
        """Of the rows that have a label. Raises ValueError where none has."""
        if not self.has_labels:
            raise ValueError(f"video {self.name!r} has no label.")
        return self.at(self.label_of_rows != UNKNOWN)


def labelled_only(videos: Sequence[EmbeddedVideo], *, what: str) -> list[EmbeddedVideo]:
    """Videos with labels, their rows with labels. Raises ValueError where no video has any."""
    found = [video.labelled() for video in videos if video.has_labels]
    if not found:
        raise ValueError(f"{what}: none of {len(videos)} videos has a label; give labels, or leave this out.")
    return found


def count_classes(*groups: Sequence[EmbeddedVideo]) -> int:
    """One more than the largest label."""
    return 1 + max((int(video.label_of_rows.max()) for group in groups for video in group), default=UNKNOWN)


def distance_chunks(
    query_QD: Floats, key_ND: Floats, *, distance: str, most_cells: int | None = None
) -> Iterator[tuple[int, Floats]]:
    """Distances in order of the queries: (first query of the chunk, (chunk, N) float64), with flat memory.

    A chunk has no more than ``most_cells``, or is one query. To a row of zeros the cosine distance is 1. Raises
    ValueError for an unknown distance or sizes that differ.
    """
    if distance not in DISTANCES:
        raise ValueError(f"distance {distance!r} is not known; choose one of {', '.join(DISTANCES)}.")
    if query_QD.shape[1:] != key_ND.shape[1:]:
        raise ValueError(f"rows of sizes {query_QD.shape[1]} and {key_ND.shape[1]} cannot be compared.")
    size = max(1, (most_cells or _CHUNK_CELLS) // max(1, len(key_ND)))
    for start in range(0, len(query_QD), size):
        found = cdist(query_QD[start : start + size], key_ND, distance)
        yield start, np.nan_to_num(found, nan=1.0) if distance == "cosine" else found
