"""Frames of videos for people to look at: stored ones, else decoded from the files, in processes that can be killed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from reelwright.stages.base.work import InputRef, VideoItem
from reelwright.stages.decode.config import DecodeConfig
from reelwright.stages.decode.geometry import Frames
from reelwright.stages.decode.source import Ended, Events, FrameChunk, Restarted, stream_frames
from reelwright.stages.evaluate.pages.thumbnails import HEIGHT_PIXELS, Frame, Thumbnail, encode
from reelwright.storage.arrays.frames import FrameRows, FrameStore
from reelwright.storage.arrays.spans import FloatArray
from reelwright.storage.arrays.zarrs import has_item
from reelwright.storage.bucket.download_cache import exists
from reelwright.storage.errors import ItemError
from reelwright.storage.store import Store
from reelwright.storage.tables.feature_files import is_feature_file

_SOURCE_SETTINGS = ("crop", "backend", "image_fps", "image_tmpl", "image_start")  # how a file is read, not which frames
Times = Sequence[float] | FloatArray  # ascending seconds
_AT_ONCE = 16  # frames in memory


class FrameTaker(Protocol):
    """What takes the frames of one video in order of time."""

    note: str  # why there are none, or not all

    def add(self, frame: Frame, time_seconds: float) -> None:
        """The next one, uint8 (H, W, 3)."""

    def clear(self) -> None:
        """Begin again: another backend gives all from the first on."""


@dataclass(kw_only=True)
class Pictures:
    """A `FrameTaker`: small pictures of one video, and why there is none."""

    thumbnails: list[Thumbnail] = field(default_factory=list)
    note: str = ""

    def add(self, frame: Frame, time_seconds: float) -> None:
        """See `FrameTaker`."""
        self.thumbnails.append(encode(frame, time_seconds=time_seconds))

    def clear(self) -> None:
        """See `FrameTaker`."""
        self.thumbnails.clear()


def pictures(wanted: Mapping[VideoItem, Times], *, predictions: InputRef, store: Store) -> dict[str, Pictures]:
    """Pictures of every video at some times (ascending seconds), by video_id; of one without any, why there is none."""
    found = {item.video_id: Pictures() for item in wanted}
    take_frames(wanted, found, behind=predictions, store=store, height=HEIGHT_PIXELS)
    for entry in found.values():
        entry.note = f"No pictures: {entry.note}" if entry.note and not entry.thumbnails else ""
    return found


def take_frames(
    wanted: Mapping[VideoItem, Times],
    takers: Mapping[str, FrameTaker],
    *,
    behind: InputRef,
    store: Store,
    height: int,
) -> None:
    """Give the takers, by video_id, the frames on screen at some times (ascending seconds), each frame once.

    ``behind`` is what was made of the frames: the decode node behind it says where they are stored, or how the files
    are read; decoded ones have a short side of ``height`` pixels. What is shown at a time before the first frame is
    the first. A taker of which there are no frames, or not all, has a note that says why.
    """
    decode = find_stage(behind, "decode")
    group = store.frames(decode.key) if decode else None
    missing: dict[VideoItem, Times] = {}
    for item, times in wanted.items():
        taker = takers[item.video_id]
        if not len(times):
            continue
        if group is not None and has_item(group, item.digest):
            _add_stored(taker, FrameStore(group).rows(item.digest), times)
        elif is_feature_file(item.path):
            taker.note = "there is a file of features, and no video"
        elif not exists(item.path):
            taker.note = "its frames are not stored, and there is no video file any more"
        else:
            missing[item] = times
    source = source_settings(behind)
    for event in decoded_frames(list(missing), source, height=height, times=missing) if missing else ():
        taker = takers[event.item.video_id]
        match event:
            case Restarted():
                taker.clear()
            case FrameChunk():
                _add(taker, event.frames, event.times.pts_seconds)
            case Ended():
                taker.note = "" if event.status == "ok" else event.message


def decoded_frames(
    items: Sequence[VideoItem],
    source: Mapping[str, Any],
    *,
    height: int,
    fps: float | None = None,
    times: Mapping[VideoItem, Times] | None = None,
) -> Events:
    """Frames of video files whose short side has ``height`` pixels: so many a second, or those at some times.

    ``source`` are settings of decode that say how files are read.
    """
    decode = DecodeConfig(**source, short_side=height, fps=fps, materialize=False)
    decode = decode.model_copy(update={"backend": decode.backend.removesuffix("-cuda")})  # small pictures need no GPU
    return stream_frames(
        items,
        decode=decode,
        frames_store=None,
        geometry=None,
        workers=None,
        chunk_rows=_AT_ONCE,
        times=None if times is None else {item.video_id: [*map(float, each)] for item, each in times.items()},
    )


def frames_at(item: VideoItem, times: Sequence[float], *, short_side: int) -> list[tuple[float, Frame]]:
    """(time, frame) of the frames on screen at ``times`` (ascending seconds), each frame once, uint8 (H, W, 3).

    Raises ItemError when no backend can decode the video.
    """
    found: dict[float, Frame] = {}
    for event in decoded_frames([item], {}, height=short_side, times={item: times}):
        match event:
            case Restarted():
                found.clear()
            case FrameChunk():
                found |= zip(event.times.pts_seconds.tolist(), map(np.array, event.frames), strict=True)
            case Ended() if not found:
                raise ItemError(event.cause, event.message, status=event.status)
    return list(found.items())


def _add_stored(taker: FrameTaker, rows: FrameRows, times: Times) -> None:
    numbers = np.unique(np.maximum(np.searchsorted(rows.pts_seconds, times, side="right") - 1, 0))
    for part in np.split(numbers, range(_AT_ONCE, len(numbers), _AT_ONCE)):
        _add(taker, rows.take(part), rows.pts_seconds[part])


def _add(taker: FrameTaker, frames: Frames, seconds: Iterable[float]) -> None:
    for frame, time_seconds in zip(frames, seconds, strict=True):
        taker.add(frame, float(time_seconds))


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


def items_of(payload: Mapping[str, Any], digests: Mapping[str, str]) -> dict[str, VideoItem]:
    """Videos by name, whose digests are given, with their files as far as a node's payload knows them."""
    known = {item.digest: item for item in payload_items(payload).values()}
    return {
        name: known.get(digest, VideoItem(digest, "unknown", name))._replace(video_id=name)
        for name, digest in digests.items()
    }


def payload_items(payload: Mapping[str, Any]) -> dict[str, VideoItem]:
    """The videos of a node's payload by name, with their files as far as these are known."""
    return {
        entry["video_id"]: VideoItem(
            digest=entry["digest"],
            path=str(entry.get("path", "")) or "unknown",
            video_id=entry["video_id"],
            duration_seconds=entry.get("duration_seconds"),
        )
        for entry in payload.get("videos", ())
    }
