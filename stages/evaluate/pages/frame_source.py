"""Where the pictures of a report come from: stored frames, else the video files, decoded in killable processes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from reelwright.stages.base.work import InputRef, VideoItem
from reelwright.stages.decode.config import DecodeConfig
from reelwright.stages.decode.processes.attempts import Attempt, Plan, attempt_all, num_workers
from reelwright.stages.decode.readers import backend_order
from reelwright.stages.decode.source import backends_of, decoding, of_item
from reelwright.stages.evaluate.pages.thumbnails import HEIGHT_PIXELS, Thumbnail, encode
from reelwright.storage.arrays.frames import FrameStore
from reelwright.storage.arrays.zarrs import has_item
from reelwright.storage.bucket.download_cache import exists
from reelwright.storage.tables.feature_files import is_feature_file

_SOURCE_SETTINGS = ("crop", "backend", "image_fps", "image_tmpl", "image_start")  # how a file is read, not which frames
_FEATURES = "No pictures: there is a file of features, and no video."
_GONE = "No pictures: the frames are not stored and the video file is not there any more."


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Pictures of one video."""

    item: VideoItem
    times: tuple[float, ...]  # seconds, ascending


@dataclass(kw_only=True)
class Pictures:
    """What was found, and why there is nothing."""

    thumbnails: list[Thumbnail] = field(default_factory=list)
    note: str = ""


def pictures(wanted: Sequence[Wanted], *, predictions: InputRef, frames: Path | None) -> dict[str, Pictures]:
    """Pictures of every video, by video_id. A video that cannot be shown has a note instead.

    frames: the frame store of the decode node that the predictions come from, None when there is none.
    """
    found = {entry.item.video_id: _stored(entry, frames) for entry in wanted}
    missing = [entry for entry in wanted if entry.times and found[entry.item.video_id] is None]
    there = [entry for entry in missing if exists(entry.item.path)]
    decodable = [entry for entry in there if not is_feature_file(entry.item.path)]
    decoded = _decoded(decodable, settings=source_settings(predictions)) if decodable else {}
    for entry in there:
        if is_feature_file(entry.item.path):
            decoded[entry.item.video_id] = Pictures(note=_FEATURES)
    empty = {entry.item.video_id: Pictures(note=_GONE) for entry in missing}
    return {name: entry or decoded.get(name) or empty.get(name, Pictures()) for name, entry in found.items()}


def find_stage(reference: InputRef, stage: str) -> InputRef | None:
    """The nearest input, at any depth, that ``stage`` made."""
    level = [reference]
    while level:
        level = [entry for ref in level for entries in ref.inputs.values() for entry in entries]
        found = next((entry for entry in level if entry.stage == stage), None)
        if found:
            return found
    return None


def source_settings(predictions: InputRef) -> dict[str, Any]:
    """How the decode node behind ``predictions`` reads its files; nothing where there is none."""
    reference = find_stage(predictions, "decode")
    config = reference.config if reference else {}
    return {name: config[name] for name in _SOURCE_SETTINGS if name in config}


def _stored(wanted: Wanted, frames: Path | None) -> Pictures | None:
    """The frame on screen at each time (the first one before its own time), each frame once; None when not stored."""
    if frames is None or not wanted.times or not has_item(frames, wanted.item.digest):
        return None  # the video's file is the other way
    rows = FrameStore(frames).rows(wanted.item.digest)
    pts_seconds = rows.pts_seconds
    chosen = np.unique(np.maximum(np.searchsorted(pts_seconds, np.asarray(wanted.times), side="right") - 1, 0))
    shown = zip(rows.take(chosen), pts_seconds[chosen], strict=True)
    return Pictures(thumbnails=[encode(frame, time_seconds=float(time)) for frame, time in shown])


def _decoded(wanted: Sequence[Wanted], *, settings: Mapping[str, Any]) -> dict[str, Pictures]:
    common = {**settings, "short_side": HEIGHT_PIXELS, "materialize": False}
    configs = {entry.item.video_id: DecodeConfig(**common, times=entry.times) for entry in wanted}
    return _collect(attempt_all([entry.item for entry in wanted], frames_plan(configs, chunk_rows=4)))


def frames_plan(configs: Mapping[str, DecodeConfig], *, chunk_rows: int) -> Plan:
    """How frames of videos are decoded, as ``configs`` say by video_id; they differ in what frames are wanted only."""
    workers = num_workers(None, len(configs))
    order = backend_order(next(iter(configs.values())).backend.removesuffix("-cuda"))  # small pictures need no GPU

    def arguments(item: VideoItem, backend: str, _attempt: int) -> dict[str, Any]:
        fixed = {"backend": backend, "chunk_rows": chunk_rows, "start_row": 0}
        return {**decoding(configs[item.video_id], workers, index=None), **fixed, **of_item(item)}

    return Plan(
        function="reelwright.stages.decode.tasks:stream_video",
        arguments=arguments,
        backends=lambda item: backends_of(item, order),
        workers=workers,
    )


def _collect(events: Iterable[Any]) -> dict[str, Pictures]:
    found: dict[str, Pictures] = {}
    for event in events:
        name = event.item.video_id
        if not isinstance(event, Attempt):
            gathered = found.setdefault(name, Pictures())
            gathered.note = "" if gathered.thumbnails else f"No pictures: {event.message}"
        elif event.body["event"] == "opened":
            found[name] = Pictures()  # another backend begins again
        elif event.body["event"] == "chunk":
            frames, start_seconds = event.arrays[:2]
            shown = zip(frames, start_seconds, strict=True)
            found[name].thumbnails += [encode(frame, time_seconds=float(time)) for frame, time in shown]
    return found
