"""Batches of windows over a block of stored embeddings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from reelwright.stages.datasets.feature_bank import FeatureBank
from reelwright.stages.datasets.sampling.draws import IN_ORDER, EpochSampler
from reelwright.stages.datasets.sampling.windows import IntArray, Windows, WindowShape
from reelwright.stages.datasets.tasks.labels import Targets
from reelwright.stages.fit.loop.batches import Batch, Origin, Split

_BATCHES_AT_ONCE = 64  # whose row numbers are worked out together


@dataclass(frozen=True, kw_only=True)
class LabelledBatches(Split):
    """Batches of windows with targets; subclasses read what is in the windows."""

    windows: Windows
    targets: Targets  # of the windows, (N, ...)
    shape: WindowShape
    draws: EpochSampler = IN_ORDER
    names: tuple[str, ...] = ()  # of the videos, for messages

    @property
    def num_items(self) -> int:
        """Windows of an epoch."""
        return self.num_kept(self.draws.num_drawn(len(self.windows)))

    @property
    def num_batches(self) -> int:
        """Batches of an epoch; the last may be smaller."""
        return self.num_parts(self.draws.num_drawn(len(self.windows)))

    def drawn(self, epoch: int) -> tuple[IntArray, Windows]:
        """The windows of an epoch in its order, and their positions among all."""
        order = self.draws.order(len(self.windows), epoch)
        return order, self.draws.windows(self.windows, order, epoch)


@dataclass(frozen=True, kw_only=True)
class WindowBatches(LabelledBatches):
    """Batches of windows over a block of embeddings: inputs are `rows` (B, length, D) and `mask` (B, length)."""

    block: FeatureBank

    def epoch(self, epoch: int, *, first: int = 0) -> Iterator[Batch]:
        """See `Batches.epoch`."""
        order, ordered = self.drawn(epoch)
        parts = self.parts(np.arange(len(order)), first=first)
        device = self.block.rows.device
        targets = torch.from_numpy(self.targets).to(device)
        scratch = self.block.scratch_for(min(self.batch_size, max(len(order), 1)) * self.shape.length)
        while group := [part for _, part in zip(range(_BATCHES_AT_ONCE), parts, strict=False)]:
            places = np.concatenate([part for part, _, _ in group])
            picked, windows = order[places], ordered.take(places)
            index, mask = self.block.index(windows, self.shape)
            chosen = targets[torch.from_numpy(picked).to(device)]
            start = 0
            for part, num_all, is_counted in group:
                place = slice(start, start + len(part))
                start = place.stop
                rows = self.block.pick(index[place], scratch=scratch)
                about = partial(self._about, ordered, part)
                origin = Origin(epoch, part)
                yield Batch({"rows": rows, "mask": mask[place]}, chosen[place], num_all, is_counted, about, origin)

    def _about(self, ordered: Windows, picked: IntArray) -> list[str]:
        return describe_windows(ordered.take(picked), self.shape, self.names)


def describe_windows(windows: Windows, shape: WindowShape, names: tuple[str, ...]) -> list[str]:
    """`video 'a' rows 12-43` for every window; a number in place of an unknown name."""
    return describe_rows(windows.video, windows.start, windows.last_row(shape), names)


def describe_rows(video: IntArray, first: IntArray, last: IntArray, names: tuple[str, ...]) -> list[str]:
    """`describe_windows` of the first and the last row of each."""
    known = dict(enumerate(names))
    columns = zip(video.tolist(), first.tolist(), last.tolist(), strict=True)
    return [f"video {known.get(video, video)!r} rows {start}-{last}" for video, start, last in columns]
