"""The frame store: decoded frames with their times, in Zarr v3 that plain zarr-python opens.

    frames/<spec key>.zarr/                  attributes: spec
        <video digest>/
            frame         (T, H, W, 3) uint8     with codec lossless
            frame_jpeg    (B,) uint8             with codec jpeg: JPEG files one after the other, and
            jpeg_start    (T + 1,) i64           where each begins: frame i is [jpeg_start[i], jpeg_start[i + 1])
            pts_seconds   (T,) f64               presentation time of each row's frame
            stop_seconds  (T,) f64               when it leaves the screen
            source_frame  (T,) i64               its number in the video

Without our code:  rows = zarr.open_group(path, mode="r")[digest];  rows["frame"][10:20]
           jpeg:   a, b = rows["jpeg_start"][i : i + 2];  PIL.Image.open(io.BytesIO(rows["frame_jpeg"][a:b].tobytes()))
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from PIL import Image

from reelwright.storage.arrays.spans import RowTimes
from reelwright.storage.arrays.zarrs import array_of, create_group, has_array, has_item, open_group
from reelwright.storage.errors import StoreError
from reelwright.storage.store import backend_of
from reelwright.storage.store_errors import check_there

Frames = NDArray[np.uint8]
TIMES = ("source_frame", "pts_seconds", "stop_seconds")


@dataclass(frozen=True)
class FrameLayout:
    """How frames are coded: `lossless` (zstd) or `jpeg` with a quality of 1 to 100."""

    codec: str = "lossless"
    quality: int = 92


class FrameStore:
    """The frames of one decode spec, for reading."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    @classmethod
    def create(cls, path: Path, spec: Mapping[str, object]) -> FrameStore:
        """The store at ``path``, made with ``spec`` in its attributes where it is not there yet."""
        create_group(path, {"spec": dict(spec)})
        return cls(path)

    @property
    def spec(self) -> dict[str, Any]:
        """The decode settings that made these frames."""
        return dict(open_group(self.path).attrs["spec"])

    def digests(self) -> list[str]:
        """Content digests of the videos whose frames are here, sorted."""
        return backend_of(self.path).items(self.path)

    def rows(self, digest: str) -> FrameRows:
        """The frames of one video. Raises StoreError when they are not here."""
        if not has_item(self.path, digest):
            check_there(self.path / "zarr.json")
            raise StoreError(f"the frames of video {digest} are not in {self.path}. Run decode.")
        return FrameRows(open_group(self.path / digest))


class FrameRows:
    """The stored frames of one video, read as they are asked for."""

    def __init__(self, group: zarr.Group) -> None:
        self._group = group

    @cached_property
    def times(self) -> RowTimes:
        """Source frame and span of every row."""
        return RowTimes(**{name: np.asarray(array_of(self._group, name)[:]) for name in TIMES})

    @property
    def num_rows(self) -> int:
        """T."""
        return self.times.num_rows

    @property
    def pts_seconds(self) -> NDArray[np.float64]:
        """(T,) presentation times in seconds."""
        return self.times.pts_seconds

    @property
    def stop_seconds(self) -> NDArray[np.float64]:
        """(T,) seconds at which each frame leaves the screen."""
        return self.times.stop_seconds

    @property
    def source_frame(self) -> NDArray[np.int64]:
        """(T,) numbers of the frames in the video."""
        return self.times.source_frame

    @property
    def frame_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        height, width = self._group.attrs["size"]
        return int(height), int(width)

    def read(self, start: int, stop: int) -> Frames:
        """Rows [start, stop) as (n, H, W, 3) uint8 RGB. Raises IndexError outside [0, num_rows]."""
        if not 0 <= start <= stop <= self.num_rows:
            raise IndexError(f"rows [{start}, {stop}) are not within the {self.num_rows} rows of this video")
        if has_array(self._group, "frame"):
            return np.asarray(array_of(self._group, "frame")[start:stop])
        starts = self._jpeg_start[start : stop + 1]
        packed = np.asarray(array_of(self._group, "frame_jpeg")[int(starts[0]) : int(starts[-1])])
        return self._decode([packed[a:b] for a, b in zip(starts - starts[0], starts[1:] - starts[0], strict=False)])

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> Frames:
        """The given rows, in the given order, as (n, H, W, 3) uint8 RGB. Raises IndexError outside [0, num_rows)."""
        wanted = np.asarray(rows, np.int64)
        out = np.empty((len(wanted), *self.frame_size, 3), np.uint8)
        unique, places = np.unique(wanted, return_inverse=True)
        for first, last in _adjacent(unique):
            found = self.read(int(unique[first]), int(unique[last - 1]) + 1)
            chosen = (places >= first) & (places < last)
            out[chosen] = found[places[chosen] - first]
        return out

    @cached_property
    def _jpeg_start(self) -> NDArray[np.int64]:
        return np.asarray(array_of(self._group, "jpeg_start")[:])

    def _decode(self, files: Sequence[NDArray[np.uint8]]) -> Frames:
        out = np.empty((len(files), *self.frame_size, 3), np.uint8)
        for index, packed in enumerate(files):
            with Image.open(io.BytesIO(packed.tobytes())) as image:
                out[index] = np.asarray(image.convert("RGB"))
        return out


def _adjacent(values: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Index ranges [first, last) of ascending values that follow one another without a gap."""
    if not len(values):
        return []
    edges = np.flatnonzero(np.diff(values) != 1) + 1
    return list(zip([0, *edges.tolist()], [*edges.tolist(), len(values)], strict=True))
