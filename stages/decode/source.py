"""Frames of many videos as one stream of events, decoded (or read from the frame store) in killable processes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reelwright.stages.base.work import VideoItem
from reelwright.stages.datasets.sampling.needed import Needed
from reelwright.stages.decode.config import DecodeConfig
from reelwright.stages.decode.geometry import Geometry
from reelwright.stages.decode.processes.attempts import Attempt, DecodeResult, Plan, attempt_all, num_cores, num_workers
from reelwright.stages.decode.readers import backend_order
from reelwright.stages.decode.rows import applied


@dataclass(frozen=True, kw_only=True)
class _Event:
    item: VideoItem

    @property
    def digest(self) -> str:
        """Content digest of the video."""
        return self.item.digest


@dataclass(frozen=True)
class FrameTimes:
    """Of all T rows of a video, as `FrameChunk` has them of some, (T,) each."""

    start_seconds: NDArray[np.float64]
    stop_seconds: NDArray[np.float64]
    source_frame: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Opened(_Event):
    """The first event of a video that can be opened; chunks follow."""

    num_rows: int  # planned, of the whole video; a damaged one gives fewer
    backend: str
    start_row: int  # of the first chunk
    times: FrameTimes | None = None  # of all rows, where only those needed come; None: all come
    is_open: bool = False  # only the end of the video will tell how many rows there are; num_rows is about right


@dataclass(frozen=True, kw_only=True)
class FrameChunk(_Event):
    """Rows [start_row, start_row + n) of a video; where only some are needed, counted among these."""

    start_row: int
    frames: NDArray[np.uint8]  # (n, h, w, 3) RGB
    start_seconds: NDArray[np.float64]  # (n,) presentation time of the frame
    stop_seconds: NDArray[np.float64]  # (n,) presentation time of the next source frame; of the last: its end
    source_frame: NDArray[np.int64]  # (n,) number of the frame in the video
    decode_seconds: float = 0.0  # that a process took for these rows
    preprocess_seconds: float = 0.0  # the same, of resize and crop

    @property
    def pts_seconds(self) -> NDArray[np.float64]:
        """(n,) presentation times, the same as start_seconds."""
        return self.start_seconds


@dataclass(frozen=True, kw_only=True)
class Restarted(_Event):
    """Another backend begins again at row 0: throw away all that came of this video. Chunks follow."""

    num_rows: int
    backend: str
    start_row: int = 0
    times: FrameTimes | None = None  # as in Opened
    is_open: bool = False  # the same


@dataclass(frozen=True, kw_only=True)
class Ended(_Event, DecodeResult):
    """The last event of every video; the only one of a video that cannot be opened.

    Rows that came are good where status is ok or truncated.
    """

    num_rows: int  # of the video that came, those before start_row counted


def stream_frames(
    items: Sequence[VideoItem],
    *,
    decode: DecodeConfig,
    frames_store: Path | None,
    geometry: Geometry | None,
    workers: int | None,
    chunk_rows: int = 32,
    start_rows: Mapping[str, int] | None = None,
    needed: Needed | None = None,
    stop_rows: Mapping[str, int] | None = None,
    index: Path | None = None,
) -> Iterator[Opened | FrameChunk | Restarted | Ended]:
    """Yield the frames of all ``items``; events of several videos interleave, those of one come in order.

    decode: which frames, at which size. frames_store: read the rows stored there instead of decoding. geometry: applied
    after that of ``decode``, in threads of this process. workers: processes; None: one per core, at most 8. chunk_rows:
    rows of a chunk, at most. start_rows: by digest, the first row wanted of a long video (the same frames come as from
    the start); a backend that takes over from one that failed begins at row 0. stop_rows: by digest, the row before
    which to end. needed: only these rows of each video come (of a damaged one all); backends decode no more than leads
    to them. index: the folder where frame indexes are kept by digest. At most two chunks per worker are held ready.
    Closing the generator kills the processes. Raises ConfigError for a backend that is not installed.
    """
    shared: dict[str, Any] = {"chunk_rows": chunk_rows}
    if needed is not None:
        shared["needed"] = needed.to_plain()
    wanted = _Wanted(start_rows or {}, stop_rows or {})
    if frames_store is not None:
        plan = _stored_plan(frames_store, shared, wanted, num_workers(workers, len(items)))
    else:
        plan = _decoding_plan(decode, shared, wanted, num_workers(workers, len(items)), index=index)
    return _events(items, plan if geometry is None else replace(plan, through=partial(_seen, geometry)))


def _seen(geometry: Geometry, body: dict[str, Any], arrays: list[NDArray[Any]]) -> list[NDArray[Any]]:
    """The arrays of a message, frames resized and cropped here, where they need no second way between processes.

    Raises ItemError (geometry) for frames that cannot be: so long that nothing is left of their short side.
    """
    if body["event"] != "chunk":
        return arrays
    started = time.perf_counter()
    frames = applied(arrays[0], geometry)
    body["seconds"][1] += time.perf_counter() - started
    return [frames, *arrays[1:]]


@dataclass(frozen=True)
class _Wanted:
    """The rows wanted of videos that are not wanted whole, by digest."""

    starts: Mapping[str, int]
    stops: Mapping[str, int]

    def of(self, item: VideoItem, broken: int) -> dict[str, int | None]:
        """The first row and the one before which to end; from the start where an attempt was broken off."""
        start = 0 if broken else self.starts.get(item.digest, 0)
        return {"start_row": start, "stop_row": self.stops.get(item.digest)}


def decoding(config: DecodeConfig, workers: int, *, index: Path | None) -> dict[str, Any]:
    """The arguments of a task that are the same for every video. index: where frame indexes are kept."""
    return {
        "config": config.model_dump(mode="json"),
        "num_threads": max(1, num_cores() // workers),
        "index": None if index is None else str(index),
    }


def of_item(item: VideoItem) -> dict[str, Any]:
    """The arguments of a task that say which video."""
    return {"path": item.path, "digest": item.digest, "stamp": item.stamp}


def backends_of(item: VideoItem, order: Sequence[str]) -> Sequence[str]:
    """A folder (of images, of stored frames) is read in one way only; which one is seen when it is opened."""
    return ["images"] if Path(item.path).is_dir() else order


def _decoding_plan(
    config: DecodeConfig, shared: dict[str, Any], wanted: _Wanted, workers: int, *, index: Path | None
) -> Plan:
    common = {**shared, **decoding(config, workers, index=index)}
    orders = {is_range: backend_order(config.backend, is_range=is_range) for is_range in (False, True)}

    def arguments(item: VideoItem, backend: str, broken: int) -> dict[str, Any]:
        return {**common, **wanted.of(item, broken), **of_item(item), "backend": backend}

    return Plan(
        function="reelwright.stages.decode.tasks:stream_video",
        arguments=arguments,
        backends=lambda item: backends_of(item, orders[item.digest in wanted.stops]),
        workers=workers,
        timeout_seconds=config.timeout_seconds,
    )


def _stored_plan(store: Path, shared: dict[str, Any], wanted: _Wanted, workers: int) -> Plan:
    def arguments(item: VideoItem, _backend: str, broken: int) -> dict[str, Any]:
        return {**shared, **wanted.of(item, broken), "store": str(store), "digest": item.digest}

    return Plan(
        function="reelwright.stages.decode.store_tasks:stream_stored",
        arguments=arguments,
        backends=lambda _item: ["store"],
        workers=workers,
    )


def _events(items: Sequence[VideoItem], plan: Plan) -> Iterator[Opened | FrameChunk | Restarted | Ended]:
    opened: set[int] = set()
    rows: dict[int, int] = {}  # by id of the item: two names may share one digest
    for event in attempt_all(items, plan):
        if isinstance(event, Attempt):
            if event.body["event"] == "opened":
                yield _opening(event, is_first=id(event.item) not in opened)
                opened.add(id(event.item))
            elif event.body["event"] == "chunk":
                chunk = _chunk(event)
                rows[id(event.item)] = chunk.start_row + len(chunk.frames)
                yield chunk
        else:
            yield _ended(event, rows.pop(id(event.item), 0))


def _opening(event: Attempt, *, is_first: bool) -> Opened | Restarted:
    num_rows, start = int(event.body["num_rows"]), int(event.body["start_row"])
    times = FrameTimes(*event.arrays) if event.arrays else None
    how: dict[str, Any] = {"times": times, "is_open": bool(event.body["is_open"])}
    if not is_first:
        return Restarted(item=event.item, num_rows=num_rows, backend=event.backend, **how)
    return Opened(item=event.item, num_rows=num_rows, backend=event.backend, start_row=start, **how)


def _chunk(event: Attempt) -> FrameChunk:
    frames, start_seconds, stop_seconds, source_frame = event.arrays
    decode_seconds, preprocess_seconds = event.body["seconds"]
    return FrameChunk(
        item=event.item,
        start_row=int(event.body["start_row"]),
        frames=frames,
        start_seconds=start_seconds,
        stop_seconds=stop_seconds,
        source_frame=source_frame,
        decode_seconds=decode_seconds,
        preprocess_seconds=preprocess_seconds,
    )


def _ended(outcome: DecodeResult, num_rows: int) -> Ended:
    return Ended(**vars(outcome), num_rows=num_rows)
