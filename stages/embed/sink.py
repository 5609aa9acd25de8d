"""Where rows go: the protocol, a sink in memory, and the sink that writes the embedding store."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from reelwright.stages.base.work import Reporter
from reelwright.storage.arrays.embedding_writer import EmbeddingWriter
from reelwright.storage.arrays.embeddings import SPAN_DTYPES
from reelwright.storage.arrays.spans import Spans
from reelwright.storage.errors import ItemError
from reelwright.storage.ledger.items import ItemLedger, ItemRow

Rows = npt.NDArray[Any]


@dataclass(frozen=True)
class OutputRows:
    """Consecutive rows of one video out of the encoder, beginning at row ``start``."""

    start: int
    outputs: Mapping[str, Rows]  # (n, ...) in the stored dtype
    spans: Spans  # (n,)


class RowSink(Protocol):
    """Takes the rows of many videos; those of one video come in order. All calls come from one thread.

    begin -> rows ... -> finish, or -> discard (another attempt begins anew, or the video fails), or fail.
    """

    def start_row(self, digest: str) -> int:
        """The row at which work on this video may go on; 0 for all of it. Asked before anything else."""

    def begin(self, digest: str, *, num_rows: int | None) -> int:
        """A video was opened that has at most ``num_rows`` (None: only its end tells); returns where it goes on."""

    def rows(self, digest: str, rows: OutputRows) -> None:
        """The next rows. May raise ItemError: the video then fails."""

    def discard(self, digest: str) -> None:
        """What came of this video is void."""

    def finish(self, row: ItemRow) -> None:
        """All rows of a video have come; ``row.rows`` of them in all."""

    def fail(self, row: ItemRow) -> None:
        """The video could not be done, and what came of it was discarded."""


class MemorySink:
    """Keeps all rows in memory: for prediction over frames, and for tests."""

    def __init__(self) -> None:
        self.items: dict[str, ItemRow] = {}
        self._parts: dict[str, list[OutputRows]] = {}

    def start_row(self, digest: str) -> int:  # noqa: ARG002 - the protocol's
        """Always from the start."""
        return 0

    def begin(self, digest: str, *, num_rows: int | None) -> int:  # noqa: ARG002 - the protocol's
        """Open a video."""
        self._parts[digest] = []
        return 0

    def rows(self, digest: str, rows: OutputRows) -> None:
        """Keep the rows. Raises ItemError for values that are not finite."""
        check_finite(rows)
        self._parts[digest].append(rows)

    def discard(self, digest: str) -> None:
        """Forget the rows."""
        self._parts[digest] = []

    def finish(self, row: ItemRow) -> None:
        """Note that the video is complete."""
        self.items[row.digest] = row

    def fail(self, row: ItemRow) -> None:
        """Note why there are no rows."""
        self.items[row.digest] = row

    def take(self, digest: str) -> OutputRows:
        """All rows of a finished video as one, and forget them."""
        parts = self._parts.pop(digest)
        outputs = {name: np.concatenate([part.outputs[name] for part in parts]) for name in parts[0].outputs}
        return OutputRows(parts[0].start, outputs, Spans.join([part.spans for part in parts]))


class _Shard:
    """The shard of one video that is being filled."""

    def __init__(self, *, start: int, capacity: int) -> None:
        self.start = start
        self.capacity = capacity
        self.filled = 0
        self._arrays: dict[str, Rows] = {}

    def take(self, rows: OutputRows, offset: int) -> int:
        """Copy rows from ``offset`` on until the shard is full; returns how many."""
        count = min(len(rows.spans.start_seconds) - offset, self.capacity - self.filled)
        for name, values in {**rows.outputs, **{name: getattr(rows.spans, name) for name in SPAN_DTYPES}}.items():
            if name not in self._arrays:
                self._arrays[name] = np.empty((self.capacity, *values.shape[1:]), dtype=values.dtype)
            self._arrays[name][self.filled : self.filled + count] = values[offset : offset + count]
        self.filled += count
        return count

    def write(self, writer: EmbeddingWriter, digest: str, shard_rows: int) -> None:
        """Write what is filled as one shard."""
        filled = {name: values[: self.filled] for name, values in self._arrays.items()}
        spans = Spans(*(filled.pop(name) for name in SPAN_DTYPES))
        writer.write_shard(digest, self.start // shard_rows, arrays=filled, spans=spans)


class ShardFiller:
    """Collects the rows of videos into shards, and writes each shard when it is full."""

    def __init__(self, writer: EmbeddingWriter) -> None:
        self._writer = writer
        self._shards: dict[str, _Shard] = {}
        self._num_rows: dict[str, int | None] = {}
        self._seconds: dict[str, float] = {}  # of writing, by video

    def go_on(self, digest: str, *, start: int, num_rows: int | None) -> None:
        """The rows of a video of ``num_rows`` (None: of any number) come from ``start`` on, the start of a shard."""
        self._num_rows[digest] = num_rows
        self._shards[digest] = self._shard(digest, start)

    def rows(self, digest: str, rows: OutputRows) -> None:
        """Fill shards and write those that are full. Raises ItemError for values that are not finite."""
        check_finite(rows)
        offset, count = 0, len(rows.spans.start_seconds)
        while offset < count:
            shard = self._shards[digest]
            if shard.capacity == 0:
                raise ItemError(
                    "more_rows",
                    f"more than the {self._num_rows[digest]} rows that were announced came out of this video",
                )
            offset += shard.take(rows, offset)
            if shard.filled == shard.capacity:
                self._write(digest, shard)
                self._shards[digest] = self._shard(digest, shard.start + shard.filled)

    def _write(self, digest: str, shard: _Shard, *, is_last: bool = False) -> None:
        started = time.perf_counter()
        if self._num_rows[digest] is None:  # arrays as long as the rows that are there, so that short ones stay small
            self._writer.reach(digest, num_rows=shard.start + shard.filled, is_last=is_last)
        shard.write(self._writer, digest, self._writer.shard_rows(digest))
        self._seconds[digest] = self._seconds.get(digest, 0.0) + time.perf_counter() - started

    def _shard(self, digest: str, start: int) -> _Shard:
        num_rows = self._num_rows[digest]
        if num_rows is None:
            return _Shard(start=start, capacity=self._writer.layout.rows_per_shard())
        return _Shard(start=start, capacity=min(self._writer.shard_rows(digest), num_rows - start))


class StoreSink(ShardFiller):
    """Writes rows into the embedding store, shard by shard, and commits each video after its data."""

    def __init__(self, writer: EmbeddingWriter, *, ledger: ItemLedger, reporter: Reporter) -> None:
        super().__init__(writer)
        self._ledger = ledger
        self._reporter = reporter

    def start_row(self, digest: str) -> int:
        """The first row that an interrupted run left undone."""
        return self._writer.resume_row(digest)

    def begin(self, digest: str, *, num_rows: int | None) -> int:
        """Make or reopen the arrays of a video; where its rows are not known, when the first shard is complete."""
        writer = self._writer
        start = writer.resume_row(digest) if num_rows is None else writer.begin(digest, num_rows=num_rows)
        self.go_on(digest, start=start, num_rows=num_rows)
        return start

    def discard(self, digest: str) -> None:
        """Remove what was written of the video."""
        self._shards.pop(digest, None)
        self._seconds.pop(digest, None)
        self._writer.discard(digest)

    def finish(self, row: ItemRow) -> None:
        """Write the last shard, publish the video, commit it."""
        shard = self._shards.pop(row.digest)
        if shard.filled:
            self._write(row.digest, shard, is_last=True)
        stored_bytes = self._writer.finish(row.digest, num_rows=row.rows)
        self._commit(replace(row, bytes=stored_bytes, write_seconds=round(self._seconds.pop(row.digest, 0.0), 3)))

    def fail(self, row: ItemRow) -> None:
        """Commit why the video has no rows."""
        self._commit(row)

    def _commit(self, row: ItemRow) -> None:
        self._ledger.commit(row)
        self._reporter.item(row)


def check_finite(rows: OutputRows) -> None:
    """Raises ItemError (not_finite) when a value is NaN or infinite, or too large for float16."""
    for name, values in rows.outputs.items():
        if not np.isfinite(values).all():
            bad = rows.start + int(np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))[0])
            raise ItemError(
                "not_finite",
                f"output {name!r} of row {bad} holds NaN or infinity as {values.dtype}. Where values are large, use "
                "dtype: float32 or precision: fp32; else the weights are damaged.",
            )
