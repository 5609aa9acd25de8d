"""What decoding processes do with a video file: stream its rows. Frame stores: `store_tasks`.

No zarr is imported here: it would double the time that a process takes to start.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from reelwright.stages.decode.geometry import Geometry
from reelwright.stages.decode.readers.base import Reader
from reelwright.stages.decode.rows import Sent, batches, check_complete, chunk, opened_needed, reading
from reelwright.stages.sampling.needed import Needed
from reelwright.storage.errors import ItemError
from reelwright.storage.row_times import RowTimes


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
        for frames in batches(reader, times.source_frame[:stop_row], steps, chunk_rows, start=start_row):
            stop = start + len(frames)
            yield chunk(times, frames, start, stop)
            start = stop
        check_complete(reader, settings)


def _needed_chunks(
    reader: Reader, times: RowTimes, steps: list[Geometry | None], needed: Needed, chunk_rows: int
) -> Iterator[Sent]:
    wanted = needed.frames(times.num_rows)
    yield opened_needed(times)
    picked, start = times.take(wanted), 0
    for frames in batches(reader, picked.source_frame, steps, chunk_rows, start=0):
        yield chunk(picked, frames, start, start + len(frames))
        start += len(frames)
