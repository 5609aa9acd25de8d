"""Embeddings of all videos of a run as one contiguous block, so that a batch of windows is one index operation.

    block    |--- video 0 ---|- video 1 -|------ video 2 ------|      (R, D)
    offsets  0               17          29                    53

Rows of several stores are joined by time and concatenated along D: every row of the first store takes the row of
another store that saw its middle.

    first    | 0 | 1 | 2 | 3 | 4 | 5 |      a row a frame
    second   |     0     |     1     |      a row a clip
    joined    0,0 1,0 2,0 3,1 4,1 5,1
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from reelwright.stages.datasets.sampling.windows import IntArray, Windows, WindowShape, shown, window_rows
from reelwright.storage.arrays.embeddings import EmbeddingRows, EmbeddingStore
from reelwright.storage.arrays.spans import Spans
from reelwright.storage.errors import InputError, ItemError, StoreError, nearest
from reelwright.storage.store_errors import named

READERS = 8  # threads that read videos: on a network file system most of the time is waiting
READ_ROWS = 1024  # rows of a token or map output that are in memory while they are averaged


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
        return _num_features(tuple(self.rows.shape[1:]))

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
    source = _Source.of(stores, next(iter(opened.values())), output, keeps_positions=keeps_positions)
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


def read_video(
    stores: Sequence[EmbeddingStore], digest: str, *, output: str, keeps_positions: bool = False
) -> tuple[npt.NDArray[Any], Spans]:
    """The joined rows (T, D) of one video and their spans. Raises ItemError (not_finite) for NaN or infinite rows."""
    videos = [store.rows(digest) for store in stores]
    source, spans = _Source.of(stores, videos, output, keeps_positions=keeps_positions), videos[0].spans
    rows = np.empty((len(spans.start_seconds), *source.shape), dtype=source.dtype)
    source.fill(rows, videos, spans)
    return rows, spans


def num_features(stores: Sequence[EmbeddingStore], output: str) -> int:
    """D of the joined rows, as the stores describe themselves. Raises StoreError for an output that is not stored."""
    total = 0
    for store in stores:
        shapes = store.spec["outputs"]
        if output not in shapes:
            raise StoreError(
                f"output {output!r} is not stored in {store.path}.{nearest(output, shapes)} "
                f"Stored: {', '.join(shapes)}. Ask the embed node for it with `outputs`."
            )
        total += _num_features(tuple(shapes[output]))
    return total


def split_missing(stores: Sequence[EmbeddingStore], digests: Sequence[str]) -> tuple[list[str], list[str]]:
    """``digests`` that are in all stores, and those that are not."""
    for store in stores:
        store.bring(digests)
    present = [digest for digest in digests if all(digest in store for store in stores)]
    return present, sorted(set(digests) - set(present))


def join_by_time(first: Spans, other: Spans) -> IntArray:
    """For every row of ``first`` (T,) the row of ``other`` that saw its middle; between rows, the nearer one.

    Where several saw it (clips that overlap), the one whose own middle is nearest. Starts and stops of ``other`` must
    not decrease.
    """
    middle = (first.start_seconds + first.stop_seconds) / 2
    centres = (other.start_seconds + other.stop_seconds) / 2
    last = len(centres) - 1
    low = np.searchsorted(other.stop_seconds, middle, side="right")  # the first row that ends after the middle
    high = np.searchsorted(other.start_seconds, middle, side="right") - 1  # the last row that starts before it
    inside = np.clip(_nearest(centres, middle), low, np.maximum(low, high))
    before, after = np.clip(high, 0, last), np.clip(low, 0, last)
    is_before = middle - other.stop_seconds[before] <= other.start_seconds[after] - middle
    return np.where(low <= high, np.minimum(inside, last), np.where(is_before, before, after)).astype(np.int64)


def _nearest(sorted_values: npt.NDArray[np.float64], wanted: npt.NDArray[np.float64]) -> IntArray:
    after = np.clip(np.searchsorted(sorted_values, wanted), 0, len(sorted_values) - 1)
    before = np.maximum(after - 1, 0)
    is_before = wanted - sorted_values[before] <= sorted_values[after] - wanted
    return np.where(is_before, before, after).astype(np.int64)


def mean_vectors(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Vectors (T, D) as they are; tokens (T, N, D) and maps (T, C, ...) averaged over their positions, float32."""
    if values.ndim == 2:
        return values
    averaged: npt.NDArray[np.float32] = values.astype(np.float32).mean(
        axis=1 if values.ndim == 3 else tuple(range(2, values.ndim))
    )
    return averaged


@dataclass(frozen=True)
class _Source:
    """How the rows of all stores become vectors side by side."""

    output: str
    row_shapes: tuple[tuple[int, ...], ...]  # of one row, by store
    dtype: np.dtype[Any]  # of the joined rows
    keeps_positions: bool

    @classmethod
    def of(
        cls, stores: Sequence[EmbeddingStore], videos: Sequence[EmbeddingRows], output: str, *, keeps_positions: bool
    ) -> _Source:
        """All videos of a store have rows of one shape, so one video tells it. Raises StoreError for no such output.

        With positions, tokens and maps are not averaged; raises InputError for several stores, whose positions differ.
        """
        if keeps_positions and len(stores) > 1:
            raise InputError(
                f"the model reads positions, which {len(stores)} embeddings do not share; name one of them."
            )
        shapes = tuple(rows.row_shape(output) for rows in videos)
        is_averaged = not keeps_positions and any(len(shape) > 1 for shape in shapes)
        is_half = all(store.spec["dtype"] == "float16" for store in stores) and not is_averaged
        # float16 where that is what was stored: nothing is lost and half the memory is saved
        return cls(output, shapes, np.dtype(np.float16 if is_half else np.float32), keeps_positions)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a joined row: (D,), or that of the one store with positions."""
        return self.row_shapes[0] if self.keeps_positions else (sum(map(_num_features, self.row_shapes)),)

    def fill(self, target: npt.NDArray[Any], videos: Sequence[EmbeddingRows], spans: Spans) -> None:
        """Write the joined rows of one video into ``target`` (T, D); ``spans`` are those of its first store."""
        if self.keeps_positions:
            for start in range(0, len(target), READ_ROWS):
                target[start : start + READ_ROWS] = videos[0].output(self.output, start, start + READ_ROWS)
            _check_finite(target)
            return
        column = 0
        for position, (rows, shape) in enumerate(zip(videos, self.row_shapes, strict=True)):
            features = slice(column, column + _num_features(shape))
            column = features.stop
            if position == 0:
                for start, values in self._vectors(rows, shape):
                    target[start : start + len(values), features] = values
            else:
                whole = np.concatenate([values for _, values in self._vectors(rows, shape)])
                target[:, features] = whole[join_by_time(spans, rows.spans)]
        _check_finite(target)

    def _vectors(self, rows: EmbeddingRows, shape: tuple[int, ...]) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """Rows as vectors, part by part with the first row's number, so that wide outputs are never held whole."""
        if len(shape) == 1:
            yield 0, rows.output(self.output)
            return
        for start in range(0, rows.num_rows, READ_ROWS):
            yield start, mean_vectors(rows.output(self.output, start, start + READ_ROWS))


def _num_features(shape: tuple[int, ...]) -> int:
    """Of a row of that shape: vectors (D,) and tokens (N, D) have D, maps (C, ...) have C."""
    return shape[-1] if len(shape) <= 2 else shape[0]


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


def _check_finite(values: npt.NDArray[Any]) -> None:
    is_bad = ~np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
    if is_bad.any():
        raise ItemError(
            "not_finite",
            f"row {int(is_bad.argmax())} of its embeddings (and {int(is_bad.sum()) - 1} more) holds NaN or infinity.",
        )
