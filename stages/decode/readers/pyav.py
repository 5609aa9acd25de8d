"""Read frames with PyAV: goes everywhere, takes every format, and decides what can be decoded of a damaged file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from reelwright.stages.decode.readers.base import Frame, orient, runs
from reelwright.stages.decode.readers.scan import Scan, open_stream
from reelwright.storage.errors import ItemError

_WORTH_SEEKING_FRAMES = 8  # frames that must be saved for a jump to a key frame to pay


class PyavReader:
    """A `Reader`. Pixels are those of the FFmpeg command line (swscale's default flags; tested on nasa_13013)."""

    backend = "pyav"

    def __init__(self, path: Path, scan: Scan, *, num_threads: int = 1) -> None:
        self._path, self._scan, self._num_threads = path, scan, num_threads
        self.pts_seconds = scan.pts_seconds
        self.end_seconds = scan.end_seconds
        self.promised_frames = scan.promised_frames
        self._opened: Any = None

    def read(self, source_frames: Sequence[int] | NDArray[np.int64]) -> Iterator[tuple[int, Frame]]:
        """See `Reader.read`."""
        wanted = list(runs(source_frames))
        decoding = self._decode_from(wanted[0][0]) if wanted else iter(())
        position = -1
        for number, repeats in wanted:
            if position >= 0 and self._key_before(number) > position + _WORTH_SEEKING_FRAMES:
                decoding = self._decode_from(number)
            position, picture = self._advance(decoding, number)
            frame = orient(picture.to_ndarray(format="rgb24"), self._scan.matrix)
            for _ in range(repeats):
                yield number, frame

    def close(self) -> None:
        """See `Reader.close`."""
        if self._opened is not None:
            self._opened.__exit__(None, None, None)
            self._opened = None

    def _advance(self, decoding: Iterator[tuple[int, Any]], number: int) -> tuple[int, Any]:
        reached = -1
        try:
            for reached, picture in decoding:
                if reached == number:
                    return reached, picture
                if reached > number:
                    break  # a damaged frame in the middle was left out by the decoder
        except av.FFmpegError as error:
            raise self._truncated(number, str(error.strerror or error)) from None
        reason = "the decoder leaves out the next" if reached >= 0 else "the stream ends"
        raise self._truncated(number, reason)

    def _truncated(self, number: int, reason: str) -> ItemError:
        total = max(self.promised_frames, len(self.pts_seconds))
        return ItemError("invalid_data", f"frame {number} of {total} cannot be decoded: {reason}.", status="truncated")

    def _key_before(self, number: int) -> int:
        """The last frame at or before ``number`` at which decoding may begin; 0 where nothing better is known."""
        place = int(np.searchsorted(self._scan.key_frames, number, side="right")) - 1
        return int(self._scan.key_frames[place]) if place >= 0 else 0

    def _decode_from(self, number: int) -> Iterator[tuple[int, Any]]:
        """(frame number, picture) from the key frame before ``number``, else from the start of the file."""
        key = self._key_before(number)
        if key > _WORTH_SEEKING_FRAMES:
            place = int(np.searchsorted(self._scan.key_frames, key))
            decoding = self._decode(int(self._scan.key_dts[place]))
            try:
                first = next(decoding, None)
            except av.FFmpegError:
                first = None
            if first is not None and first[0] <= number:
                yield first
                yield from decoding
                return
        yield from self._decode(None)

    def _decode(self, seek_ticks: int | None) -> Iterator[tuple[int, Any]]:
        self.close()
        self._opened = open_stream(self._path)
        container, stream = self._opened.__enter__()
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = self._num_threads
        if seek_ticks is not None:
            container.seek(seek_ticks, stream=stream, backward=True)
        ticks, previous = self._scan.ticks, -1
        for picture in _pictures(container, stream):
            pts = picture.pts if picture.pts is not None else picture.dts
            if pts is None:
                continue
            number = int(np.searchsorted(ticks, pts))
            if number < len(ticks) and ticks[number] == pts and number > previous:
                previous = number
                yield number, picture


def _pictures(container: Any, stream: Any) -> Iterator[Any]:
    """Decode the packets that are whole, as `scan_video` counts them, until one cannot be decoded."""
    for packet in container.demux(stream):
        if not packet.is_corrupt:
            yield from packet.decode()
