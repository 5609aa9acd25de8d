"""Batches for the trainer: what an epoch looks at, in an order that follows from the seed and the epoch alone.

Several processes draw the same order and take each its share of every batch, so the batch as a whole is that of one
process, and nothing is looked at twice.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from reelwright.models.contracts import mark_unpadded
from reelwright.stages.base.devices import Upload
from reelwright.stages.embed.threads import read_ahead
from reelwright.stages.fit.processes.world import ALONE, World

IntArray = npt.NDArray[np.int64]

BATCHES_AHEAD = 2


@dataclass(frozen=True)
class Origin:
    """Where a batch stands in the training: what is drawn for its items follows from this alone."""

    epoch: int
    positions: IntArray  # (B,) of its items in the epoch's order


@dataclass(frozen=True)
class Batch:
    """One forward pass: ``model(inputs)`` gives what is compared with ``targets`` (B, ...)."""

    inputs: Mapping[str, Tensor]  # by name, as `models.contracts` has them
    targets: Tensor
    num_all: int | None = None  # items of the batch over all processes; None: these are all
    is_counted: bool = True  # False: a stand-in, for a process whose share is empty
    about: Callable[[], list[str]] | None = None  # names the items, for messages
    origin: Origin | None = None  # needed where something is drawn for it (mixing, augmentation)

    def to(self, upload: Upload) -> Batch:
        """The same on a device."""
        device = upload.device
        if self.targets.device == device and all(value.device == device for value in self.inputs.values()):
            return self
        targets, *moved = (
            value if value.device == device else upload(value) for value in (self.targets, *self.inputs.values())
        )
        inputs = dict(zip(self.inputs, moved, strict=True))
        mask = self.inputs.get("mask")
        if mask is not None and mask.device.type == "cpu" and bool(mask.all()):  # asked where that is no wait
            mark_unpadded(inputs["mask"])
        return replace(self, inputs=inputs, targets=targets)

    @property
    def entries(self) -> dict[str, Tensor]:
        """What an objective sees: inputs and `targets`."""
        return {**self.inputs, "targets": self.targets}

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


Prepare = Callable[[Batch], Batch]  # what is done to a training batch on the device, before the module sees it


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


def read_early(read: Callable[..., Iterator[Batch]]) -> Callable[..., Iterator[Batch]]:
    """An `epoch` of Batches that reads the next batches while one is in use."""

    @functools.wraps(read)
    def early(self: Any, epoch: int, *, first: int = 0) -> Iterator[Batch]:
        with read_ahead(read(self, epoch, first=first), depth=BATCHES_AHEAD) as batches:
            yield from batches

    return early


@dataclass(frozen=True, kw_only=True)
class Split:
    """How an epoch's items become batches, and which share of each this process takes."""

    batch_size: int  # over all processes
    world: World = ALONE
    drop_last: bool = False

    def num_kept(self, drawn: int) -> int:
        """Items of an epoch that draws so many."""
        return drawn - drawn % self.batch_size if self.drop_last else drawn

    def num_parts(self, drawn: int) -> int:
        """Batches of such an epoch; the last may be smaller."""
        return -(-self.num_kept(drawn) // self.batch_size)

    def parts(self, order: IntArray, *, first: int = 0) -> Iterator[tuple[IntArray, int, bool]]:
        """Of every batch from ``first`` on: this process's items, items over all processes, and whether its own count.

        Where there are fewer items than processes, a process without any takes the first as a stand-in.
        """
        for start in range(first * self.batch_size, self.num_kept(len(order)), self.batch_size):
            whole = order[start : start + self.batch_size]
            part = self.world.share(whole)
            yield (part if len(part) else whole[:1]), len(whole), bool(len(part))
