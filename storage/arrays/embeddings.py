"""The embedding store: rows of every video under one spec, and the span of time that each row saw.

    embeddings/<spec key>.zarr/                 attributes: spec, encoder, weights digest, preprocessing
        <video digest>/
            pooled (T, D), layer9.tokens (T, N, D), ...   one array per output, float16 or float32
            start_seconds, stop_seconds (T,) float64      half-open span of presentation time
            source_start, source_stop (T,) int64          half-open span of source frame numbers

A video is written under a hidden name, shard by shard, and gets its own name when it is complete. Which shards are
there is seen from the files themselves, so a killed run goes on at the first one that is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from reelwright.storage.arrays.spans import Spans
from reelwright.storage.arrays.zarrs import (
    array_of,
    attributes_of,
    has_item,
    open_group,
    quiet,
)
from reelwright.storage.digests import readable
from reelwright.storage.errors import StoreError, nearest
from reelwright.storage.store import backend_of
from reelwright.storage.store_errors import check_there

Rows = npt.NDArray[Any]

SPAN_DTYPES = {"start_seconds": "float64", "stop_seconds": "float64", "source_start": "int64", "source_stop": "int64"}


class EmbeddingRows:
    """The rows of one video. Arrays are read when asked for."""

    remedy = "Ask the embed node for it with `outputs`."  # where an output is not there

    def __init__(self, group: zarr.Group, *, digest: str, outputs: tuple[str, ...]) -> None:
        self.digest = digest
        self.outputs = outputs
        self._group = group

    @property
    def attributes(self) -> dict[str, Any]:
        """What was noted with this video: the versions of the libraries that made its rows."""
        return attributes_of(self._group)

    @property
    def num_rows(self) -> int:
        """T, the number of rows."""
        return int(array_of(self._group, "start_seconds").shape[0])

    @property
    def spans(self) -> Spans:
        """Where the rows lie in time: float64 seconds (T,) and int64 source frames (T,), half-open."""
        return Spans(**{name: np.asarray(array_of(self._group, name)[:]) for name in SPAN_DTYPES})

    def row_shape(self, output: str) -> tuple[int, ...]:
        """Shape of one row of ``output``: (D,), (N, D), (C, H, W) or (K,)."""
        return tuple(int(extent) for extent in self._output(output).shape[1:])

    def output(self, name: str, start: int = 0, stop: int | None = None) -> Rows:
        """Rows [start, stop) of one output, (T, ...) in the stored dtype; a copy.

        Raises StoreError for an output that was not stored, or for damaged chunks.
        """
        return self._read(name, slice(start, stop))

    def take(self, name: str, rows: Sequence[int] | npt.NDArray[np.int64], *, view: int | None = None) -> Rows:
        """The given rows of one output, in the given order; with ``view`` that one alone of stored views (T, V, ...).

        Raises as `output`.
        """
        unique, places = np.unique(np.asarray(rows, np.int64), return_inverse=True)
        found = self._read(name, unique) if view is None else self._read(name, (unique, view))
        taken: Rows = found[places]
        return taken

    def _read(self, name: str, selection: Any) -> Rows:
        array = self._output(name)
        try:
            with quiet():
                return np.asarray(array.oindex[selection])
        except (ValueError, RuntimeError, OSError) as error:
            raise StoreError(
                f"{name!r} of video {self.digest} cannot be read ({error}). Run `reelwright verify --repair`."
            ) from error

    def _output(self, name: str) -> zarr.Array[Any]:
        if name not in self.outputs:
            raise StoreError(
                f"output {name!r} is not stored for video {self.digest}.{nearest(name, self.outputs)} "
                f"Stored: {', '.join(self.outputs)}. {self.remedy}"
            )
        return array_of(self._group, name)


class EmbeddingStore:
    """One spec's embeddings, for reading. ``path`` is its Zarr group (`Store.embeddings(key)`)."""

    opens: type[EmbeddingRows] = EmbeddingRows
    missing = "no embeddings in {path}. Is it in the manifest, and did embed succeed?"

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._group = open_group(self.path)

    @property
    def spec(self) -> dict[str, Any]:
        """The attributes: spec, encoder, weights_digest, preprocessing, outputs, dtype."""
        return attributes_of(self._group)

    def digests(self) -> list[str]:
        """Digests of the videos that are complete, sorted."""
        return backend_of(self.path).items(self.path)

    def __contains__(self, digest: object) -> bool:
        return isinstance(digest, str) and not digest.startswith(".") and has_item(self.path, digest)

    def bring(self, digests: Sequence[str]) -> None:
        """Bring the rows of many videos at once where the store is in a bucket; else they come one by one when read."""
        backend_of(self.path).ensure_items(self.path, digests)

    def rows(self, digest: str) -> EmbeddingRows:
        """The rows of one video. Raises StoreError when it has none."""
        if digest not in self:
            check_there(self.path / "zarr.json")
            raise StoreError(f"video {digest!r} has {self.missing.format(path=self.path)}")
        with readable(self.path / digest / "zarr.json"):
            return self.opens(self._group[digest], digest=digest, outputs=tuple(self.spec["outputs"]))
