"""Which windows an epoch takes and in which order: weights of windows, draws, repeats; all from (seed, epoch) alone.

sampling      weight of a window
all           every window once an epoch, in random order
random        as all, for epochs that take only some of them
per_video     equal share for every video, equal within it
balanced      equal share for every class that occurs, equal within it
events        equal share for every video, within it the density around its events (`densities`)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reelwright.stages.datasets.sampling.clips import DrawnClips
from reelwright.stages.datasets.sampling.densities import row_density, start_probabilities
from reelwright.stages.datasets.sampling.generators import generator_at
from reelwright.stages.datasets.sampling.settings import EventSettings
from reelwright.stages.datasets.sampling.windows import IntArray, Windows, WindowShape

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class EpochSampler:
    """What an epoch takes of N windows. It can be asked again for any epoch, so a resumed run goes on in its order."""

    seed: int | None = None  # None: all windows in their own order (validation)
    per_epoch: int | None = None  # windows an epoch; None: as many as there are
    weights: FloatArray | None = None  # (N,) drawn with replacement; None: each once, in random order
    repeats: int = 1  # of each, side by side: repeated augmentation (Hoffer et al. 2020)
    clips: DrawnClips | None = None  # a window stands for its video, of which each epoch draws a clip

    def __post_init__(self) -> None:
        """Refuse weights from which nothing could be drawn."""
        if self.repeats < 1:
            raise ValueError(f"repeats is {self.repeats}; it must be at least 1.")
        if self.weights is not None and not (np.isfinite(self.weights).all() and (self.weights >= 0).all()):
            raise ValueError("weights of windows must be finite and not negative.")
        if self.weights is not None and not self.weights.sum() > 0:
            raise ValueError("all weights of windows are 0: nothing could be drawn.")

    def num_drawn(self, num_items: int) -> int:
        """How many windows an epoch takes, repeats counted."""
        if self.seed is None:
            return num_items
        return (self.per_epoch or num_items) * self.repeats

    def order(self, num_items: int, epoch: int) -> IntArray:
        """Positions of the windows that the epoch takes; repeats of one stand side by side."""
        if self.seed is None:
            return np.arange(num_items, dtype=np.int64)
        generator = np.random.default_rng([self.seed, epoch])
        count = self.per_epoch or num_items
        return np.repeat(self._drawn(num_items, count, generator), self.repeats)

    def windows(self, windows: Windows, order: IntArray, epoch: int) -> Windows:
        """The windows of an epoch in its ``order``; clips are drawn for each place, so repeats differ."""
        if self.clips is None or self.seed is None:
            return windows.take(order)
        return self.clips.of(windows.video[order], generator_at(self.seed, "clips", epoch=epoch, place=0))

    def _drawn(self, num_items: int, count: int, generator: np.random.Generator) -> IntArray:
        if self.weights is not None:
            share = np.cumsum(self.weights) / self.weights.sum()
            found = np.searchsorted(share, generator.random(count), side="right")
            return np.asarray(np.minimum(found, np.flatnonzero(self.weights)[-1]), dtype=np.int64)
        rounds = -(-count // num_items) if num_items else 0
        orders = [generator.permutation(num_items) for _ in range(rounds)]
        return np.concatenate([np.zeros(0, dtype=np.int64), *orders])[:count]


IN_ORDER = EpochSampler()


def per_video_weights(windows: Windows) -> FloatArray:
    """The same share for every video that has windows, and for every window of a video; (N,), summing to 1."""
    return balanced_weights(windows.video)


def balanced_weights(targets: npt.NDArray[np.generic]) -> FloatArray:
    """The same share for every class that occurs; (N,), summing to 1.

    `targets` int (N,), or (N, T) with a class a row (windows share each class by how many of its rows they have), or
    float (N, K) of 0 and 1 (a window with several labels has the sum of its shares; one without any counts as a class
    of its own). Unknown (-1) has no share. Raises ValueError where every target is unknown.
    """
    known = np.asarray(targets)
    shares = _label_shares(known) if np.issubdtype(known.dtype, np.floating) else _class_shares(known)
    total = shares.sum()
    if not total > 0:
        raise ValueError("every target is unknown; balanced sampling needs windows with a known class.")
    weights: FloatArray = shares / total
    return weights


def event_weights(
    windows: Windows,
    num_rows: Sequence[int],
    shape: WindowShape,
    *,
    events: Sequence[Sequence[float]],
    how: EventSettings,
) -> FloatArray:
    """The same share for every video, within it the density around its events; (N,), summing to 1.

    `windows` are those of every start, or some of them; `events` are the rows of each video's events. Mass of a
    window that was left out is given to the others of its video.
    """
    weights = np.zeros(len(windows))
    order = np.argsort(windows.video, kind="stable")
    videos, first = np.unique(windows.video[order], return_index=True)
    for video, mine in zip(videos.tolist(), np.split(order, first[1:]), strict=True):
        chances = start_probabilities(row_density(events[video], num_rows[video], how), shape)[windows.start[mine]]
        total = chances.sum()
        weights[mine] = (chances / total if total > 0 else 1 / len(mine)) / len(videos)
    return weights


def _class_shares(targets: npt.NDArray[np.generic]) -> FloatArray:
    """The sum over a window's rows of 1 / (rows of that class), so that every class has 1 in all; (N,)."""
    rows = targets.reshape(len(targets), -1).astype(np.int64)
    is_known = rows >= 0
    counts = np.maximum(np.bincount(rows[is_known]), 1) if is_known.any() else np.ones(1)
    shares: FloatArray = np.where(is_known, 1 / counts[np.where(is_known, rows, 0)], 0.0).sum(axis=1)
    return shares


def _label_shares(targets: npt.NDArray[np.generic]) -> FloatArray:
    """The same for windows with several labels or none; (N,)."""
    labels = np.maximum(targets.astype(np.float64), 0)
    counts = np.column_stack([labels, labels.sum(axis=1) == 0])
    shares: FloatArray = (counts / np.maximum(counts.sum(axis=0), 1e-300)).sum(axis=1)
    return shares
