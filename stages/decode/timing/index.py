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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from reelwright.stages.decode.reader import FrameTimes
from reelwright.stages.decode.timing.bitstream import is_random_access, is_shown, may_have_fields
from reelwright.stages.decode.timing.endings import find_cut
from reelwright.stages.decode.timing.timeline import GAP_SECONDS, Timeline, guess_step
from reelwright.storage.errors import ItemError

SCHEMA = 1  # of the files; another one is made anew
MP4, MATROSKA = "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"
# Codecs of which a packet in MP4 or Matroska is one frame (H.264 without fields, VP8 and VP9 if shown: `bitstream`).
_FRAME_A_PACKET = frozenset(
    {"h264", "hevc", "vp8", "vp9", "av1", "mjpeg", "png", "prores", "dnxhd", "ffv1", "huffyuv", "ffvhuff", "utvideo"}
    | {"qtrle", "rawvideo", "jpeg2000", "cfhd", "magicyuv"}
)
_GENPTS = 1 << 0  # AVFMT_FLAG_GENPTS
_OUTPUT_CORRUPT = 1 << 3  # AV_CODEC_FLAG_OUTPUT_CORRUPT
_REORDERING = frozenset({"h264", "hevc"})
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


class Indexed:
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
        return self.index.notes if self.index.is_known else ()


def index_of(path: Path, *, digest: str, folder: Path | None) -> FrameIndex:
    """The index kept for content ``digest`` in ``folder``, else read from the file and kept.

    Raises ItemError as `read_index`.
    """
    found = load_index(digest, folder=folder)
    if found is None:
        found = read_index(path)
        keep_index(found, digest=digest, folder=folder)
    return found


def read_index(path: Path) -> FrameIndex:
    """Read all packets of the default video stream and decode its first frame.

    Raises ItemError as `open_stream`, and `no_frames` when no frame can be decoded at all.
    """
    with open_stream(path) as (container, stream):
        packets, complaint = _read_packets(container, stream)
    with open_stream(path) as (container, stream):
        first = _first_frame(container, stream, path)
        return _summary(
            container, stream, first, packets, ended_early=find_cut(path, container.format.name) or complaint
        )


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


def _as_command_line(container: Any, stream: Any) -> None:
    """Let FFmpeg give what its command gives.

    PyAV lets it make up presentation times where there are none, from the order of decoding: wrong ones in AVI and ASF.
    Newer FFmpeg leaves out H.265 before the first key frame unless it is told otherwise.
    """
    container.flags &= ~_GENPTS
    if stream.codec_context.name == "hevc":
        stream.codec_context.flags |= _OUTPUT_CORRUPT


@contextmanager
def open_stream(path: Path) -> Iterator[tuple[Any, Any]]:
    """The PyAV container and its best video stream.

    Raises ItemError: `missing_file`, `no_permission`, `empty_file`, `not_a_video`, `no_video_stream`.
    """
    check_file(path)
    try:
        container = av.open(str(path))
    except PermissionError as error:
        raise ItemError("no_permission", f"{path} cannot be read: {error}. Change its mode or owner.") from None
    except (av.FFmpegError, ValueError) as error:
        raise ItemError(
            "not_a_video", f"{path} is no video that FFmpeg knows: {_text(error)}. Replace the file."
        ) from None
    try:
        stream = container.streams.best("video")
        if stream is None or stream.codec_context is None:
            raise ItemError("no_video_stream", f"{path} has no video stream that can be decoded. Replace the file.")
        _as_command_line(container, stream)
        yield container, stream
    finally:
        container.close()


def check_file(path: Path) -> None:
    """Raises ItemError when the file is missing, may not be read, or is empty."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise ItemError("missing_file", f"{path} is not there. Put it back, or correct the manifest.") from None
    except PermissionError as error:
        raise ItemError("no_permission", f"{path} cannot be read: {error}. Change its mode or owner.") from None
    if size == 0:
        raise ItemError("empty_file", f"{path} has 0 bytes. Copy or download it again.")


@dataclass
class _Packets:
    """What the packets say, in file order."""

    pts: list[int | None]
    dts: list[int | None]
    durations: list[int]
    is_key: list[bool]  # and decoding may begin there
    is_hidden: list[bool]
    num_corrupt: int = 0
    num_not_shown: int = 0
    num_soft_keys: int = 0  # flagged as key frames, where decoding may not begin


def _read_packets(container: Any, stream: Any) -> tuple[_Packets, str]:
    """All packets, and what ended them before the end of the file ("" where nothing did)."""
    found = _Packets([], [], [], [], [])
    codec, extradata = stream.codec_context.name, bytes(stream.codec_context.extradata or b"")
    looks_inside = container.format.name in (MP4, MATROSKA) and codec in ("vp8", "vp9")
    try:
        for packet in container.demux(stream):
            if not packet.size:
                continue
            found.pts.append(packet.pts)
            found.dts.append(packet.dts)
            found.durations.append(packet.duration or 0)
            is_key = bool(packet.is_keyframe) and is_random_access(codec, extradata, packet)
            found.is_key.append(is_key)
            found.num_soft_keys += bool(packet.is_keyframe) and not is_key
            found.is_hidden.append(bool(packet.is_discard))
            found.num_corrupt += bool(packet.is_corrupt)
            found.num_not_shown += looks_inside and not is_shown(codec, packet)
    except av.FFmpegError as error:
        return found, f"reading ends after {len(found.pts)} packets: {_text(error)}"
    return found, ""


def _first_frame(container: Any, stream: Any, path: Path) -> Any:
    reason = "the video stream has no frames"
    for packet in container.demux(stream):
        try:
            for frame in packet.decode():
                return frame
        except av.FFmpegError as error:
            reason = f"not one frame can be decoded: {_text(error)}"
    raise ItemError("no_frames", f"{path}: {reason}. Replace the file.")


def _summary(container: Any, stream: Any, first: Any, packets: _Packets, *, ended_early: str) -> FrameIndex:
    tick_seconds = stream.time_base.numerator / stream.time_base.denominator
    matrix = display_matrix(first)
    turned = matrix is not None and abs(matrix[1]) + abs(matrix[3]) > abs(matrix[0]) + abs(matrix[4])
    height, width = (first.width, first.height) if turned else (first.height, first.width)
    aspect = float(stream.sample_aspect_ratio or 1) or 1.0
    fps = float(stream.average_rate or stream.guessed_rate or 0)
    common = FrameIndex(
        tick_seconds=tick_seconds,
        num_packets=len(packets.pts),
        stream_index=stream.index,
        container=container.format.name,
        codec=stream.codec_context.name,
        average_fps=fps,
        pixel_format=first.format.name,
        height=height,
        width=width,
        matrix=matrix,
        pixel_aspect=1 / aspect if turned else aspect,
        ended_early=ended_early,
    )
    if reason := _doubt(container, stream, first, packets):
        return _estimated(common, packets, reason=reason)
    return _from_packets(common, packets)


def _doubt(container: Any, stream: Any, first: Any, packets: _Packets) -> str:
    """Why packets do not tell the frames of this file; "" where they do."""
    codec, context = stream.codec_context.name, stream.codec_context
    if container.format.name not in (MP4, MATROSKA):
        return f"packets of {container.format.name} do not tell times and frames"
    if codec not in _FRAME_A_PACKET:
        return f"a packet of {codec} is not always a frame"
    if codec == "h264" and may_have_fields(bytes(context.extradata or b"")):
        return "a packet may be a field"
    if first.interlaced_frame and codec not in ("prores", "dnxhd", "mjpeg"):
        return "the frames are interlaced"
    return _doubt_of_times(stream, packets, reorders=codec in _REORDERING and bool(context.has_b_frames))


def _doubt_of_times(stream: Any, packets: _Packets, *, reorders: bool) -> str:  # noqa: PLR0911 - one return a reason
    if packets.num_corrupt or packets.num_not_shown or None in packets.pts:
        return "packets that are damaged, not shown or without a time"
    times = np.asarray(packets.pts, np.int64)
    if not len(times) or len(np.unique(times)) < len(times):
        return "frames that share a time"
    if not packets.is_key[0] or times[0] != times.min():
        return "it does not begin with a key frame"
    if stream.frames and len(times) > stream.frames:
        return "an edit list that repeats frames"
    if reorders and bool((np.diff(times) > 0).all()) and len(times) > 1:
        return "times in the order of decoding"
    if all(packets.is_hidden):
        return "an edit list that hides all frames"
    return ""


def _estimated(common: FrameIndex, packets: _Packets, *, reason: str) -> FrameIndex:
    """An index without frames: about how many, and about how long."""
    step = guess_step(common.average_fps, common.tick_seconds)
    timeline = Timeline(tick_seconds=common.tick_seconds, step=step)
    ticks = [timeline.add(time, time) for time in (packets.pts if set(packets.dts) <= {None} else packets.dts)]
    first = ticks[0] * common.tick_seconds if ticks else 0.0
    return dataclasses.replace(
        common,
        first_seconds=first,
        end_seconds=(ticks[-1] + timeline.step) * common.tick_seconds if ticks else 0.0,
        notes=(f"frames and times are known when it has been decoded ({reason})",),
    )


def _from_packets(common: FrameIndex, packets: _Packets) -> FrameIndex:
    shown = [place for place, hidden in enumerate(packets.is_hidden) if not hidden]
    times = np.asarray(packets.pts, np.int64)
    order = np.asarray(shown)[np.argsort(times[shown])]
    ticks = times[order]
    last_ticks = packets.durations[int(order[-1])] or guess_step(common.average_fps, common.tick_seconds)
    keys = [place for place in shown if packets.is_key[place]]
    key_dts = [packets.dts[place] if packets.dts[place] is not None else packets.pts[place] for place in keys]
    sought = np.searchsorted(ticks, times[keys])
    return dataclasses.replace(
        common,
        origin="packets",
        ticks=ticks,
        first_seconds=float(ticks[0] * common.tick_seconds),
        end_seconds=float((ticks[-1] + last_ticks) * common.tick_seconds),
        key_frames=sought,
        key_dts=np.asarray(key_dts, np.int64),
        structure=_structure(times, packets),
        notes=gap_notes(ticks, common.tick_seconds),
    )


def _structure(times: Ticks, packets: _Packets) -> tuple[str, ...]:
    """What a fast backend may stumble over.

    b-frames: packets are not in the order of their times; open-gop: frames after a key frame in the file are shown
    before it; soft-keys: flagged as key frames, but decoding may not begin there (intra refresh); hidden: by an edit
    list; offset: the first frame is not shown at 0.
    """
    is_open, latest_key = False, int(times[0])
    for time, key in zip(times.tolist(), packets.is_key, strict=True):
        latest_key = max(latest_key, time) if key else latest_key
        is_open = is_open or time < latest_key
    found = {
        "b-frames": bool((np.diff(times) < 0).any()),
        "open-gop": is_open,
        "soft-keys": packets.num_soft_keys > 0,
        "hidden": any(packets.is_hidden),
        "offset": int(times[~np.asarray(packets.is_hidden)].min()) != 0,
    }
    return tuple(name for name, is_so in found.items() if is_so)


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


def display_matrix(frame: Any) -> tuple[int, ...] | None:
    """The nine entries of a PyAV frame's display matrix, None where there is none or it turns nothing."""
    for side in frame.side_data.keys():  # noqa: SIM118 - PyAV's container has no iteration over names
        if getattr(side.type, "name", "") == "DISPLAYMATRIX":
            matrix = tuple(int(entry) for entry in np.frombuffer(bytes(side), "<i4"))
            return None if matrix[0] > 0 and matrix[4] > 0 and matrix[1] == matrix[3] == 0 else matrix
    return None


def _text(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error)
