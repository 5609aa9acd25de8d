"""The kinds of files for which a fast backend was shown to give FFmpeg's frames; all others go to PyAV.

A kind is container, codec, pixel format and structure, as `FrameIndex.kind` says. The module tests.decode_matrix.proven
prints this table from comparisons of every frame, read in order and sought; tests/decode_matrix fails where an entry
is not borne out. Left out of it: 10 bits and more, and key frames at which decoding may not begin (soft-keys). Beside
the kind: an even size, as pictures of odd ones are converted otherwise.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reelwright.stages.decode.reader import Frame, Reader
from reelwright.stages.decode.readers.pyav import PyavReader
from reelwright.stages.decode.timing.index import FrameIndex
from reelwright.storage.errors import ItemError

_BOTH = frozenset(
    {
        "mkv ffv1 yuv420p",
        "mkv ffvhuff yuv420p",
        "mkv h264 yuv420p b-frames offset",
        "mkv h264 yuv420p b-frames",
        "mkv h264 yuv420p",
        "mkv hevc yuv420p b-frames",
        "mkv hevc yuv420p",
        "mkv mjpeg yuv420p",
        "mkv vp8 yuv420p",
        "mkv vp9 yuv420p offset",
        "mkv vp9 yuv420p",
        "mp4 h264 yuv420p b-frames offset",
        "mp4 h264 yuv420p b-frames",
        "mp4 h264 yuv420p",
        "mp4 hevc yuv420p b-frames",
        "mp4 hevc yuv420p",
        "mp4 mjpeg yuv420p",
        "mp4 vp9 yuv420p",
    }
)
PROVEN: dict[str, frozenset[str]] = {
    "decord": _BOTH,
    "torchcodec": _BOTH
    | {"mp4 h264 yuv420p b-frames hidden", "mp4 h264 yuv420p hidden", "mp4 hevc yuv420p b-frames hidden"},
}
_CHECK_SHARE = 32  # the later frame of a check lies at most this share of the frames passed behind its key frame,
_FEW_FRAMES = 3  # or so many
_OF_FFMPEG = re.compile(rb"\[[^\]@]+ @ 0x[0-9a-f]+\] (.*)")  # a line of its log
COLOURS_OF_GPU = 4.0  # mean difference of bytes to FFmpeg's frame, at most; another frame, or another matrix, is beyond


def refuse_unproven(backend: str, index: FrameIndex, *, stretch: float) -> None:
    """Raises ItemError `backend_unsuited` where it is not shown that ``backend`` gives FFmpeg's frames."""
    if index.kind not in PROVEN[backend] or index.origin != "packets":
        reason = f"it was not compared for files of this kind ({index.kind})"
    elif index.height % 2 or index.width % 2:
        reason = f"frames of odd size ({index.width} x {index.height}) are converted otherwise"
    elif index.ended_early:
        reason = "the file is cut off"
    elif index.matrix is not None and index.matrix[0] * index.matrix[4] < index.matrix[1] * index.matrix[3]:
        reason = "its display matrix mirrors"
    elif stretch != 1.0:
        reason = "its pixels are not square, and shall be"
    else:
        return
    raise ItemError("backend_unsuited", f"not used for this file: {reason}")


class CheckedReader:
    """A fast `Reader` whose first frame and a later one are compared with FFmpeg's own once all were read.

    Neither decord nor torchcodec tells of frames in which parts are missing and made up: only the FFmpeg inside does,
    on stderr.
    """

    def __init__(self, reader: Reader, path: Path, index: FrameIndex, *, most_difference: float = 0.0) -> None:
        """``most_difference``: mean absolute difference of bytes up to which two frames are taken for the same."""
        self._most_difference = most_difference
        self.backend, self.times = reader.backend, reader.times
        self.estimated_seconds, self.estimated_frames = reader.estimated_seconds, reader.estimated_frames
        self.damage, self.damage_met, self.notes = reader.damage, reader.damage_met, reader.notes
        self.frames, self.close = reader.frames, reader.close
        self._reader, self._path, self._index = reader, path, index

    def read(self, source_frames: Sequence[int] | NDArray[np.int64]) -> Iterator[tuple[int, Frame]]:
        """See `Reader.read`. Raises ItemError `backend_failed` at the end where a frame is another one."""
        wanted = _to_check(self._index, np.unique(np.asarray(source_frames, np.int64)))
        found: dict[int, Frame] = {}
        shape: tuple[int, ...] = ()
        with _listening() as errors:
            for number, frame in self._reader.read(source_frames):
                shape = shape or frame.shape
                if frame.shape != shape:
                    raise ItemError("backend_unsuited", "not used for this file: its frames change their size")
                if number in wanted:
                    found[number] = frame
                yield number, frame
        if errors:
            raise ItemError("backend_failed", f"dropped for this file: what it decodes with says: {errors[0]}")
        truth = PyavReader(self._path, self._index)
        try:
            for number, frame in truth.read(sorted(found)):
                if not self._is_same(frame, found[number]):
                    reason = f"dropped for this file: its frame {number} is not the one that FFmpeg decodes"
                    raise ItemError("backend_failed", reason)
        finally:
            truth.close()

    def _is_same(self, frame: Frame, other: Frame) -> bool:
        if not self._most_difference:
            return np.array_equal(frame, other)
        difference = np.abs(frame.astype(np.int16) - other.astype(np.int16)) if frame.shape == other.shape else np.inf
        return float(np.mean(difference)) <= self._most_difference


@contextlib.contextmanager
def _listening() -> Iterator[list[str]]:
    """Errors that an FFmpeg in this process prints while the block runs; there after it. All else is printed then."""
    if sys.stderr is None:  # another file may have its number
        raise ItemError("backend_unsuited", "not used without a stderr, on which what it decodes with tells of damage")
    errors: list[str] = []
    sys.stderr.flush()
    with tempfile.TemporaryFile() as heard:
        stderr = os.dup(2)
        os.dup2(heard.fileno(), 2)
        try:
            yield errors
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            heard.seek(0)
            for line in heard:
                if match := _OF_FFMPEG.match(line):
                    errors.append(match[1].decode(errors="replace"))
                else:
                    os.write(2, line)


def _to_check(index: FrameIndex, numbers: NDArray[np.int64]) -> set[int]:
    """The first of the frames, and the last of them that is soon decoded: so near its key frame."""
    if not len(numbers):
        return set()
    places = np.searchsorted(index.key_frames, numbers, side="right") - 1
    keys = index.key_frames[places] if len(index.key_frames) else np.zeros_like(numbers)
    near = numbers[numbers - keys <= max(_FEW_FRAMES, int(numbers[-1] - numbers[0]) // _CHECK_SHARE)]
    return {int(numbers[0]), int(near[-1] if len(near) else numbers[0])}
