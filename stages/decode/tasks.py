"""What runs inside a decoding process: rows of one video, sent to the parent or written into the frame store."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reelwright.stages.decode import geometry as geometries
from reelwright.stages.decode.config import DecodeConfig
from reelwright.stages.decode.geometry import Geometry
from reelwright.stages.decode.readers import open_reader
from reelwright.stages.decode.readers.base import Frame, Reader, span_stops
from reelwright.stages.decode.sampling import plan_rows
from reelwright.stages.sampling.needed import Needed
from reelwright.storage.errors import ItemError
from reelwright.storage.frames import FrameLayout, FrameStore, FrameWriter, RowTimes, SharedFrames

Sent = tuple[dict[str, Any], list[NDArray[Any]]]
STORE_BATCH_ROWS = 8


@contextlib.contextmanager
def reading(
    path: str, config: Mapping[str, Any], *, backend: str, num_threads: int
) -> Iterator[tuple[Reader, DecodeConfig, RowTimes]]:
    """A video opened with ``backend``, and the frame and span of every row that ``config`` (plain) asks for."""
    settings = DecodeConfig.model_validate(dict(config))
    reader = open_reader(Path(path), settings, backend=backend, num_threads=num_threads)
    try:
        yield reader, settings, planned_times(reader, settings)
    finally:
        reader.close()


def stream_video(
    *,
    path: str,
    config: Mapping[str, Any],
    backend: str,
    num_threads: int,
    geometry: Any,
    chunk_rows: int,
    start_row: int,
    stop_row: int | None = None,
    needed: Any = None,
) -> Iterator[Sent]:
    """Send `opened`, then chunks of frames from ``start_row`` up to ``stop_row``, decoded with ``backend``.

    With ``needed`` (`sampling.needed`, plain) only these rows are sent, and `opened` carries the times of all rows.
    When the file turns out to be damaged, all is sent anew: what is needed depends on how many rows there are.
    """
    with reading(path, config, backend=backend, num_threads=num_threads) as (reader, settings, times):
        steps = [Geometry.of(settings), Geometry.from_plain(geometry) if geometry else None]
        if needed is not None:
            try:
                yield from _needed_chunks(reader, times, steps, Needed.from_plain(needed), chunk_rows)
                check_complete(reader, settings)
            except ItemError as error:
                if error.cause != "no_frames" and (error.status != "truncated" or error.cause == "missing_frames"):
                    raise
            else:
                return
        yield {"event": "opened", "num_rows": times.num_rows, "start_row": start_row}, []
        start = start_row
        for frames in _batches(reader, times.source_frame[:stop_row], steps, chunk_rows, start=start_row):
            stop = start + len(frames)
            yield _chunk(times, frames, start, stop)
            start = stop
        check_complete(reader, settings)


def _needed_chunks(
    reader: Reader, times: RowTimes, steps: list[Geometry | None], needed: Needed, chunk_rows: int
) -> Iterator[Sent]:
    wanted = needed.frames(times.num_rows)
    yield _opened_needed(times)
    picked, start = _picked(times, wanted), 0
    for frames in _batches(reader, picked.source_frame, steps, chunk_rows, start=0):
        yield _chunk(picked, frames, start, start + len(frames))
        start += len(frames)


def _opened_needed(times: RowTimes) -> Sent:
    return {"event": "opened", "num_rows": times.num_rows, "start_row": 0}, [
        times.pts_seconds,
        times.stop_seconds,
        times.source_frame,
    ]


def _picked(times: RowTimes, rows: NDArray[np.int64]) -> RowTimes:
    return RowTimes(
        source_frame=times.source_frame[rows],
        pts_seconds=times.pts_seconds[rows],
        stop_seconds=times.stop_seconds[rows],
    )


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
        yield _opened_needed(rows.times)
        for start in range(0, len(wanted), chunk_rows):
            part = wanted[start : start + chunk_rows]
            yield _chunk(_picked(rows.times, wanted), _apply(rows.take(part), [step]), start, start + len(part))
        return
    yield {"event": "opened", "num_rows": rows.num_rows, "start_row": start_row}, []
    end = rows.num_rows if stop_row is None else min(stop_row, rows.num_rows)
    for start in range(start_row, end, chunk_rows):
        stop = min(start + chunk_rows, end)
        frames = rows.read(start, stop)
        yield _chunk(rows.times, _apply(frames, [step]), start, stop)


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
                for frames in _batches(reader, times.source_frame, steps, STORE_BATCH_ROWS, start=start):
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
            first = next(_batches(reader, times.source_frame[:1], steps, 1, start=0))
            shared.begin(times, (first.shape[1], first.shape[2]))
            return
        if shared.num_rows != times.num_rows:
            raise ItemError("changed", f"{times.num_rows} rows, but its arrays were made for {shared.num_rows}")
        rows = shared.shard_rows
        shards = _batches(reader, times.source_frame[: stop * rows], steps, rows, start=start * rows)
        for index, frames in enumerate(shards, start=start):
            shared.write_shard(index, frames)


def planned_times(reader: Reader, config: DecodeConfig) -> RowTimes:
    """Source frame and span of every row that ``config`` asks for."""
    source = plan_rows(reader.pts_seconds, config, end_seconds=reader.end_seconds)
    stops = span_stops(reader.pts_seconds, reader.end_seconds)
    return RowTimes(source_frame=source, pts_seconds=reader.pts_seconds[source], stop_seconds=stops[source])


def check_complete(reader: Reader, config: DecodeConfig) -> None:
    """Raises ItemError (truncated) when the header promises frames that are not there and that were asked for."""
    present = len(reader.pts_seconds)
    reaches_end = config.times is None and (config.stop is None or config.stop > reader.end_seconds)
    if reader.promised_frames > present and reaches_end:
        message = (
            f"the file is cut off: {present} of the {reader.promised_frames} frames its header promises are there."
        )
        raise ItemError("missing_frames", message, status="truncated")


def _batches(
    reader: Reader, source_frames: NDArray[np.int64], steps: list[Geometry | None], rows: int, *, start: int
) -> Iterator[geometries.Frames]:
    """(n, h, w, 3) frames from row ``start`` on after all steps; what was read before an error comes out before it."""
    batch: list[Frame] = []
    produced, reading = start, reader.read(source_frames[start:])
    while True:
        damage: ItemError | None = None
        try:
            item = next(reading, None)
        except ItemError as error:
            damage, item = error, None
        if item is not None:
            batch.append(_apply(item[1][None], steps)[0])  # at once: small frames wait, not large ones
        if batch and (item is None or len(batch) == rows):
            produced += len(batch)
            yield np.stack(batch)
            batch = []
        if damage is not None:
            raise _counted(damage, produced, len(source_frames))
        if item is None:
            return


def _counted(error: ItemError, produced: int, total: int) -> ItemError:
    if error.status != "truncated":
        return error
    if produced == 0:
        return ItemError("no_frames", f"no row could be decoded: {error}")
    return ItemError(error.cause, f"{produced} of {total} rows are there, then {error}", status="truncated")


def _apply(frames: geometries.Frames, steps: list[Geometry | None]) -> geometries.Frames:
    for step in steps:
        if step is not None:
            try:
                frames = geometries.apply(frames, step)
            except ValueError as error:
                raise ItemError("geometry", str(error)) from None
    return frames


def _chunk(times: RowTimes, frames: geometries.Frames, start: int, stop: int) -> Sent:
    spans = [times.pts_seconds[start:stop], times.stop_seconds[start:stop], times.source_frame[start:stop]]
    return {"event": "chunk", "start_row": start}, [frames, *spans]
