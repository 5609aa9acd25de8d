"""What decoding processes do with a frame store: write a video into it, whole or by shards, and stream from it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from reelwright.stages.datasets.sampling.needed import Needed
from reelwright.stages.decode.geometry import Frames
from reelwright.stages.decode.rows import CHUNK_BYTES, Batch, Sent, chunk, notes, opened, reading
from reelwright.storage.arrays.frame_writer import FrameWriter, SharedFrames
from reelwright.storage.arrays.frames import FrameLayout, FrameStore
from reelwright.storage.arrays.spans import RowTimes
from reelwright.storage.errors import ItemError

STORE_BATCH_ROWS = 8


def stream_stored(
    *,
    store: str,
    digest: str,
    chunk_rows: int,
    start_row: int,
    stop_row: int | None = None,
    needed: Any = None,
) -> Iterator[Sent]:
    """As `stream_video`, from the frame store."""
    rows = FrameStore(Path(store)).rows(digest)
    height, width = rows.frame_size
    chunk_rows = max(1, min(chunk_rows, CHUNK_BYTES // max(1, height * width * 3)))
    if needed is not None:
        wanted = Needed.from_plain(needed).frames(rows.num_rows)
        yield opened(rows.num_rows, times=rows.times)
        times = rows.times.take(wanted)
        for start in range(0, len(wanted), chunk_rows):
            part = wanted[start : start + chunk_rows]
            yield chunk(_read(partial(rows.take, part), times.take(np.arange(start, start + len(part)))), start)
        return
    yield opened(rows.num_rows, start_row)
    end = rows.num_rows if stop_row is None else min(stop_row, rows.num_rows)
    for start in range(start_row, end, chunk_rows):
        stop = min(start + chunk_rows, end)
        yield chunk(_read(partial(rows.read, start, stop), rows.times.take(np.arange(start, stop))), start)


def _read(read: Callable[[], Frames], times: RowTimes) -> Batch:
    started = time.perf_counter()
    return Batch(read(), times, time.perf_counter() - started)


def store_video(*, store: str, **source: Any) -> Iterator[Sent]:
    """Decode into the frame store; send the number of rows written now and then, at the end the bytes.

    source: the arguments of `rows.reading`.
    """
    damage: ItemError | None = None
    with reading(**source) as rows:
        yield rows.opened(0)
        layout = FrameLayout(rows.settings.codec, rows.settings.quality)
        with FrameWriter(Path(store), source["digest"], rows.times, layout, tag=source["backend"]) as writer:
            start = writer.num_rows  # after what a killed process left
            if start:
                yield {"event": "rows", "rows": start}, []
            try:
                for batch in rows.batches(STORE_BATCH_ROWS, start=start):
                    writer.append(batch.frames, batch.times)
                    yield {"event": "rows", "rows": len(batch.pictures)}, []
                rows.check_complete()
            except ItemError as error:
                if error.status != "truncated" or not writer.num_rows:
                    raise
                damage = error
            num_bytes = writer.commit()
        yield from notes(rows.reader)
        yield {"event": "stored", "rows": writer.num_rows, "bytes": num_bytes}, []
    if damage is not None:
        raise damage


def share_video(*, store: str, start: int, stop: int, **source: Any) -> Iterator[Sent]:
    """Decode shards [start, stop) of a video that several processes write; none: begin it, by its first frame.

    source: the arguments of `rows.reading`. Raises ItemError `unknown_times` for a video that must be decoded from its
    start: one process does it whole.
    """
    with reading(**source) as rows:
        yield rows.opened(0)
        if rows.times is None:
            raise ItemError("unknown_times", "its frames are not known before it has been decoded in order")
        rows.check_complete()
        shared = SharedFrames(Path(store), source["digest"], tag=source["backend"])
        if start == stop:
            first = next(rows.batches(1, stop=1)).frames
            shared.begin(rows.times, (first.shape[1], first.shape[2]))
            return
        if shared.num_rows != rows.times.num_rows:
            raise ItemError("changed", f"{rows.times.num_rows} rows, but its arrays were made for {shared.num_rows}")
        size = shared.shard_rows
        shards = rows.batches(size, start=start * size, stop=stop * size)
        for number, batch in enumerate(shards, start=start):
            shared.write_shard(number, batch.frames)
