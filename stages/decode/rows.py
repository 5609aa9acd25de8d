"""The rows of a video as they are read: the frame and span of each, batches of frames, and what is sent of them."""

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
from reelwright.storage.errors import ItemError
from reelwright.storage.row_times import RowTimes

Sent = tuple[dict[str, Any], list[NDArray[Any]]]


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


def batches(
    reader: Reader, source_frames: NDArray[np.int64], steps: list[Geometry | None], rows: int, *, start: int
) -> Iterator[geometries.Frames]:
    """(n, h, w, 3) frames from row ``start`` on after all steps; what was read before an error comes out before it."""
    batch: list[Frame] = []
    produced, decoded = start, reader.read(source_frames[start:])
    while True:
        damage: ItemError | None = None
        try:
            item = next(decoded, None)
        except ItemError as error:
            damage, item = error, None
        if item is not None:
            batch.append(apply_steps(item[1][None], steps)[0])  # at once: small frames wait, not large ones
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


def apply_steps(frames: geometries.Frames, steps: list[Geometry | None]) -> geometries.Frames:
    """(n, h, w, 3) frames after each step. Raises ItemError (geometry) where a step does not fit them."""
    for step in steps:
        if step is not None:
            try:
                frames = geometries.apply(frames, step)
            except ValueError as error:
                raise ItemError("geometry", str(error)) from None
    return frames


def opened_needed(times: RowTimes) -> Sent:
    """What is sent first where only some rows follow: the times of all."""
    return {"event": "opened", "num_rows": times.num_rows, "start_row": 0}, [
        times.pts_seconds,
        times.stop_seconds,
        times.source_frame,
    ]


def chunk(times: RowTimes, frames: geometries.Frames, start: int, stop: int) -> Sent:
    """What is sent of rows [start, stop): their frames and times."""
    spans = [times.pts_seconds[start:stop], times.stop_seconds[start:stop], times.source_frame[start:stop]]
    return {"event": "chunk", "start_row": start}, [frames, *spans]
