"""Bootstrap intervals over videos: how far a measure moves when other videos of the same kind are measured.

Windows and rows of one video are alike, so whole videos are drawn, with replacement (the cluster bootstrap of Davison
and Hinkley 1997, section 3.8), and all measures on the same draws; the interval is that of the percentiles (Efron and
Tibshirani 1993, chapter 13). Measures are put together from sums over videos, so a draw is a row of counts and a draw
of all measures one product of matrices; scipy.stats.bootstrap would call every measure on every draw.

Shape letters: V videos, R draws, K classes, N entries (windows or rows).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

RESAMPLES, LEVEL = 1000, 0.95
MIN_RESAMPLES = 200  # percentiles of fewer say little
MAX_STEPS = 2_500_000_000  # products to rank anew, over all draws and classes: about a second
_CELLS_AT_ONCE = 2_000_000

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.integer[Any]]


class Measure(Protocol):
    """A number that follows from how often each video was drawn."""

    @property
    def best(self) -> float:
        """The highest value that there can be: 1 of shares, 100 of percent; infinite of what is no share."""

    @property
    def num_steps(self) -> int:
        """Products that one draw costs; 0 where it is a sum over videos."""

    def values(self, count_RV: Floats) -> Floats:
        """The measure of each draw, (R,); NaN where it is not defined."""


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """A sum over videos by another, as of right windows by all; `empty` where there is nothing below."""

    above: npt.NDArray[Any]  # (V,)
    below: npt.NDArray[Any]  # (V,)
    best: float = 1.0
    empty: float = float("nan")
    num_steps: int = 0

    def values(self, count_RV: Floats) -> Floats:
        """See Measure."""
        above_R, below_R = count_RV @ self.above.astype(np.float64), count_RV @ self.below.astype(np.float64)
        with np.errstate(invalid="ignore"):
            return np.where(below_R > 0, self.best * above_R / below_R, self.empty)


@dataclass(frozen=True, kw_only=True)
class ClassMean:
    """The mean over classes of such ratios, of the classes with something below."""

    above: npt.NDArray[Any]  # (V, K)
    below: npt.NDArray[Any]  # (V, K)
    best: float = 1.0
    num_steps: int = 0

    @cached_property
    def _sums(self) -> tuple[Any, Any]:
        """Both, (K, V); few videos have many classes."""
        return csr_matrix(self.above).T.tocsr(), csr_matrix(self.below).T.tocsr()

    def values(self, count_RV: Floats) -> Floats:
        """See Measure."""
        above_RK, below_RK = ((sums_KV @ count_RV.T).T for sums_KV in self._sums)
        is_there_RK = below_RK > 0
        ratio_RK = np.divide(above_RK, below_RK, out=np.zeros_like(above_RK), where=is_there_RK)
        with np.errstate(invalid="ignore"):
            return np.asarray(ratio_RK.sum(axis=1) / is_there_RK.sum(axis=1))


@dataclass(frozen=True, kw_only=True)
class Mean:
    """The mean of a number that videos have each, of the videos that have one; as of a delay in seconds."""

    value: Floats  # (V,); NaN: this video has none
    best: float = math.inf
    num_steps: int = 0

    def values(self, count_RV: Floats) -> Floats:
        """See Measure."""
        is_there_V = ~np.isnan(self.value)
        below_R = count_RV @ is_there_V.astype(np.float64)
        with np.errstate(invalid="ignore"):
            return np.asarray((count_RV @ np.where(is_there_V, self.value, 0.0)) / below_R)


@dataclass(frozen=True, kw_only=True)
class PairMean:
    """The mean of a number of ordered pairs of videos; a video that was drawn twice is no pair with itself."""

    value: Floats  # (V, V); NaN: this pair has none, as of a video with itself
    best: float = math.inf

    @property
    def num_steps(self) -> int:
        """See Measure."""
        return 2 * self.value.size

    def values(self, count_RV: Floats) -> Floats:
        """See Measure."""
        is_there_VV = ~np.isnan(self.value)
        above_VV, below_VV = np.where(is_there_VV, self.value, 0.0), is_there_VV.astype(np.float64)
        above_R, below_R = (((count_RV @ each_VV) * count_RV).sum(axis=1) for each_VV in (above_VV, below_VV))
        with np.errstate(invalid="ignore"):
            return np.asarray(above_R / below_R)


@dataclass(frozen=True, kw_only=True)
class MeanAveragePrecision:
    """The mean over classes of average precision, of the classes with positives; equal scores are one threshold."""

    scores: npt.NDArray[np.floating[Any]]  # (N, K)
    is_positive: npt.NDArray[np.bool_]  # (N, K)
    is_known: npt.NDArray[np.bool_] | None  # (N, K); None: all are
    video: Counts  # (N,) in [0, V)
    best: float = 1.0

    @property
    def num_steps(self) -> int:
        """See Measure."""
        return 2 * int(self.is_positive.sum()) * int(self.video.max() + 1)

    def values(self, count_RV: Floats) -> Floats:
        """See Measure."""
        sums_R, classes_R = np.zeros(len(count_RV)), np.zeros(len(count_RV))
        for column in np.flatnonzero(self.is_positive.any(axis=0)).tolist():
            found_R = self._average_precision(count_RV, column)
            sums_R += np.nan_to_num(found_R)
            classes_R += ~np.isnan(found_R)
        with np.errstate(invalid="ignore"):
            return np.asarray(sums_R / classes_R)

    def _average_precision(self, count_RV: Floats, column: int) -> Floats:
        """Precision at the scores of positives alone: at others recall stays.

        How many entries of a video lie at or above each of these G scores is counted once.
        """
        known_N = np.ones(len(self.video), dtype=np.bool_) if self.is_known is None else self.is_known[:, column]
        scores_N, positive_N = self.scores[known_N, column], self.is_positive[known_N, column]
        video_N, num_videos = self.video[known_N], count_RV.shape[1]
        ascending_G = np.unique(scores_N[positive_N])
        size = len(ascending_G)
        place_N = size - np.searchsorted(ascending_G, scores_N, side="right")  # the highest score is at 0
        is_above_N = place_N < size

        def summed(chosen_N: npt.NDArray[np.bool_]) -> Floats:
            cells = np.bincount(video_N[chosen_N] * size + place_N[chosen_N], minlength=num_videos * size)
            return np.asarray(count_RV @ cells.reshape(num_videos, size).cumsum(axis=1).astype(np.float64))

        hits_RG, all_RG = summed(positive_N), summed(is_above_N)
        gained_RG = np.diff(hits_RG, axis=1, prepend=0)
        with np.errstate(invalid="ignore"):
            return np.asarray((gained_RG * hits_RG / np.maximum(all_RG, 1)).sum(axis=1) / hits_RG[:, -1])


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Between which two values a measure lies, at `LEVEL`."""

    low: float
    high: float
    num_draws: int


def intervals(measures: Mapping[str, Measure], *, num_videos: int, seed: int = 0) -> dict[str, Interval]:
    """The interval of each measure over ``num_videos`` videos; a measure that is not defined on any draw has none.

    Where ranking anew `RESAMPLES` times would take more than `MAX_STEPS`, there are fewer draws; below `MIN_RESAMPLES`
    there is no interval. Where every draw has the best value there can be (or 0), the draws know no better: the end
    away from it is then that of Clopper and Pearson (1934) for as many videos without an exception, exact where a video
    is right or wrong as a whole; what is no share has no interval then. Of fewer than two videos there are none.
    """
    if num_videos < 2:
        return {}
    draws = {name: num_draws(measure) for name, measure in measures.items()}
    drawn = {name: measure for name, measure in measures.items() if draws[name] >= MIN_RESAMPLES}
    values: dict[str, list[Floats]] = {name: [] for name in drawn}
    for first, count_RV in _draws(num_videos, seed=seed):
        for name, measure in drawn.items():
            if first < draws[name]:
                values[name].append(measure.values(count_RV[: draws[name] - first]))
    found = {name: np.concatenate(parts) for name, parts in values.items()}
    return {
        name: _interval(values_R, best=drawn[name].best, num_videos=num_videos)
        for name, values_R in found.items()
        if not np.isnan(values_R).all() and (drawn[name].best < math.inf or np.nanmin(values_R) < np.nanmax(values_R))
    }


def num_draws(measure: Measure) -> int:
    """How often videos are drawn; below `MIN_RESAMPLES` there is no interval."""
    return min(RESAMPLES, MAX_STEPS // max(1, measure.num_steps))


def _draws(num_videos: int, *, seed: int) -> Iterator[tuple[int, Floats]]:
    """(number of the first, how often each video is in each draw) of some draws at a time."""
    random = np.random.default_rng(seed)
    step = max(1, _CELLS_AT_ONCE // num_videos)
    for first in range(0, RESAMPLES, step):
        size = min(step, RESAMPLES - first)
        cells = random.integers(num_videos, size=(size, num_videos)) + num_videos * np.arange(size)[:, None]
        counts = np.bincount(cells.ravel(), minlength=size * num_videos)
        yield first, counts.reshape(size, num_videos).astype(np.float64)


def _interval(values_R: Floats, *, best: float, num_videos: int) -> Interval:
    tail = (1 - LEVEL) / 2
    low, high = (float(value) for value in np.nanquantile(values_R, [tail, 1 - tail]))
    share = tail ** (1 / num_videos)  # the lowest chance of success with which all succeed at least so often
    if math.isclose(low, best):  # a mean of equal numbers may be off in its last digit
        low = best * share
    elif low == high == 0:
        high = best * (1 - share)
    return Interval(low=low, high=high, num_draws=len(values_R))
