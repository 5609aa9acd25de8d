"""Read rows of a frame store (a folder `frames.zarr/<name>`) as if they were a video: lossless, no codec in between."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reelwright.stages.decode.reader import Frame, FrameTimes, ReadByNumber
from reelwright.storage.arrays.frames import FrameRows, FrameStore
from reelwright.storage.errors import ItemError

_READ_AT_ONCE = 16  # frames in memory


def is_stored(folder: Path) -> bool:
    """Whether a folder holds rows of a frame store."""
    return (folder / "zarr.json").is_file()


def stored_rows(folder: Path) -> FrameRows:
    """The rows in a folder. Raises ItemError where they are none, or none that can be read."""
    try:
        rows = FrameStore(folder.parent).rows(folder.name)
        _ = rows.times, rows.frame_size
    except (KeyError, ValueError, OSError) as error:
        raise ItemError("not_a_video", f"{folder} has no frames that can be read: {error}. Make it again.") from None
    if not rows.num_rows:
        raise ItemError("no_frames", f"{folder} has no frames. Make it again.")
    return rows


class StoredReader(ReadByNumber):
    """A `Reader`: frame i is row i, with the times that the row has."""

    backend = "stored"

    def __init__(self, folder: Path) -> None:
        """Raises ItemError where the folder holds no rows."""
        self._folder, self._rows = folder, stored_rows(folder)
        self.times = FrameTimes(self._rows.pts_seconds, float(self._rows.stop_seconds[-1]))
        self.estimated_seconds = float(self._rows.pts_seconds[0]), self.times.end_seconds
        self.estimated_frames = self._rows.num_rows
        self.damage = ""
        self.notes: tuple[str, ...] = ()

    def read(self, source_frames: Sequence[int] | NDArray[np.int64]) -> Iterator[tuple[int, Frame]]:
        """See `Reader.read`."""
        wanted = np.asarray(source_frames, np.int64)
        for start in range(0, len(wanted), _READ_AT_ONCE):
            part = wanted[start : start + _READ_AT_ONCE]
            try:
                frames = self._rows.take(part)
            except (KeyError, ValueError, OSError) as error:
                message = f"frames {part[0]} to {part[-1]} of {self._folder} cannot be read: {error}."
                raise ItemError("invalid_data", message, status="truncated") from None
            yield from zip(part.tolist(), frames, strict=True)
