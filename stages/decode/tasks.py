"""What decoding processes do with a video file: stream its rows. Frame stores: `store_tasks`.

No zarr is imported here: it would double the time that a process takes to start.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from reelwright.stages.datasets.sampling.needed import Needed
from reelwright.stages.decode.rows import CHUNK_BYTES, Sent, VideoRows, chunk, notes, opened, reading
from reelwright.storage.errors import ItemError


def stream_video(
    *,
    chunk_rows: int,
    start_row: int,
    stop_row: int | None = None,
    needed: Any = None,
    **source: Any,
) -> Iterator[Sent]:
    """Send `opened`, then chunks of frames from ``start_row`` up to ``stop_row``, of a video opened as ``source`` says.

    With ``needed`` (`sampling.needed`, plain) only these rows are sent, and `opened` carries the times of all rows.
    When the file turns out to be damaged, all is sent anew: what is needed depends on how many rows there are. At the
    end come the notes on the file. source: the arguments of `rows.reading`.
    """
    with reading(**source) as rows:
        if needed is not None:
            _learn_times(rows)
            try:
                yield from _needed_chunks(rows, Needed.from_plain(needed), chunk_rows)
                rows.check_complete()
            except ItemError as error:
                if error.cause != "no_frames" and error.status != "truncated":
                    raise
                if error.cause == "damaged_file":  # all rows that there are were known, and came
                    raise
            else:
                yield from notes(rows.reader)
                return
        yield rows.opened(start_row)
        start = start_row
        for batch in rows.batches(chunk_rows, start=start_row, stop=stop_row, most_bytes=CHUNK_BYTES):
            yield chunk(batch, start)
            start += len(batch.pictures)
        yield from notes(rows.reader)
        rows.check_complete()


def _learn_times(rows: VideoRows) -> None:
    """Decode all frames of a video whose times are not known: which rows are needed depends on how many there are."""
    if rows.times is None:
        for _ in rows.reader.frames():
            pass
        rows.plan()


def _needed_chunks(rows: VideoRows, needed: Needed, chunk_rows: int) -> Iterator[Sent]:
    assert rows.times is not None
    wanted = needed.frames(rows.times.num_rows)
    yield opened(rows.num_rows, times=rows.times)
    start = 0
    for batch in rows.take(chunk_rows, wanted=wanted, most_bytes=CHUNK_BYTES):
        yield chunk(batch, start)
        start += len(batch.pictures)
