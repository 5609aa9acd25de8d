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
from reelwright.storage.arrays.spans import Spans, join_by_time
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
    video = StoredVideo.of(stores, digest, output=output, keeps_positions=keeps_positions)
    return video.read(0, len(video)), video.spans


@dataclass(frozen=True)
class StoredVideo:
    """The joined rows of one video, read part by part."""

    spans: Spans
    videos: tuple[EmbeddingRows, ...]  # of each store
    source: _Source

    @classmethod
    def of(
        cls, stores: Sequence[EmbeddingStore], digest: str, *, output: str, keeps_positions: bool = False
    ) -> StoredVideo:
        """Raises StoreError for a video or an output that is not stored."""
        videos = tuple(store.rows(digest) for store in stores)
        source = _Source.of(stores, videos, output, keeps_positions=keeps_positions)
        return cls(videos[0].spans, videos, source)

    def __len__(self) -> int:
        return len(self.spans.start_seconds)

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Rows [start, stop), (n, D). Raises ItemError (not_finite) for NaN or infinite rows."""
        rows = np.empty((stop - start, *self.source.shape), dtype=self.source.dtype)
        self.source.fill(rows, self.videos, self.spans, start=start)
        return rows


def num_features(stores: Sequence[EmbeddingStore], output: str) -> int:
    """D of the joined rows, as the stores describe themselves.

    Raises StoreError for an output that is not stored, or rows of several views.
    """
    total = 0
    for store in stores:
        shape = stored_shape(store, output)
        _check_one_view(store)
        total += _num_features(shape)
    return total


def stored_shape(store: EmbeddingStore, output: str) -> tuple[int, ...]:
    """Of a row, of several views all of them. Raises StoreError for an output that is not stored."""
    shapes = store.spec["outputs"]
    if output not in shapes:
        raise StoreError(
            f"output {output!r} is not stored in {store.path}.{nearest(output, shapes)} "
            f"Stored: {', '.join(shapes)}. Ask the embed node for it with `outputs`."
        )
    return tuple(shapes[output])


def split_missing(stores: Sequence[EmbeddingStore], digests: Sequence[str]) -> tuple[list[str], list[str]]:
    """``digests`` that are in all stores, and those that are not."""
    for store in stores:
        store.bring(digests)
    present = [digest for digest in digests if all(digest in store for store in stores)]
    return present, sorted(set(digests) - set(present))


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
    stores: tuple[EmbeddingStore, ...]
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
        return cls(output, shapes, np.dtype(np.float16 if is_half else np.float32), tuple(stores), keeps_positions)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a joined row: (D,), or that of the one store with positions."""
        return self.row_shapes[0] if self.keeps_positions else (sum(map(_num_features, self.row_shapes)),)

    def fill(self, target: npt.NDArray[Any], videos: Sequence[EmbeddingRows], spans: Spans, *, start: int = 0) -> None:
        """Write joined rows of one video, those from ``start`` on, into ``target`` (n, D).

        ``spans`` are those of all rows of its first store. Raises StoreError for rows of several views.
        """
        for store in self.stores:
            _check_one_view(store)
        column, stop = 0, start + len(target)
        if self.keeps_positions:
            for first in range(start, stop, READ_ROWS):
                last = min(first + READ_ROWS, stop)
                target[first - start : last - start] = videos[0].output(self.output, first, last)
            _check_finite(target, start)
            return
        for position, (rows, shape) in enumerate(zip(videos, self.row_shapes, strict=True)):
            features = slice(column, column + _num_features(shape))
            column = features.stop
            if position == 0:
                for first, values in self._vectors(rows, shape, start, stop):
                    target[first - start : first - start + len(values), features] = values
            else:
                places = join_by_time(spans, rows.spans)[start:stop]
                low = int(places.min())
                parts = [values for _, values in self._vectors(rows, shape, low, int(places.max()) + 1)]
                target[:, features] = np.concatenate(parts)[places - low]
        _check_finite(target, start)

    def _vectors(
        self, rows: EmbeddingRows, shape: tuple[int, ...], start: int, stop: int
    ) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """Rows as vectors, part by part with the first row's number, so that wide outputs are never held whole."""
        if len(shape) == 1:
            yield start, rows.output(self.output, start, stop)
            return
        for first in range(start, stop, READ_ROWS):
            yield first, mean_vectors(rows.output(self.output, first, min(stop, first + READ_ROWS)))


def _num_features(shape: tuple[int, ...]) -> int:
    """Of a row of that shape: vectors (D,) and tokens (N, D) have D, maps (C, ...) have C."""
    return shape[-1] if len(shape) <= 2 else shape[0]


def _check_one_view(store: EmbeddingStore) -> None:
    if "views" in store.spec:
        raise StoreError(
            f"rows of {store.path} are {store.spec['views']} views each, of which no average is taken. Name an embed "
            "node without views."
        )


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


def _check_finite(values: npt.NDArray[Any], start: int) -> None:
    is_bad = ~np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
    if is_bad.any():
        bad, more = start + int(is_bad.argmax()), int(is_bad.sum()) - 1
        raise ItemError("not_finite", f"row {bad} of its embeddings (and {more} more) holds NaN or infinity.")
