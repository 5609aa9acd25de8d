"""The frame index of a video file: how many frames decode, when each is shown, and where decoding may begin.

    packets    MP4, MOV, Matroska, WebM: one packet is one frame with a time of its own, after checks; none is decoded
    decoded    all others (AVI, TS, MPEG-PS, ASF, FLV, fields, ...): FFmpeg's own decode in order is the only truth
    (unknown)  such a file before it was decoded once; rows are taken in the same pass, which learns the index

The truth is what FFmpeg decodes, in display order, by its best-effort timestamps. Every reader takes times and counts
from here, so that backends agree by construction. An index is kept by content digest: a file is read for it once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import uuid
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reelwright.stages.decode.reader import FrameTimes, ReadByNumber
from reelwright.stages.decode.timing.timeline import GAP_SECONDS, Timeline, guess_step
from reelwright.storage.errors import ItemError

SCHEMA = 1  # of the files; another one is made anew
MP4, MATROSKA = "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"
# Codecs and containers of which a file that was decoded once may be entered at key frames, found by their time.
_SOUGHT_BY_TIME = frozenset({"mpegts", MP4, MATROSKA})
_SOUGHT_CODECS = frozenset({"h264", "hevc", "mpeg1video", "mpeg2video", "vp8", "vp9", "av1"})

Ticks = NDArray[np.int64]
_NO_TICKS: Ticks = np.zeros(0, np.int64)
_ARRAYS = ("ticks", "key_frames", "key_dts")


@dataclass(frozen=True, kw_only=True)
class FrameIndex:
    """What is known of a file's default video stream (FFmpeg's best stream)."""

    origin: str = ""  # "packets", "decoded", or "" for frames that only decoding will tell
    ticks: Ticks = dataclasses.field(default_factory=lambda: _NO_TICKS)
    # (N,) presentation times of all frames, never descending, in units of the time base; empty while unknown
    tick_seconds: float = 1.0
    end_seconds: float = 0.0  # when the last frame leaves the screen; while unknown: about
    key_frames: Ticks = dataclasses.field(default_factory=lambda: _NO_TICKS)
    # (K,) numbers of the frames at which decoding may begin, ascending
    key_dts: Ticks = dataclasses.field(default_factory=lambda: _NO_TICKS)  # (K,) their decoding times, for seeking
    num_packets: int = 0  # of the stream: about as many frames
    first_seconds: float = 0.0  # presentation time of the first frame; while unknown: about
    stream_index: int = 0
    num_streams: int = 1  # of video, pictures of covers not counted
    container: str = ""  # FFmpeg's name of the demuxer
    codec: str = ""
    structure: tuple[str, ...] = ()  # of: b-frames, open-gop, soft-keys, hidden, offset (see `_structure`)
    average_fps: float = 0.0
    pixel_format: str = ""
    height: int = 0  # upright
    width: int = 0
    matrix: tuple[int, ...] | None = None  # display matrix, None where frames are upright as stored
    pixel_aspect: float = 1.0  # width of a pixel over its height, upright
    ended_early: str = ""  # how the file says that its end is missing; "" where it does not
    damage: str = ""  # what could not be decoded, of a file that was decoded
    notes: tuple[str, ...] = ()  # what people should know of it

    @property
    def is_known(self) -> bool:
        """Whether the times and number of frames are known."""
        return self.origin != ""

    @property
    def num_frames(self) -> int:
        """N; while unknown: about."""
        return len(self.ticks) if self.is_known else self.num_packets

    @property
    def pts_seconds(self) -> NDArray[np.float64]:
        """(N,) presentation times in seconds."""
        return np.asarray(self.ticks * self.tick_seconds, np.float64)

    @property
    def rotation(self) -> int:
        """Degrees clockwise by which stored frames are turned to be upright: 0, 90, 180 or 270."""
        if self.matrix is None:
            return 0
        a, b = self.matrix[0], self.matrix[1]
        if abs(b) > abs(a):
            return 90 if b > 0 else 270
        return 180 if a < 0 else 0

    @property
    def kind(self) -> str:
        """Container, codec, pixel format (of either range) and structure, as `proven` names them."""
        family = {MP4: "mp4", MATROSKA: "mkv"}.get(self.container, self.container)
        return " ".join([family, self.codec, self.pixel_format.replace("yuvj", "yuv"), *self.structure])

    def key_before(self, number: int) -> int:
        """The last frame at or before ``number`` at which decoding may begin; 0 where none is known."""
        place = int(np.searchsorted(self.key_frames, number, side="right")) - 1
        return int(self.key_frames[place]) if place >= 0 else 0

    def doubted(self) -> FrameIndex:
        """As before it was decoded: its packets said something else than the decoder."""
        return dataclasses.replace(self, origin="", ticks=_NO_TICKS, key_frames=_NO_TICKS, key_dts=_NO_TICKS)


class Indexed(ReadByNumber):
    """What a `Reader` of a video file says of it, by its index."""

    index: FrameIndex

    @property
    def times(self) -> FrameTimes | None:
        """See `Reader.times`."""
        return FrameTimes(self.index.pts_seconds, self.index.end_seconds) if self.index.is_known else None

    @property
    def estimated_seconds(self) -> tuple[float, float]:
        """See `Reader.estimated_seconds`."""
        return self.index.first_seconds, self.index.end_seconds

    @property
    def estimated_frames(self) -> int:
        """See `Reader.estimated_frames`."""
        return self.index.num_frames

    @property
    def damage(self) -> str:
        """See `Reader.damage`."""
        return "; ".join(filter(None, (self.index.damage, self.index.ended_early)))

    @property
    def notes(self) -> tuple[str, ...]:
        """See `Reader.notes`."""
        index = self.index
        size = f"{index.width} x {index.height}"
        several = f"the file has {index.num_streams} video streams; read is stream {index.stream_index} ({size})"
        return (*([several] if index.num_streams > 1 else []), *(index.notes if index.is_known else ()))

    def check_count(self, count: int) -> None:
        """Raises ItemError `backend_unsuited` where a backend counts other frames than the index."""
        if count != self.index.num_frames:
            message = f"counts {count} frames, the file has {self.index.num_frames}"
            raise ItemError("backend_unsuited", message)


def keep_index(index: FrameIndex, *, digest: str, folder: Path | None) -> None:
    """Keep ``index`` for the next one who opens content ``digest``; a cache, so a folder that cannot be is no error."""
    if folder is None or not digest:
        return
    path = _path(folder, digest)
    values = {field.name: getattr(index, field.name) for field in dataclasses.fields(index)}
    arrays = {name: np.diff(values.pop(name), prepend=0) for name in _ARRAYS}  # differences compress to next to nothing
    header = np.frombuffer(json.dumps({"schema": SCHEMA, **values}).encode(), np.uint8)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            np.savez_compressed(file, header=header, **arrays)
        os.replace(temporary, path)  # noqa: PTH105 - the one atomic step, named as the system call it is
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def load_index(digest: str, *, folder: Path | None) -> FrameIndex | None:
    """The index kept for content ``digest``; None where there is none, or none that can be read."""
    if folder is None or not digest:
        return None
    try:
        with _path(folder, digest).open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            header = json.loads(file["header"].tobytes())
            arrays = {name: np.cumsum(file[name], dtype=np.int64) for name in _ARRAYS}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None  # not there, or damaged: it is made again
    names = {field.name for field in dataclasses.fields(FrameIndex)} - set(_ARRAYS)
    if header.pop("schema", None) != SCHEMA or set(header) != names:
        return None
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in header.items()
    }
    return FrameIndex(**values | arrays)


def _path(folder: Path, digest: str) -> Path:
    return folder / digest[:2] / f"{digest}.npz"


def learned(
    index: FrameIndex, timeline: Timeline, keys: list[tuple[int, int]], *, last_duration: int, damage: str
) -> FrameIndex:
    """The index of a file that was decoded to its end.

    keys: (frame number, decoding time) of key frames at which decoding may begin. last_duration: ticks; 0: unknown.
    """
    ticks = np.asarray(timeline.ticks, np.int64)
    stays = last_duration if last_duration > 0 else guess_step(index.average_fps, index.tick_seconds)
    is_sought = index.codec in _SOUGHT_CODECS and index.container in _SOUGHT_BY_TIME and timeline.is_plain
    keys = keys if is_sought and bool((np.diff(ticks) > 0).all()) else []
    return dataclasses.replace(
        index,
        origin="decoded",
        ticks=ticks,
        first_seconds=float(ticks[0] * index.tick_seconds) if len(ticks) else 0.0,
        end_seconds=float((ticks[-1] + stays) * index.tick_seconds) if len(ticks) else 0.0,
        key_frames=np.asarray([number for number, _ in keys], np.int64),
        key_dts=np.asarray([dts for _, dts in keys], np.int64),
        damage=damage,
        notes=(*timeline.notes(), *gap_notes(ticks, index.tick_seconds)),
    )


def is_turned(matrix: Sequence[int] | None) -> bool:
    """Whether a display matrix makes columns of rows."""
    return matrix is not None and abs(matrix[1]) + abs(matrix[3]) > abs(matrix[0]) + abs(matrix[4])


def gap_notes(ticks: Ticks, tick_seconds: float) -> tuple[str, ...]:
    """What to say of a frame that stays on the screen for very long."""
    spans = np.diff(ticks) * tick_seconds
    if not len(spans) or spans.max() <= GAP_SECONDS:
        return ()
    at = int(spans.argmax())
    note = (
        f"frame {at} stays on the screen for {spans[at]:.1f} s (from {ticks[at] * tick_seconds:.3f} s), as the "
        f"container says; rows at a rate (fps) repeat it for so long"
    )
    return (note,)
