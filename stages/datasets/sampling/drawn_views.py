"""Views of a batch of videos, each drawn from (seed, epoch, place): the same in any batch, worker, process or resume.

    videos    7 2                    two places of the epoch's order
    views     7a 7b 2a 2b            side by side, as objectives of two views take them

What is drawn are numbers of rows: of stored rows, or of stored frames where a model reads these. Shape letters: N
videos, V views of each, T rows of a view, C rows of a context (1: the row alone).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reelwright.stages.datasets.sampling.generators import generators_at
from reelwright.stages.datasets.sampling.two_views import (
    BoolArray,
    IntArray,
    TimeAugment,
    View,
    anchor_positive_view,
    context_frames,
    two_views,
    uniform_view,
)

STRATEGIES = ("time_augment", "offset_uniform", "anchor_positive")


@dataclass(frozen=True)
class DrawnViews:
    """The views of N videos, (N * V, ...), those of a video side by side."""

    video: IntArray  # (N * V,) which video
    num_rows: IntArray  # (N * V,) of that video
    positions: IntArray  # (N * V, T) row numbers, counted within the video; masked ones are its last
    mask: BoolArray  # (N * V, T) True at real rows
    rows: IntArray  # (N * V, T, C) rows that are read for each position, its own last


@dataclass(frozen=True, kw_only=True)
class ViewSampler:
    """How views are drawn."""

    strategy: str
    # time_augment, offset_uniform: as `two_views` and `uniform_view`. anchor_positive: as `anchor_positive_view`.
    augment: TimeAugment
    # Its length is that of all strategies, the rest is of time_augment.
    num_views: int = 2
    positive_window: int = 5
    # Largest distance of a positive from its anchor.
    num_contexts: int = 1
    context_stride: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what could not be drawn."""
        if self.strategy not in STRATEGIES:
            raise ValueError(f"strategy {self.strategy!r} is not known; allowed: {', '.join(STRATEGIES)}.")
        if self.num_views not in (1, 2):
            raise ValueError(f"num_views is {self.num_views}; allowed: 1 or 2.")
        if self.strategy == "anchor_positive":
            anchor_positive_view(
                1, length=self.augment.length, window=self.positive_window, generator=np.random.default_rng(0)
            )
        context_frames(np.zeros(1, dtype=np.int64), num=self.num_contexts, stride=self.context_stride)

    @property
    def least_rows(self) -> int:
        """Rows that a video needs for a view with anything real in it."""
        return 2 if self.strategy == "anchor_positive" else 1

    def drawn(self, videos: Sequence[int], num_rows: Sequence[int], *, epoch: int, places: Sequence[int]) -> DrawnViews:
        """Views of ``videos`` (N,), of ``num_rows`` (N,) each, that stand at ``places`` (N,) of the epoch's order.

        A video that comes twice in an epoch has other views each time. Raises ValueError for a video without rows.
        """
        generators = generators_at(self.seed, "views", epoch=epoch, places=places)
        found = [
            view
            for rows, generator in zip(num_rows, generators, strict=True)
            for view in self._views(int(rows), generator)
        ]
        shape = (len(found), self.augment.length)
        positions = np.array([view.frames for view in found], dtype=np.int64).reshape(shape)
        return DrawnViews(
            video=np.repeat(np.asarray(videos, dtype=np.int64), self.num_views),
            num_rows=np.repeat(np.asarray(num_rows, dtype=np.int64), self.num_views),
            positions=positions,
            mask=np.array([view.mask for view in found], dtype=np.bool_).reshape(shape),
            rows=context_frames(positions, num=self.num_contexts, stride=self.context_stride),
        )

    def _views(self, num_rows: int, generator: np.random.Generator) -> tuple[View, ...]:
        if self.strategy == "time_augment":
            return two_views(num_rows, self.augment, generator)[: self.num_views]
        return tuple(self._view(num_rows, generator) for _ in range(self.num_views))

    def _view(self, num_rows: int, generator: np.random.Generator) -> View:
        length = self.augment.length
        if self.strategy == "offset_uniform":
            return uniform_view(num_rows, length=length, generator=generator)
        return anchor_positive_view(num_rows, length=length, window=self.positive_window, generator=generator)
