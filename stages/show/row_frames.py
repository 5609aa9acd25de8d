"""The frames behind rows: stored ones, else decoded from the file; kept as JPEG in a temporary file, not in memory."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from reelwright.stages.base.work import InputRef, VideoItem
from reelwright.stages.decode.config import DecodeConfig
from reelwright.stages.decode.processes.attempts import Attempt, attempt_all
from reelwright.stages.evaluate.pages.frame_source import find_stage, frames_plan, source_settings
from reelwright.storage.arrays.frames import FrameRows, FrameStore
from reelwright.storage.arrays.zarrs import has_item
from reelwright.storage.bucket.download_cache import exists
from reelwright.storage.store import Store
from reelwright.storage.tables.feature_files import is_feature_file

_AT_ONCE = 16  # frames in memory
_QUALITY = 90

Frame = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]


@dataclass
class RowFrames:
    """Frames of one video in order of time."""

    note: str = ""  # why there are none, or not all
    times: list[float] = field(default_factory=list)
    _file: IO[bytes] = field(default_factory=tempfile.TemporaryFile, repr=False)
    _starts: list[int] = field(default_factory=lambda: [0], repr=False)

    def add(self, frame: Frame, time_seconds: float, *, height: int) -> None:
        """The next frame, uint8 (H, W, 3), made no higher than ``height``."""
        image = Image.fromarray(frame)
        if image.height > height:
            image = image.resize((max(1, round(image.width * height / image.height)), height), Image.Resampling.BOX)
        content = io.BytesIO()
        image.save(content, "JPEG", quality=_QUALITY)
        self._file.seek(self._starts[-1])
        self._file.write(content.getbuffer())
        self._starts.append(self._file.tell())
        self.times.append(time_seconds)

    def at(self, seconds: float) -> Image.Image:
        """The frame on screen at a time; the first one before its own time. There is one at least."""
        number = max(0, int(np.searchsorted(self.times, seconds, side="right")) - 1)
        self._file.seek(self._starts[number])
        content = self._file.read(self._starts[number + 1] - self._starts[number])
        with Image.open(io.BytesIO(content)) as image:
            return image.convert("RGB")

    def clear(self) -> None:
        """Begin again."""
        self.times.clear()
        self._starts[1:] = []

    def close(self) -> None:
        """Remove the file."""
        self._file.close()


@contextmanager
def row_frames(
    wanted: Mapping[VideoItem, Floats], *, behind: InputRef, store: Store, height: int
) -> Iterator[dict[str, RowFrames]]:
    """Frames of videos at times (ascending seconds), by video_id, as long as the block lasts; at most ``height`` high.

    ``behind`` is what was made of the frames: the decode node behind it says where they are stored, or how the files
    are read. A video of which there are no frames has a note that says why.
    """
    decode = find_stage(behind, "decode")
    group = store.frames(decode.key) if decode else None
    found = {item.video_id: RowFrames() for item in wanted}
    missing: dict[VideoItem, Floats] = {}
    try:
        for item, times in wanted.items():
            if group is not None and has_item(group, item.digest):
                _add_stored(found[item.video_id], FrameStore(group).rows(item.digest), times, height)
            elif is_feature_file(item.path):
                found[item.video_id].note = "there is a file of features, and no video"
            elif not exists(item.path):
                found[item.video_id].note = "its frames are not stored, and there is no video file any more"
            else:
                missing[item] = times
        if missing:
            _add_decoded(found, missing, settings=source_settings(behind), height=height)
        yield found
    finally:
        for frames in found.values():
            frames.close()


def _add_stored(found: RowFrames, rows: FrameRows, times: Floats, height: int) -> None:
    pts_seconds = rows.pts_seconds
    numbers = np.unique(np.maximum(np.searchsorted(pts_seconds, times, side="right") - 1, 0))
    for start in range(0, len(numbers), _AT_ONCE):
        part = numbers[start : start + _AT_ONCE]
        for frame, time in zip(rows.take(part), pts_seconds[part], strict=True):
            found.add(frame, float(time), height=height)


def _add_decoded(
    found: Mapping[str, RowFrames], wanted: Mapping[VideoItem, Floats], *, settings: Mapping[str, Any], height: int
) -> None:
    common = {**settings, "short_side": height, "materialize": False}
    configs = {item.video_id: DecodeConfig(**common, times=tuple(times.tolist())) for item, times in wanted.items()}
    for event in attempt_all(list(wanted), frames_plan(configs, chunk_rows=_AT_ONCE)):
        frames = found[event.item.video_id]
        if not isinstance(event, Attempt):
            frames.note = "" if event.status == "ok" else event.message
        elif event.body["event"] == "opened":
            frames.clear()  # another backend begins again
        elif event.body["event"] == "chunk":
            for frame, time in zip(*event.arrays[:2], strict=True):
                frames.add(frame, float(time), height=height)


def payload_items(payload: Mapping[str, Any]) -> dict[str, VideoItem]:
    """The videos of a node's payload by name, with their files as far as these are known."""
    return {
        entry["video_id"]: VideoItem(
            digest=entry["digest"],
            path=str(entry.get("path", "")) or "unknown",
            video_id=entry["video_id"],
            duration_seconds=entry.get("duration_seconds"),
        )
        for entry in payload["videos"]
    }
