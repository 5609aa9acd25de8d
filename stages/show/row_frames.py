"""The frames behind rows: stored ones, else decoded from the file; kept as JPEG in a temporary file, not in memory."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
from PIL import Image

from reelwright.stages.base.video_writer import VideoWriter
from reelwright.stages.base.work import InputRef, VideoItem
from reelwright.stages.evaluate.pages.frame_source import take_frames
from reelwright.stages.evaluate.pages.thumbnails import Frame
from reelwright.storage.store import Store

_QUALITY = 90

Floats = npt.NDArray[np.float64]


@dataclass
class RowFrames:
    """A `FrameTaker`: frames of one video in order of time, made no higher than ``height`` pixels."""

    height: int
    note: str = ""  # why there are none, or not all
    times: list[float] = field(default_factory=list)
    _file: IO[bytes] = field(default_factory=tempfile.TemporaryFile, repr=False)
    _starts: list[int] = field(default_factory=lambda: [0], repr=False)

    def add(self, frame: Frame, time_seconds: float) -> None:
        """See `FrameTaker`."""
        image = Image.fromarray(frame)
        if image.height > self.height:
            width = max(1, round(image.width * self.height / image.height))
            image = image.resize((width, self.height), Image.Resampling.BOX)
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
        """See `FrameTaker`."""
        self.times.clear()
        self._starts[1:] = []

    def close(self) -> None:
        """Remove the file."""
        self._file.close()


def write_film(path: Path, pictures: Iterable[Image.Image], *, fps: float) -> None:
    """An MP4 of pictures of one size, both sides even; there is one at least."""
    frames = map(np.asarray, pictures)
    first = next(frames)
    with VideoWriter(path, size=(first.shape[0], first.shape[1]), fps=fps) as writer:
        for frame in chain([first], frames):
            writer.add(frame)


@contextmanager
def row_frames(
    wanted: Mapping[VideoItem, Floats], *, behind: InputRef, store: Store, height: int
) -> Iterator[dict[str, RowFrames]]:
    """Frames of videos at times (ascending seconds), by video_id, as long as the block lasts; at most ``height`` high.

    ``behind`` is what was made of the frames: the decode node behind it says where they are stored, or how the files
    are read. A video of which there are no frames has a note that says why.
    """
    found = {item.video_id: RowFrames(height) for item in wanted}
    try:
        take_frames(wanted, found, behind=behind, store=store, height=height)
        yield found
    finally:
        for frames in found.values():
            frames.close()
