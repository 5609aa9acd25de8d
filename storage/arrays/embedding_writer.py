"""Writing embeddings: how rows are laid out, and one spec's rows, video by video and shard by shard."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from reelwright.storage.arrays.embeddings import SPAN_DTYPES, Rows
from reelwright.storage.arrays.shards import is_cut
from reelwright.storage.arrays.spans import Spans
from reelwright.storage.arrays.zarrs import (
    ArrayLayout,
    create_array,
    create_group,
    every_chunk_written,
    partial_group,
    publish,
    quiet,
)
from reelwright.storage.files import remove
from reelwright.storage.heartbeat import check_held
from reelwright.storage.store_errors import check_there, named

SHARD_BYTES = 32 << 20  # a shard is held in memory until it is written, one for each video in work


@dataclass(frozen=True, kw_only=True)
class RowLayout:
    """How the rows of a spec are stored; what a reader must not need to know.

    Defaults measured with tests/benchmarks/bench_embedding_codecs.py (mobilenetv2_100 with ImageNet weights on real
    videos, two CPU cores, 2026-11): size over float32, and MB/s of float32 written and read in 256 KiB chunks.

                                float32 none         float16 none         float16 lz4          float16 zstd       pcodec
        pooled (516, 1280)      1.00   72   412      0.50   56   584      0.50   78   552      0.42   60   355      0.37
        map (516, 320, 7, 7)    1.00  349   689      0.50  490  1814      0.50  405   905      0.46  375   756      0.44

    float16 halves every embedding; on top of it lz4 gains nothing, zstd and pcodec 8 to 25 % at half the reading speed.
    So float16 without a codec is the default, zstd is for archives. 64 rows at random take 3.5 ms in 256 KiB chunks,
    4.7 in 64 KiB, 3.2 in 1 MiB, which wastes up to 1 MiB at the end of a video.
    """

    outputs: Mapping[str, tuple[int, ...]]  # shape of one row, by output
    dtype: str = "float16"
    dtypes: Mapping[str, str] = field(default_factory=dict)  # of outputs that have another
    axes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # names of a row's axes, where they are others
    row_axis: str = "time"
    codec: str = "none"
    chunk_bytes: int = 1 << 18  # read together
    shard_rows: int = 1024  # at most; fewer where rows are big

    def dtype_of(self, output: str) -> np.dtype[Any]:
        """How an output is stored."""
        return np.dtype(self.dtypes.get(output, self.dtype))

    def axes_of(self, output: str) -> tuple[str, ...]:
        """Names of the axes of an output's array."""
        return (self.row_axis, *self.axes.get(output, _axes(self.outputs[output])))

    def row_bytes(self, output: str) -> int:
        """Bytes of one row of an output."""
        return math.prod(self.outputs[output]) * self.dtype_of(output).itemsize

    def rows_per_shard(self) -> int:
        """Rows of one shard file: shard_rows, halved until all outputs together stay within SHARD_BYTES."""
        row_bytes = sum(map(self.row_bytes, self.outputs))
        rows = self.shard_rows
        while rows > 1 and rows * row_bytes > SHARD_BYTES:
            rows //= 2
        return rows

    def rows_per_chunk(self, output: str, *, num_rows: int) -> int:
        """Rows of one chunk, so that chunks fill the shard and the last chunk of a video is padded little.

        A video of 520 rows with 512 allowed takes two chunks of 260, not 512 and 8 (stored as 512).
        """
        row_bytes = max(1, self.row_bytes(output))
        allowed = max(1, min(self.chunk_bytes // row_bytes, self.rows_per_shard(), num_rows))
        extent = min(self.rows_per_shard(), num_rows)
        if extent == num_rows:
            return math.ceil(extent / math.ceil(extent / allowed))
        return next(rows for rows in range(allowed, 0, -1) if extent % rows == 0)


class EmbeddingWriter:
    """One spec's embeddings, for writing: begin, write_shard ..., finish for each video.

    One process writes a video, or several do, each other shards of it, after one of them has begun it.
    """

    def __init__(self, path: Path, *, layout: RowLayout, item_attributes: Mapping[str, Any]) -> None:
        self.path = path
        self.layout = layout
        self.item_attributes = dict(item_attributes)  # of videos that begin
        self._open: dict[str, dict[str, zarr.Array[Any]]] = {}
        self._begun_before: set[str] = set()  # videos that are reopened, of which nothing was written here yet

    @classmethod
    def create(
        cls,
        path: Path,
        attributes: Mapping[str, Any],
        *,
        layout: RowLayout,
        item_attributes: Mapping[str, Any] | None = None,
    ) -> EmbeddingWriter:
        """The group at ``path``, made if it is not there. ``attributes`` says whose rows these are.

        ``item_attributes`` (versions of libraries, say) go with every video and may differ between videos.

        Raises StoreError when the group holds rows of another spec, encoder or weights.
        """
        described = {**attributes, "outputs": {name: list(shape) for name, shape in layout.outputs.items()}}
        create_group(path, {**described, "dtype": layout.dtype})
        return cls(path, layout=layout, item_attributes=item_attributes or {})

    def begin(self, digest: str, *, num_rows: int) -> int:
        """Make the arrays of one video at their full size; those of an interrupted run are kept where they fit.

        Returns the first row that is not stored yet, the start of a shard (``num_rows`` when all are). Raises
        ValueError unless num_rows is positive.
        """
        if num_rows < 1:
            raise ValueError(f"a video must have at least one row, not {num_rows}")
        check_there(self.path / "zarr.json")
        with named(self.path / digest):
            arrays = self._reopen(digest, num_rows)
            if arrays is None:
                remove(partial_group(self.path, digest))
                arrays = self._create(digest, num_rows)
        self._open[digest] = arrays
        return min(num_rows, self.next_missing_shard(digest) * self.shard_rows(digest))

    def reach(self, digest: str, *, num_rows: int, is_last: bool) -> None:
        """Make or lengthen the arrays of a video whose rows are not known before they come, up to ``num_rows``.

        Without ``is_last`` these end with a whole shard, and more may follow.
        """
        length = num_rows if is_last else num_rows + 1  # one more: laid out as a video of several shards
        if digest not in self._open:
            self.begin(digest, num_rows=length)
            return
        with named(self.path / digest):
            for array in self._open[digest].values():
                array.resize((length, *array.shape[1:]))

    def resume_row(self, digest: str) -> int:
        """The row at which `begin` will go on, for a video of which an interrupted run left shards; else 0."""
        if not self.reopen(digest):
            return 0
        return min(self.num_rows(digest), self.next_missing_shard(digest) * self.shard_rows(digest))

    def reopen(self, digest: str) -> bool:
        """Open the arrays of a video that was begun before, here or in another process; whether they are there."""
        temporary = partial_group(self.path, digest)
        if not (temporary / "start_seconds" / "zarr.json").exists():
            return False
        arrays = self._reopen(digest, int(zarr.open_array(temporary / "start_seconds", mode="r").shape[0]))
        if arrays is None:
            return False
        self._open[digest] = arrays
        return True

    def shard_rows(self, digest: str) -> int:
        """Rows of a shard file of a video that was begun; the last shard may be shorter."""
        return _shard_rows(self._open[digest]["start_seconds"])

    def num_rows(self, digest: str) -> int:
        """Rows of a video that was begun, written or not."""
        return int(self._open[digest]["start_seconds"].shape[0])

    def num_shards(self, digest: str) -> int:
        """Shards of a video that was begun, written or not."""
        return math.ceil(self.num_rows(digest) / self.shard_rows(digest))

    def next_missing_shard(self, digest: str) -> int:
        """Index of the first shard of which a file is missing or cut off; `num_shards` when none is."""
        return next(self.missing_shards(digest), self.num_shards(digest))

    def missing_shards(self, digest: str) -> Iterator[int]:
        """Indices of the shards of which a file is missing or cut off, ascending."""
        arrays = self._open[digest]
        folder = partial_group(self.path, digest)
        described = {name: json.loads((folder / name / "zarr.json").read_text(encoding="utf-8")) for name in arrays}
        for index in range(self.num_shards(digest)):
            files = {name: self._shard_file(digest, name, array, index) for name, array in arrays.items()}
            if any(is_cut(path, described[name]) for name, path in files.items()):
                yield index

    def write_shard(self, digest: str, index: int, *, arrays: Mapping[str, Rows], spans: Spans) -> None:
        """Write shard ``index`` whole: rows (n, ...) of every output, and their spans.

        n is the shard's own number of rows; less only in the last shard of a video that ends early.
        """
        check_held(self.path)
        if digest in self._begun_before:
            self._note_others(digest)
        start = index * self.shard_rows(digest)
        stop = start + len(spans.start_seconds)
        for name, target in self._open[digest].items():
            remove(self._shard_file(digest, name, target, index))  # cut off; zarr would read it, and fail
            values = getattr(spans, name) if name in SPAN_DTYPES else arrays[name]
            assert len(values) == stop - start
            with quiet(), named(self.path / digest / name):
                target[start:stop] = values

    def finish(self, digest: str, *, num_rows: int) -> int:
        """Cut the video to ``num_rows`` where it ended early, and publish it. Returns its bytes on disk."""
        with named(self.path / digest):
            self._begun_before.discard(digest)
            for array in self._open.pop(digest).values():
                if array.shape[0] != num_rows:
                    array.resize((num_rows, *array.shape[1:]))
            check_there(self.path / "zarr.json")
            return publish(partial_group(self.path, digest), self.path / digest)

    def discard(self, digest: str) -> None:
        """Throw away what was written of a video that is not finished."""
        check_held(self.path)
        self._open.pop(digest, None)
        self._begun_before.discard(digest)
        remove(partial_group(self.path, digest))

    def _reopen(self, digest: str, num_rows: int) -> dict[str, zarr.Array[Any]] | None:
        temporary = partial_group(self.path, digest)
        names = (*self.layout.outputs, *SPAN_DTYPES)
        if not all((temporary / name / "zarr.json").exists() for name in names):
            return None
        with every_chunk_written(), quiet():
            arrays = {name: zarr.open_array(temporary / name, mode="r+") for name in names}
        wanted = {name: (num_rows, *shape) for name, shape in self.layout.outputs.items()}
        fits = all(arrays[name].shape == shape for name, shape in wanted.items())
        same = all(arrays[name].dtype == self.layout.dtype_of(name) for name in wanted)
        if not (fits and same and len({_shard_rows(array) for array in arrays.values()}) == 1):
            return None
        self._begun_before.add(digest)
        return arrays

    def _note_others(self, digest: str) -> None:
        """Where rows of a video were begun with other item attributes, ``also`` lists those that it goes on with."""
        self._begun_before.discard(digest)
        with quiet(), named(self.path / digest):
            group = zarr.open_group(partial_group(self.path, digest), mode="r+")
        mine, also = self.item_attributes, list(group.attrs.get("also", []))
        begun = {name: value for name, value in group.attrs.items() if name != "also"}
        if mine not in (begun, *also):
            group.attrs["also"] = [*also, mine]

    def _create(self, digest: str, num_rows: int) -> dict[str, zarr.Array[Any]]:
        shard_rows = min(self.layout.rows_per_shard(), num_rows)
        with every_chunk_written():
            group = zarr.create_group(partial_group(self.path, digest), attributes=self.item_attributes)
            arrays = {
                name: create_array(
                    group, name, self._layout(name, num_rows, shard_rows), axes=self.layout.axes_of(name)
                )
                for name in self.layout.outputs
            }
            for name, dtype in SPAN_DTYPES.items():
                spans = ArrayLayout(
                    shape=(num_rows,), dtype=np.dtype(dtype), chunk_rows=shard_rows, shard_rows=shard_rows
                )
                arrays[name] = create_array(group, name, spans, axes=(self.layout.row_axis,))
        return arrays

    def _layout(self, output: str, num_rows: int, shard_rows: int) -> ArrayLayout:
        return ArrayLayout(
            shape=(num_rows, *self.layout.outputs[output]),
            dtype=self.layout.dtype_of(output),
            chunk_rows=self.layout.rows_per_chunk(output, num_rows=num_rows),
            shard_rows=shard_rows,
            codec=self.layout.codec,
        )

    def _shard_file(self, digest: str, name: str, array: zarr.Array[Any], index: int) -> Path:
        inner = ["0"] * (array.ndim - 1)
        return partial_group(self.path, digest) / name / "c" / "/".join([str(index), *inner])


def _shard_rows(array: zarr.Array[Any]) -> int:
    # The only shard of a short video may be longer than the video, so that it holds whole chunks.
    return int(min((array.shards or array.chunks)[0], array.shape[0]))


def _axes(row_shape: tuple[int, ...]) -> tuple[str, ...]:
    inner = {1: ("feature",), 2: ("token", "feature"), 3: ("channel", "height", "width")}
    return inner.get(len(row_shape), ("channel", "time_in_clip", "height", "width"))
