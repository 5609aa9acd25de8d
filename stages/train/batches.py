"""Batches for the trainer: what an epoch looks at, in an order that follows from the seed and the epoch alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from reelwright.stages.train.block import Block
from reelwright.stages.train.targets import Targets
from reelwright.stages.train.windows import IntArray, Windows, WindowShape


@dataclass(frozen=True)
class Batch:
    """One forward pass: ``module(*inputs)`` gives logits to compare with ``targets`` (B, ...)."""

    inputs: tuple[Tensor, ...]
    targets: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        moved = tuple(value.to(device, non_blocking=True) for value in self.inputs)
        return Batch(moved, self.targets.to(device, non_blocking=True))

    def __len__(self) -> int:
        return len(self.targets)


class Batches(Protocol):
    """A source of batches that can start anywhere, so that an interrupted epoch goes on where it stopped."""

    @property
    def num_items(self) -> int:
        """Items (windows) of an epoch."""

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
class WindowBatches:
    """Batches of windows over a block of embeddings: inputs are rows (B, length, D) and mask (B, length)."""

    block: Block
    windows: Windows
    targets: Targets  # of the windows, (N, ...)
    shape: WindowShape
    batch_size: int
    sampling: Sampling = Sampling()

    @property
    def num_items(self) -> int:
        """Windows of an epoch."""
        return self.sampling.per_epoch or len(self.windows)

    @property
    def num_batches(self) -> int:
        """Batches of an epoch; the last may be smaller."""
        return -(-self.num_items // self.batch_size)

    def epoch(self, epoch: int, *, first: int = 0) -> Iterator[Batch]:
        """See `Batches.epoch`."""
        order = self.sampling.order(len(self.windows), epoch)
        for start in range(first * self.batch_size, len(order), self.batch_size):
            picked = order[start : start + self.batch_size]
            rows_and_mask = self.block.gather(self.windows.take(picked), self.shape)
            yield Batch(rows_and_mask, torch.from_numpy(self.targets[picked]))
