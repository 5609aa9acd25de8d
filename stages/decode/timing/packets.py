"""Reading a frame index off a file: its packets, and its first frame; and the stream as FFmpeg's command opens it.

What packets cannot tell (`_doubt`) is not guessed: such an index stays unknown until the file was decoded once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from reelwright.stages.decode.timing.bitstream import is_random_access, is_shown, may_have_fields
from reelwright.stages.decode.timing.endings import find_cut
from reelwright.stages.decode.timing.index import (
    MATROSKA,
    MP4,
    FrameIndex,
    Ticks,
    gap_notes,
    is_turned,
    keep_index,
    load_index,
)
from reelwright.stages.decode.timing.timeline import Timeline, guess_step
from reelwright.storage.errors import ItemError

# Codecs of which a packet in MP4 or Matroska is one frame (H.264 without fields, VP8 and VP9 if shown: `bitstream`).
_FRAME_A_PACKET = frozenset(
    {"h264", "hevc", "vp8", "vp9", "av1", "mjpeg", "png", "prores", "dnxhd", "ffv1", "huffyuv", "ffvhuff", "utvideo"}
    | {"qtrle", "rawvideo", "jpeg2000", "cfhd", "magicyuv"}
)
_COVER = 0x400  # AV_DISPOSITION_ATTACHED_PIC
_GENPTS = 1 << 0  # AVFMT_FLAG_GENPTS
_OUTPUT_CORRUPT = 1 << 3  # AV_CODEC_FLAG_OUTPUT_CORRUPT
_REORDERING = frozenset({"h264", "hevc"})


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
    turned = is_turned(matrix)
    covers = sum(bool(int(getattr(each, "disposition", 0)) & _COVER) for each in container.streams.video)
    height, width = (first.width, first.height) if turned else (first.height, first.width)
    aspect = float(stream.sample_aspect_ratio or 1) or 1.0
    fps = float(stream.average_rate or stream.guessed_rate or 0)
    common = FrameIndex(
        tick_seconds=tick_seconds,
        num_packets=len(packets.pts),
        stream_index=stream.index,
        num_streams=max(1, len(container.streams.video) - covers),
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


def display_matrix(frame: Any) -> tuple[int, ...] | None:
    """The nine entries of a PyAV frame's display matrix, None where there is none or it turns nothing."""
    from av.sidedata.sidedata import Type

    side = frame.side_data.get(Type.DISPLAYMATRIX)
    if side is None:
        return None
    matrix = tuple(int(entry) for entry in np.frombuffer(bytes(side), "<i4"))
    return None if matrix[0] > 0 and matrix[4] > 0 and matrix[1] == matrix[3] == 0 else matrix


def _text(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error)
