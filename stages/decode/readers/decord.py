"""Read frames with decord: fast, but only kinds of files for which tests/decode_matrix has shown it to be right.

decord 0.6 counts frames that an edit list hides, gives other colours for 10-bit video, the wrong frame when it seeks in
open groups of pictures or in AVI and WMV, scales frames that change their size in a way of its own, and its get_batch
is known never to return at times. So: kinds of `proven` only, one frame after the other with `next`, seeks only where
groups are closed and a key frame lies far enough ahead to be worth it, and a look at the size of key frames.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from reelwright.stages.decode.reader import Frame, runs
from reelwright.stages.decode.timing.index import FrameIndex, Indexed
from reelwright.stages.decode.timing.packets import open_stream
from reelwright.storage.errors import ItemError

WORTH_SEEKING_FRAMES = 8  # frames that must be saved for a jump to a key frame to pay
# A worker at its peak, 720p at 10 frames/s, 1 taken: decord 323 MB (2 minutes), 1,299 MB (20); PyAV 141 MB (20)
_MOST_SIZES = 256  # key frames whose size is looked at
_MAX_PIXELS = 3_000_000_000  # of all frames together: 5.4 minutes of 640 x 480 or 1.8 of 720p, at 30 frames/s


class DecordReader(Indexed):
    """A `Reader` for plain 8-bit files."""

    backend = "decord"

    def __init__(self, path: Path, index: FrameIndex, *, num_threads: int = 1) -> None:
        if index.num_frames * index.height * index.width > _MAX_PIXELS:
            raise ItemError(
                "backend_unsuited", "not used for this file: it is long, and decord's memory grows with length"
            )
        import decord

        decord.logging.set_level(decord.logging.QUIET)
        self.index, self._path = index, path
        self._error: type[Exception] = decord.DECORDError
        try:
            self._video: Any = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=num_threads)
        except (self._error, RuntimeError) as error:
            raise ItemError("backend_failed", f"cannot open: {_line(error)}") from None
        self.check_count(len(self._video))
        decord.logging.set_level(decord.logging.ERROR)  # `CheckedReader` listens

    def read(self, source_frames: Sequence[int] | NDArray[np.int64]) -> Iterator[tuple[int, Frame]]:
        """See `Reader.read`."""
        position: int | None = None  # of the next frame
        try:
            for number, repeats in runs(source_frames):
                self._go_to(number, position)
                frame = self._video.next().asnumpy()
                if frame.shape[2] != 3:  # decord takes the padding of narrow rows for more channels
                    reason = f"not used for this file: decord gives frames of shape {frame.shape}, not of 3 channels"
                    raise ItemError("backend_unsuited", reason)
                position = number + 1
                for _ in range(repeats):
                    yield number, frame
        except (self._error, RuntimeError, StopIteration) as error:
            raise ItemError("backend_failed", f"cannot decode: {_line(error)}") from None
        if len(source_frames):
            self._check_sizes(int(source_frames[0]), int(source_frames[-1]))

    def close(self) -> None:
        """See `Reader.close`."""
        self._video = None

    def _check_sizes(self, first: int, last: int) -> None:
        """Raises ItemError where a key frame that frames ``first`` to ``last`` are made of is larger or smaller."""
        index = self.index
        keys = index.key_frames[(index.key_frames >= index.key_before(first)) & (index.key_frames <= last)]
        keys = keys[keys > 0]  # the size of the first frame is known
        keys = keys[:: -(-len(keys) // _MOST_SIZES)] if len(keys) > _MOST_SIZES else keys  # of codecs of key frames
        if not len(keys):
            return
        wanted = set(index.ticks[keys].tolist())
        with open_stream(self._path) as (container, stream):
            container.seek(int(index.ticks[keys[0]]), stream=stream, backward=True)
            found = (packet for packet in container.demux(stream) if packet.pts in wanted and packet.is_keyframe)
            try:
                keys_found = itertools.islice(found, len(wanted))
                sizes = {(each.height, each.width) for packet in keys_found for each in packet.decode()}
                sizes |= {(each.height, each.width) for each in stream.codec_context.decode(None)}
            except av.FFmpegError as error:
                raise ItemError("backend_failed", f"cannot decode: {error}") from None
        expected = (index.height, index.width)
        if sizes - {expected, expected[::-1]}:
            raise ItemError("backend_unsuited", "not used for this file: its frames change their size")

    def _go_to(self, number: int, position: int | None) -> None:
        # whether a key frame lies so far between that decoding from it is less work
        saves = position is None or self.index.key_before(number) > position + WORTH_SEEKING_FRAMES
        if "open-gop" not in self.index.structure and number > 0 and saves:
            self._video.seek_accurate(number)
            return
        if position is None:
            self._video.seek(0)
        for _ in range(number - (position or 0)):
            self._video.next()


def _line(error: BaseException) -> str:
    """The first sentence of decord's message, without its stamps and source lines."""
    text = re.sub(r"\[\d\d:\d\d:\d\d\] \S+:\d+: |Stack trace.*", "", " ".join(str(error).split()))
    return text[:160] or type(error).__name__
