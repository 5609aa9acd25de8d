"""Frames of many videos as one stream of events, decoded (or read from the frame store) in killable processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from reelwright.stages.decode.rows import applied, row_times
from reelwright.storage.arrays.spans import RowTimes


@dataclass(frozen=True, kw_only=True)
class _Event:
    item: VideoItem

    @property
    def digest(self) -> str:
        """Content digest of the video."""
        return self.item.digest


@dataclass(frozen=True, kw_only=True)
class Opened(_Event):
    """The first event of a video that can be opened; chunks follow."""

    num_rows: int  # planned, of the whole video; a damaged one gives fewer
    backend: str
    start_row: int  # of the first chunk
    times: RowTimes | None = None  # of all rows, where only those needed come; None: all come
    is_open: bool = False  # only the end of the video will tell how many rows there are; num_rows is about right


class Restarted(Opened):
    """Another attempt begins again at row 0: throw away all that came of this video. Chunks follow."""


@dataclass(frozen=True, kw_only=True)
class FrameChunk(_Event):
    """Rows [start_row, start_row + n) of a video; where only some are needed, counted among these."""

    start_row: int
    frames: NDArray[np.uint8]  # (n, h, w, 3) RGB
    times: RowTimes  # (n,)
    decode_seconds: float = 0.0  # that a process took for these rows
    preprocess_seconds: float = 0.0  # the same, of resize and crop


@dataclass(frozen=True, kw_only=True)
class Ended(_Event, DecodeResult):
    """The last event of every video; the only one of a video that cannot be opened.

    Rows that came are good where status is ok or truncated.
    """

    num_rows: int  # of the video that came, those before start_row counted


Event = Opened | FrameChunk | Ended
Events = Iterator[Event]


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
    times: Mapping[str, Sequence[float]] | None = None,
) -> Events:
    """Yield the frames of all ``items``; events of several videos interleave, those of one come in order.

    decode: which frames, at which size. frames_store: read the rows stored there instead of decoding. geometry: applied
    after that of ``decode``, in threads of this process. workers: processes; None: one per core, at most 8. chunk_rows:
    rows of a chunk, at most. start_rows: by digest, the first row wanted of a long video (the same frames come as from
    the start); a backend that takes over from one that failed begins at row 0. stop_rows: by digest, the row before
    which to end. needed: only these rows of each video come (of a damaged one all); backends decode no more than leads
    to them. index: the folder where frame indexes are kept by digest. times: by video_id, in place of those of
    ``decode``: the frame on screen at each (ascending seconds). At most two chunks per worker are held ready.
    Closing the generator kills the processes. Raises ConfigError for a backend that is not installed.
    """
    starts, stops, count = start_rows or {}, stop_rows or {}, num_workers(workers, len(items))
    shared = {"chunk_rows": chunk_rows} | ({} if needed is None else {"needed": needed.to_plain()})
    plain = decode.model_dump(mode="json")

    def wanted(item: VideoItem, broken: int) -> dict[str, Any]:
        start = 0 if broken else starts.get(item.digest, 0)  # from the start where an attempt was broken off
        own = {} if times is None else {"config": {**plain, "times": times[item.video_id]}}
        return {**shared, "start_row": start, "stop_row": stops.get(item.digest), **own}

    if frames_store is None:
        orders = {is_range: backend_order(decode.backend, is_range=is_range) for is_range in (False, True)}
        plan = decode_plan(
            "tasks:stream_video",
            decode,
            workers=count,
            index=index,
            backends=lambda item: orders[item.digest in stops],
            also=wanted,
        )
    else:
        plan = Plan(
            function="reelwright.stages.decode.store_tasks:stream_stored",
            arguments=lambda item, _, broken: {
                **wanted(item, broken),
                "store": str(frames_store),
                "digest": item.digest,
            },
            backends=lambda _: ["store"],
            workers=count,
        )
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


def decode_plan(
    task: str,
    config: DecodeConfig,
    *,
    workers: int,
    index: Path | None,
    backends: Callable[[VideoItem], Sequence[str]],
    also: Callable[[VideoItem, int], Mapping[str, Any]],
) -> Plan:
    """How videos are decoded by ``task``, a MODULE:FUNCTION of this room.

    ``backends`` are those to try, first to last; ``also`` gives further arguments of a video, by the number of attempts
    at it that were broken off. index: where frame indexes are kept.
    """
    common = {
        "config": config.model_dump(mode="json"),
        "num_threads": max(1, num_cores() // workers),
        "index": None if index is None else str(index),
    }

    def arguments(item: VideoItem, backend: str, broken: int) -> dict[str, Any]:
        video = {"path": item.path, "digest": item.digest, "stamp": item.stamp}
        return {**common, **video, "backend": backend, **also(item, broken)}

    return Plan(
        function=f"reelwright.stages.decode.{task}",
        arguments=arguments,
        # a folder (of images, of stored frames) is read in one way only; which one is seen when it is opened
        backends=lambda item: ["images"] if Path(item.path).is_dir() else backends(item),
        workers=workers,
        timeout_seconds=config.timeout_seconds,
    )


def _events(items: Sequence[VideoItem], plan: Plan) -> Events:
    opened: set[int] = set()
    rows: dict[int, int] = {}  # by id of the item: two names may share one digest
    for event in attempt_all(items, plan):
        place = id(event.item)
        if not isinstance(event, Attempt):
            yield Ended(**vars(event), num_rows=rows.pop(place, 0))
        elif event.body["event"] == "opened":
            yield _opened(event, Restarted if place in opened else Opened)
            opened.add(place)
        elif event.body["event"] == "chunk":
            chunk = _chunk(event)
            rows[place] = chunk.start_row + len(chunk.frames)
            yield chunk


def _opened(event: Attempt, kind: type[Opened]) -> Opened:
    body, times = event.body, row_times(event.arrays) if event.arrays else None
    start, is_open = body["start_row"], body["is_open"]
    return kind(
        item=event.item, num_rows=body["num_rows"], backend=event.backend, start_row=start, times=times, is_open=is_open
    )


def _chunk(event: Attempt) -> FrameChunk:
    decode_seconds, preprocess_seconds = event.body["seconds"]
    return FrameChunk(
        item=event.item,
        start_row=event.body["start_row"],
        frames=event.arrays[0],
        times=row_times(event.arrays[1:]),
        decode_seconds=decode_seconds,
        preprocess_seconds=preprocess_seconds,
    )
