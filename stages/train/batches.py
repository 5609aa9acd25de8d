"""Batches for the trainer: what an epoch looks at, in an order that follows from the seed and the epoch alone.

Several processes draw the same order and take each its share of every batch, so the batch as a whole is that of one
process, and nothing is looked at twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from reelwright.stages.train.block import Block
from reelwright.stages.train.targets import Targets
from reelwright.stages.train.windows import IntArray, Windows, WindowShape
from reelwright.stages.train.world import ALONE, Share

_BATCHES_AT_ONCE = 64  # whose row numbers are worked out together


@dataclass(frozen=True)
class Batch:
    """One forward pass: ``module(*inputs)`` gives logits to compare with ``targets`` (B, ...)."""

    inputs: tuple[Tensor, ...]
    targets: Tensor
    num_all: int | None = None  # items of the batch over all processes; None: these are all
    is_counted: bool = True  # False: a stand-in, for a process whose share is empty
    about: Callable[[], list[str]] | None = None  # names the items, for messages

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        if self.targets.device == device and all(value.device == device for value in self.inputs):
            return self
        moved = tuple(value.to(device, non_blocking=True) for value in self.inputs)
        targets = self.targets.to(device, non_blocking=True)
        return Batch(moved, targets, self.num_all, self.is_counted, self.about)

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def num_counted(self) -> int:
        """Items of this process that count."""
        return len(self.targets) if self.is_counted else 0

    @property
    def num_items(self) -> int:
        """Items of the batch over all processes."""
        return len(self.targets) if self.num_all is None else self.num_all


class Batches(Protocol):
    """A source of batches that can start anywhere, so that an interrupted epoch goes on where it stopped."""

    @property
    def num_items(self) -> int:
        """Items (windows) of an epoch, over all processes."""

    @property
    def num_batches(self) -> int:
        """Batches of an epoch."""

    def epoch(self, epoch: int, *, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch (0, 1, ...) from batch ``first`` on; the same ones whenever asked."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Which of N candidates an epoch takes, and in which order."""

    seed: int | None = None  # None: all candidates in their own order (validation)
    per_epoch: int | None = None  # drawn uniformly each epoch; None: all

    def order(self, num_items: int, epoch: int) -> IntArray:
        """Positions of the candidates that the epoch takes."""
        if self.seed is None:
            return np.arange(num_items, dtype=np.int64)
        generator = np.random.default_rng([self.seed, epoch])
        if self.per_epoch is None:
            return generator.permutation(num_items)
        return generator.choice(num_items, self.per_epoch, replace=self.per_epoch > num_items)


@dataclass(frozen=True, kw_only=True)
class Split:
    """How an epoch's items become batches, and which share of each this process takes."""

    batch_size: int
    share: Share = ALONE
    drop_last: bool = False

    def num_items(self, drawn: int) -> int:
        """Items of an epoch that draws so many."""
        return drawn - drawn % self.batch_size if self.drop_last else drawn

    def num_batches(self, drawn: int) -> int:
        """Batches of such an epoch; the last may be smaller."""
        return -(-self.num_items(drawn) // self.batch_size)

    def parts(self, order: IntArray, *, first: int = 0) -> Iterator[tuple[IntArray, int, bool]]:
        """Of every batch from ``first`` on: this process's items, items over all processes, and whether its own count.

        Where there are fewer items than processes, a process without any takes the first as a stand-in.
        """
        for start in range(first * self.batch_size, self.num_items(len(order)), self.batch_size):
            whole = order[start : start + self.batch_size]
            part = self.share.of(whole)
            yield (part if len(part) else whole[:1]), len(whole), bool(len(part))


@dataclass(frozen=True, kw_only=True)
class WindowBatches:
    """Batches of windows over a block of embeddings: inputs are rows (B, length, D) and mask (B, length)."""

    block: Block
    windows: Windows
    targets: Targets  # of the windows, (N, ...)
    shape: WindowShape
    batch_size: int
    sampling: Sampling = Sampling()
    share: Share = ALONE
    drop_last: bool = False
    names: tuple[str, ...] = ()  # of the block's videos, for messages

    @property
    def split(self) -> Split:
        """How an epoch becomes batches."""
        return Split(batch_size=self.batch_size, share=self.share, drop_last=self.drop_last)

    @property
    def num_items(self) -> int:
        """Windows of an epoch."""
        return self.split.num_items(self.sampling.per_epoch or len(self.windows))

    @property
    def num_batches(self) -> int:
        """Batches of an epoch; the last may be smaller."""
        return self.split.num_batches(self.sampling.per_epoch or len(self.windows))

    def epoch(self, epoch: int, *, first: int = 0) -> Iterator[Batch]:
        """See `Batches.epoch`."""
        order = self.sampling.order(len(self.windows), epoch)
        parts = self.split.parts(order, first=first)
        device = self.block.rows.device
        targets = torch.from_numpy(self.targets).to(device)
        scratch = self.block.scratch_for(min(self.batch_size, max(len(order), 1)) * self.shape.length)
        while group := [part for _, part in zip(range(_BATCHES_AT_ONCE), parts, strict=False)]:
            picked = np.concatenate([part for part, _, _ in group])
            windows = self.windows.take(picked)
            index, mask = self.block.index(windows, self.shape)
            chosen = targets[torch.from_numpy(picked).to(device)]
            start = 0
            for part, num_all, is_counted in group:
                place = slice(start, start + len(part))
                start = place.stop
                rows = self.block.pick(index[place], scratch=scratch)
                about = _About(self, part)
                yield Batch((rows, mask[place]), chosen[place], num_all, is_counted, about)


@dataclass(frozen=True)
class _About:
    """Names the windows of a batch when somebody asks."""

    source: WindowBatches
    picked: IntArray

    def __call__(self) -> list[str]:
        return describe_windows(self.source.windows.take(self.picked), self.source.shape, self.source.names)


def describe_windows(windows: Windows, shape: WindowShape, names: tuple[str, ...]) -> list[str]:
    """`video 'a' rows 12-43` for every window; a number in place of an unknown name."""
    known = dict(enumerate(names))
    columns = zip(windows.video.tolist(), windows.start.tolist(), windows.last_row(shape).tolist(), strict=True)
    return [f"video {known.get(video, video)!r} rows {start}-{last}" for video, start, last in columns]
