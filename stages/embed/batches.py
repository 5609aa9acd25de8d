"""Batches across videos: rows of many short clips fill the device together, and find their way back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from reelwright.stages.datasets.sampling.windows import BoolArray
from reelwright.stages.embed.clips import InputRows


@dataclass(frozen=True)
class Owner:
    """Whose rows they are: a video, and which attempt at it (rows of an attempt that was given up are dropped)."""

    digest: str
    attempt: int


@dataclass(frozen=True)
class Part:
    """Consecutive rows of one owner inside a batch."""

    owner: Owner
    rows: InputRows

    def __len__(self) -> int:
        return len(self.rows.frames)


@dataclass
class Batch:
    """Rows that go through the encoder together."""

    parts: list[Part] = field(default_factory=list)
    size: int = 0

    def frames(self) -> npt.NDArray[np.uint8]:
        """All rows as one array (B,H,W,3) or (B,T,H,W,3), in the order of the parts."""
        if len(self.parts) == 1:
            return self.parts[0].rows.frames
        return np.concatenate([part.rows.frames for part in self.parts])

    def mask(self) -> BoolArray | None:
        """Which frames of clips are real (B,T); None where all are, or rows are frames."""
        masks = [part.rows.mask for part in self.parts]
        if all(mask is None for mask in masks):
            return None
        whole = [np.ones(part.rows.frames.shape[:2], dtype=np.bool_) for part in self.parts]
        return np.concatenate([ones if mask is None else mask for mask, ones in zip(masks, whole, strict=True)])


class Batcher:
    """Collects rows until a batch is full.

    With ``shard_rows`` a batch never leaves its video and its shard, so that what goes together does not depend on what
    else is in work or where an earlier run stopped.
    """

    def __init__(self, *, shard_rows: int | None = None) -> None:
        self._shard_rows = shard_rows
        self._open: dict[Owner | None, Batch] = {}

    def add(self, owner: Owner, rows: InputRows, *, batch_size: int) -> Iterator[Batch]:
        """Take rows in; gives the batches that are full."""
        name = owner if self._shard_rows else None
        start = 0
        while start < len(rows.frames):
            batch = self._open.setdefault(name, Batch())
            stop = min(len(rows.frames), start + batch_size - batch.size, self._shard_end(rows, start))
            stop = max(stop, start + 1)  # the batch size may have been halved below what waits
            batch.parts.append(Part(owner, sliced(rows, start, stop)))
            batch.size += stop - start
            if batch.size >= batch_size or stop == self._shard_end(rows, start):
                yield self._open.pop(name)
            start = stop

    def flush(self, owner: Owner | None = None) -> Iterator[Batch]:
        """Batches that are not full: those of ``owner``, of whom no rows will follow, or all."""
        names = list(self._open) if owner is None else [owner] if owner in self._open else []
        for name in names:
            yield self._open.pop(name)

    def _shard_end(self, rows: InputRows, start: int) -> int:
        if self._shard_rows is None:
            return len(rows.frames) + 1
        row = rows.start + start
        return start + self._shard_rows - row % self._shard_rows


def sliced(rows: InputRows, start: int, stop: int) -> InputRows:
    """Rows [start, stop) of ``rows``."""
    if start == 0 and stop >= len(rows.frames):
        return rows
    mask = None if rows.mask is None else rows.mask[start:stop]
    return InputRows(rows.start + start, rows.frames[start:stop], rows.spans.take(slice(start, stop)), mask)
