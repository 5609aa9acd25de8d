"""What decoding processes do with a frame store: write a video into it, whole or by shards, and stream from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from reelwright.stages.decode.geometry import Geometry
from reelwright.stages.decode.rows import Sent, apply_steps, batches, check_complete, chunk, opened_needed, reading
from reelwright.stages.sampling.needed import Needed
from reelwright.storage.errors import ItemError
from reelwright.storage.frame_writer import FrameWriter, SharedFrames
from reelwright.storage.frames import FrameLayout, FrameStore

STORE_BATCH_ROWS = 8


def stream_stored(
    *,
    store: str,
    digest: str,
    geometry: Any,
    chunk_rows: int,
    start_row: int,
    stop_row: int | None = None,
    needed: Any = None,
) -> Iterator[Sent]:
    """As `stream_video`, from the frame store."""
    rows = FrameStore(Path(store)).rows(digest)
    step = Geometry.from_plain(geometry) if geometry else None
    if needed is not None:
        wanted = Needed.from_plain(needed).frames(rows.num_rows)
        yield opened_needed(rows.times)
        times = rows.times.take(wanted)
        for start in range(0, len(wanted), chunk_rows):
            part = wanted[start : start + chunk_rows]
            yield chunk(times, apply_steps(rows.take(part), [step]), start, start + len(part))
        return
    yield {"event": "opened", "num_rows": rows.num_rows, "start_row": start_row}, []
    end = rows.num_rows if stop_row is None else min(stop_row, rows.num_rows)
    for start in range(start_row, end, chunk_rows):
        stop = min(start + chunk_rows, end)
        frames = rows.read(start, stop)
        yield chunk(rows.times, apply_steps(frames, [step]), start, stop)


def store_video(
    *, path: str, config: Mapping[str, Any], backend: str, num_threads: int, store: str, digest: str
) -> Iterator[Sent]:
    """Decode into the frame store; send the number of rows written now and then, at the end the bytes."""
    damage: ItemError | None = None
    with reading(path, config, backend=backend, num_threads=num_threads) as (reader, settings, times):
        yield {"event": "opened", "num_rows": times.num_rows}, []
        layout = FrameLayout(settings.codec, settings.quality)
        with FrameWriter(Path(store), digest, times, layout, tag=backend) as writer:
            start = writer.num_rows  # after what a killed process left
            if start:
                yield {"event": "rows", "rows": start}, []
            try:
                steps = [Geometry.of(settings)]
                for frames in batches(reader, times.source_frame, steps, STORE_BATCH_ROWS, start=start):
                    writer.append(frames)
                    yield {"event": "rows", "rows": len(frames)}, []
                check_complete(reader, settings)
            except ItemError as error:
                if error.status != "truncated" or not writer.num_rows:
                    raise
                damage = error
            num_bytes = writer.commit()
        yield {"event": "stored", "rows": writer.num_rows, "bytes": num_bytes}, []
    if damage is not None:
        raise damage


def share_video(
    *,
    path: str,
    config: Mapping[str, Any],
    backend: str,
    num_threads: int,
    store: str,
    digest: str,
    start: int,
    stop: int,
) -> Iterator[Sent]:
    """Decode shards [start, stop) of a video that several processes write; none: begin it, by its first frame."""
    with reading(path, config, backend=backend, num_threads=num_threads) as (reader, settings, times):
        yield {"event": "opened", "num_rows": times.num_rows}, []
        check_complete(reader, settings)
        shared, steps = SharedFrames(Path(store), digest, tag=backend), [Geometry.of(settings)]
        if start == stop:
            first = next(batches(reader, times.source_frame[:1], steps, 1, start=0))
            shared.begin(times, (first.shape[1], first.shape[2]))
            return
        if shared.num_rows != times.num_rows:
            raise ItemError("changed", f"{times.num_rows} rows, but its arrays were made for {shared.num_rows}")
        rows = shared.shard_rows
        shards = batches(reader, times.source_frame[: stop * rows], steps, rows, start=start * rows)
        for index, frames in enumerate(shards, start=start):
            shared.write_shard(index, frames)
