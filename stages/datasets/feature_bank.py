"""Embeddings of all videos of a run as one contiguous block, so that a batch of windows is one index operation.

    block    |--- video 0 ---|- video 1 -|------ video 2 ------|      (R, D)
    offsets  0               17          29                    53

Rows of several stores are joined (see `stored_rows`).
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from reelwright.stages.datasets.sampling.windows import IntArray, Windows, WindowShape, shown, window_rows
from reelwright.stages.datasets.stored_rows import JoinedRows, features_of
from reelwright.storage.arrays.embeddings import EmbeddingStore
from reelwright.storage.arrays.spans import Spans
from reelwright.storage.errors import InputError, ItemError
from reelwright.storage.store_errors import named

READERS = 8  # threads that read videos: on a network file system most of the time is waiting


@dataclass(frozen=True)
class FeatureBank:
    """All rows of V videos."""

    rows: Tensor  # (R, D), or (R, N, D) and (R, C, H, W) with positions; float16 or float32, in memory or mapped
    offsets: IntArray  # (V + 1,) where the rows of each video start
    spans: tuple[Spans, ...]  # of each video's rows
    digests: tuple[str, ...]  # of each video

    @property
    def num_rows(self) -> list[int]:
        """Rows of each video."""
        return [int(rows) for rows in np.diff(self.offsets)]

    @property
    def input_dim(self) -> int:
        """D, features of a row, or C of maps."""
        return features_of(tuple(self.rows.shape[1:]))

    def gather(self, windows: Windows, shape: WindowShape) -> tuple[Tensor, Tensor]:
        """Rows float32 (B, length, ...) and mask bool (B, length) of windows, on the block's device."""
        index, mask = self.index(windows, shape)
        return self.pick(index), mask

    def index(self, windows: Windows, shape: WindowShape) -> tuple[Tensor, Tensor]:
        """Where rows of windows lie in the block, int64 (B, length), and what a model takes for real, on its device."""
        rows, mask = window_rows(windows, shape)
        rows += self.offsets[windows.video][:, None]
        device = self.rows.device
        return torch.from_numpy(rows).to(device), torch.from_numpy(shown(mask, shape)).to(device)

    def pick(self, index: Tensor, *, scratch: Tensor | None = None) -> Tensor:
        """Rows float32 (B, length, ...) at places of `index`.

        ``scratch`` (from `scratch_for`) spares a new allocation for rows that are widened.
        """
        places = index.flatten()
        if scratch is None or len(scratch) < len(places):
            picked = self.rows.index_select(0, places)
        else:
            picked = torch.index_select(self.rows, 0, places, out=scratch[: len(places)])
        return picked.view(*index.shape, *self.rows.shape[1:]).float()

    def scratch_for(self, num_rows: int) -> Tensor | None:
        """Room for so many rows as they are stored; None where `pick` would hand out the room itself."""
        return None if self.rows.dtype == torch.float32 else self.rows.new_empty(num_rows, *self.rows.shape[1:])

    def on(self, device: torch.device) -> FeatureBank:
        """The block on a GPU when at most half of its free memory is needed; else where it is."""
        if device.type != "cuda":
            return self
        free_bytes, _ = torch.cuda.mem_get_info(device)
        if self.rows.numel() * self.rows.element_size() * 2 > free_bytes:
            return self
        return FeatureBank(self.rows.to(device), self.offsets, self.spans, self.digests)


def load_block(
    stores: Sequence[EmbeddingStore],
    names: Mapping[str, str],
    *,
    output: str,
    memory_bytes: int,
    scratch: Path,
    is_written: bool = False,
    keeps_positions: bool = False,
) -> FeatureBank:
    """Read ``output`` of the videos ``names`` (digest -> video_id, for messages) of all stores, each once.

    A block above ``memory_bytes`` is mapped from the file ``scratch``, which the caller removes; with ``is_written``
    another process has filled that file already, and it is mapped as it is. Raises InputError for rows that are not
    finite, StoreError for an output that is not stored. Every digest must be in every store.
    """
    opened = {digest: [store.rows(digest) for store in stores] for digest in names}
    source = JoinedRows.of(stores, next(iter(opened.values())), output, keeps_positions=keeps_positions)
    with ThreadPoolExecutor(READERS) as pool:
        spans = tuple(pool.map(lambda videos: videos[0].spans, opened.values()))
        offsets = np.cumsum([0, *(len(each.start_seconds) for each in spans)], dtype=np.int64)
        shape = (int(offsets[-1]), *source.shape)
        if is_written:
            # copy on write: torch warns of arrays that cannot be written
            mapped = np.memmap(scratch, dtype=source.dtype, mode="c", shape=shape)
            return FeatureBank(torch.from_numpy(mapped), offsets, spans, tuple(opened))
        block = _empty(shape, source.dtype, memory_bytes=memory_bytes, scratch=scratch)

        def fill(position: int, digest: str) -> None:
            target = block[offsets[position] : offsets[position + 1]]
            try:
                source.fill(target, opened[digest], spans[position])
            except ItemError as error:
                raise InputError(
                    f"video {names[digest]!r}: {error} Run embed again for it, or leave it out."
                ) from error

        list(pool.map(fill, range(len(opened)), opened))
    return FeatureBank(torch.from_numpy(block), offsets, spans, tuple(opened))


def _empty(shape: tuple[int, ...], dtype: np.dtype[Any], *, memory_bytes: int, scratch: Path) -> npt.NDArray[Any]:
    num_bytes = math.prod(shape) * dtype.itemsize
    if num_bytes <= memory_bytes:
        return np.empty(shape, dtype=dtype)
    scratch.parent.mkdir(parents=True, exist_ok=True)
    with named(scratch), scratch.open("wb") as file:
        # A full disk is told of here; found out while writing to the mapping, it ends the process without a word.
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, num_bytes)
        else:  # macOS
            file.truncate(num_bytes)
    return np.memmap(scratch, dtype=dtype, mode="r+", shape=shape)
