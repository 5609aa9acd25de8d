"""One pass over a file's packets: the presentation time of every frame, and what the decoders need to know.

All readers take times, counts and key frames from here, so that they agree by construction: decord and torchcodec have
their own ideas about edit lists, cut-off files and the first time stamp.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from reelwright.storage.errors import ItemError

EIGHT_BITS = frozenset({"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p"})


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What a file's packets say about its default video stream (FFmpeg's best stream)."""

    stream_index: int
    ticks: NDArray[
        np.int64
    ]  # (N,) presentation times of the frames shown, ascending, unique, in units of the time base
    tick_seconds: float
    end_seconds: float  # when the last frame leaves the screen
    key_frames: NDArray[np.int64]  # (K,) numbers of the frames at which decoding may begin
    key_dts: NDArray[np.int64]  # (K,) their decoding times, by which containers are sought
    is_closed: bool  # no frame after a key frame in the file is shown before it
    is_plain: bool  # every packet is one shown frame with a time of its own, and none is damaged
    promised_frames: int  # by the header, less those that its edit list hides; 0: it does not say
    codec: str
    average_fps: float
    pixel_format: str
    height: int  # upright
    width: int
    matrix: tuple[int, ...] | None  # display matrix, None where frames are upright as stored

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


@dataclass(frozen=True)
class _Packet:
    pts: int | None
    dts: int | None
    duration: int
    is_key: bool
    is_hidden: bool
    is_corrupt: bool


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


def scan_video(path: Path) -> Scan:
    """Read all packets of the default video stream and decode its first frame.

    Raises ItemError as `open_stream`, and `no_frames` when no frame can be decoded at all.
    """
    with open_stream(path) as (container, stream):
        packets = list(_packets(container, stream))
    with open_stream(path) as (container, stream):
        first = _first_frame(container, stream, path)
        timed = all(packet.pts is not None for packet in packets)
        shown = [packet for packet in packets if not (packet.is_hidden or packet.is_corrupt)]
        if not timed:  # MPEG program streams, some AVI: only the decoder knows
            shown = list(_decoded(container, stream, first))
        return _summary(stream, first, packets=packets, shown=shown, is_timed=timed)


def _packets(container: Any, stream: Any) -> Iterator[_Packet]:
    try:
        for packet in container.demux(stream):
            if packet.size:
                yield _Packet(
                    packet.pts,
                    packet.dts,
                    packet.duration or 0,
                    packet.is_keyframe,
                    bool(packet.is_discard),
                    bool(packet.is_corrupt),
                )
    except av.FFmpegError:
        return  # the file ends in the middle of a packet: what came before counts


def _first_frame(container: Any, stream: Any, path: Path) -> Any:
    try:
        for frame in container.decode(stream):
            return frame
    except av.FFmpegError as error:
        raise ItemError(
            "no_frames", f"{path}: not one frame can be decoded: {_text(error)}. Replace the file."
        ) from None
    raise ItemError("no_frames", f"{path}: the video stream has no frames. Replace the file.")


def _decoded(container: Any, stream: Any, first: Any) -> Iterator[_Packet]:
    """The frames themselves, in place of packets that carry no presentation times."""
    try:
        frame = first
        decoding = container.decode(stream)
        while frame is not None:
            pts = frame.pts if frame.pts is not None else frame.dts
            yield _Packet(pts, pts, getattr(frame, "duration", 0) or 0, False, False, False)
            frame = next(decoding, None)
    except av.FFmpegError:
        return


def _summary(stream: Any, first: Any, *, packets: list[_Packet], shown: list[_Packet], is_timed: bool) -> Scan:
    tick_seconds = stream.time_base.numerator / stream.time_base.denominator
    frames = [packet for packet in shown if packet.pts is not None]
    ticks, places = np.unique(np.asarray([packet.pts for packet in frames], np.int64), return_index=True)
    fps = float(stream.average_rate or stream.guessed_rate or 0)
    last_ticks = frames[places[-1]].duration if len(ticks) else 0
    last_seconds = last_ticks * tick_seconds or (1 / fps if fps else 0.0)
    keys = [frame for frame in frames if frame.is_key]
    key_ticks, key_places = np.unique(np.asarray([key.pts for key in keys], np.int64), return_index=True)
    matrix = display_matrix(first)
    turned = matrix is not None and abs(matrix[1]) + abs(matrix[3]) > abs(matrix[0]) + abs(matrix[4])
    height, width = (first.width, first.height) if turned else (first.height, first.width)
    return Scan(
        stream_index=stream.index,
        ticks=ticks,
        tick_seconds=tick_seconds,
        end_seconds=float(ticks[-1] * tick_seconds + last_seconds) if len(ticks) else 0.0,
        key_frames=np.searchsorted(ticks, key_ticks),
        key_dts=np.asarray([_seek_time(keys[place]) for place in key_places], np.int64),
        is_closed=is_timed and _is_closed(packets),
        is_plain=is_timed and len(packets) == len(ticks),
        promised_frames=max(0, stream.frames - sum(packet.is_hidden for packet in packets)) if stream.frames else 0,
        codec=stream.codec_context.name,
        average_fps=fps,
        pixel_format=first.format.name,
        height=height,
        width=width,
        matrix=matrix,
    )


def _seek_time(packet: _Packet) -> int:
    time = packet.dts if packet.dts is not None else packet.pts
    assert time is not None
    return time


def _is_closed(packets: Iterable[_Packet]) -> bool:
    """Whether decoding may begin at any key frame without losing a frame that comes after it in the file."""
    latest = None
    for packet in packets:
        assert packet.pts is not None
        if packet.is_key:
            latest = packet.pts if latest is None else max(latest, packet.pts)
        elif latest is None or packet.pts < latest:
            return False
    return True


def display_matrix(frame: Any) -> tuple[int, ...] | None:
    """The nine entries of a PyAV frame's display matrix, None where there is none or it turns nothing."""
    for side in frame.side_data.keys():  # noqa: SIM118 - PyAV's container has no iteration over names
        if getattr(side.type, "name", "") == "DISPLAYMATRIX":
            matrix = tuple(int(entry) for entry in np.frombuffer(bytes(side), "<i4"))
            return None if matrix[0] > 0 and matrix[4] > 0 and matrix[1] == matrix[3] == 0 else matrix
    return None


def _text(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error)
