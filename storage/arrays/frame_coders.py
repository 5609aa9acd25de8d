"""How the frames of a video are laid into its Zarr arrays: lossless, or as JPEG files one after the other."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from PIL import Image

from reelwright.storage.arrays.frames import FrameLayout, Frames
from reelwright.storage.arrays.shards import is_cut
from reelwright.storage.arrays.zarrs import ArrayLayout, create_array, every_chunk_written, small_array
from reelwright.storage.files import remove

CHUNK_BYTES = 1 << 20  # read at once: a few frames, so that one window costs little
SHARD_BYTES = 32 << 20  # written at once, held in memory by the writer
JPEG_CHUNK_BYTES = 1 << 18  # zstd over them costs little and makes the empty end of the last one vanish


class LosslessCoder:
    """Fills one shard in memory, then writes it in one piece; goes on after the shards that are there."""

    def __init__(self, group: zarr.Group, num_rows: int | None, size: tuple[int, int], layout: FrameLayout) -> None:
        del layout
        is_new = "frame" not in group
        rows = _rows_of_shard(size)[1] if num_rows is None else num_rows  # None: it grows, shard by shard
        self._array = lossless_array(group, rows, size) if is_new else opened_lossless(group)
        self._shard_rows = int(self._array.shards[0])
        self._buffer = np.empty((self._shard_rows, *size, 3), np.uint8)
        self._filled = 0
        self.written = 0 if is_new else min(rows, self._shard_rows * _keep_whole_shards(self._array))

    def append(self, frames: Frames) -> None:
        """Add (n, H, W, 3) uint8 frames; whole shards are written."""
        while len(frames):
            count = min(len(frames), self._shard_rows - self._filled)
            self._buffer[self._filled : self._filled + count] = frames[:count]
            self._filled += count
            frames = frames[count:]
            if self._filled == self._shard_rows:
                self._flush()

    def finish(self, num_rows: int) -> None:
        """Write what is left, and shrink to ``num_rows``, which came."""
        self._flush()
        if num_rows < self._array.shape[0]:
            self._array.resize((num_rows, *self._array.shape[1:]))

    def _flush(self) -> None:
        if self._filled:
            if self.written + self._filled > self._array.shape[0]:
                self._array.resize((self.written + self._filled, *self._array.shape[1:]))
            self._array[self.written : self.written + self._filled] = self._buffer[: self._filled]
            self.written += self._filled
            self._filled = 0


def lossless_array(group: zarr.Group, num_rows: int, size: tuple[int, int]) -> zarr.Array[Any]:
    """Make the array of ``num_rows`` frames of ``size`` (height, width), empty."""
    chunk_rows, shard_rows = _rows_of_shard(size)
    layout = ArrayLayout(
        shape=(num_rows, *size, 3),
        dtype=np.dtype(np.uint8),
        chunk_rows=chunk_rows,
        shard_rows=shard_rows,
        codec="zstd",
    )
    with every_chunk_written():
        return create_array(group, "frame", layout, axes=("row", "height", "width", "channel"))


def opened_lossless(group: zarr.Group) -> zarr.Array[Any]:
    """The array that `lossless_array` made, for writing."""
    with every_chunk_written():
        found: zarr.Array[Any] = group["frame"]
    return found


def _rows_of_shard(size: tuple[int, int]) -> tuple[int, int]:
    """Rows of a chunk and of a shard of frames of ``size`` (height, width)."""
    frame_bytes = size[0] * size[1] * 3
    chunk_rows = max(1, CHUNK_BYTES // frame_bytes)
    return chunk_rows, chunk_rows * max(1, SHARD_BYTES // (frame_bytes * chunk_rows))


class JpegCoder:
    """Appends JPEG files to one long array, a shard at a time."""

    def __init__(self, group: zarr.Group, num_rows: int | None, size: tuple[int, int], layout: FrameLayout) -> None:
        del num_rows, size
        self._group, self._quality = group, layout.quality
        array = ArrayLayout(
            shape=(SHARD_BYTES,),
            dtype=np.dtype(np.uint8),
            chunk_rows=JPEG_CHUNK_BYTES,
            shard_rows=SHARD_BYTES,
            codec="zstd",
        )
        self._array = create_array(group, "frame_jpeg", array, axes=("byte",))
        self._pending = bytearray()
        self._written = 0
        self._starts = [0]

    def append(self, frames: Frames) -> None:
        """Add (n, H, W, 3) uint8 frames; whole shards are written."""
        for frame in frames:
            file = io.BytesIO()
            Image.fromarray(np.ascontiguousarray(frame)).save(file, "JPEG", quality=self._quality)
            self._pending += file.getbuffer()
            self._starts.append(self._starts[-1] + file.tell())
            if len(self._pending) >= SHARD_BYTES:
                self._flush(SHARD_BYTES)

    def finish(self, num_rows: int) -> None:
        """Write what is left, and shrink to ``num_rows``, which came."""
        assert num_rows == len(self._starts) - 1
        self._flush(len(self._pending))
        self._array.resize((self._written,))
        small_array(self._group, "jpeg_start", np.asarray(self._starts, np.int64), axes=("row_edge",))

    def _flush(self, count: int) -> None:
        """Write ``count`` bytes: whole shards, but for the last."""
        if self._written + count > self._array.shape[0]:
            self._array.resize((self._array.shape[0] + SHARD_BYTES,))
        self._array[self._written : self._written + count] = np.frombuffer(bytes(self._pending[:count]), np.uint8)
        self._written += count
        del self._pending[:count]


CODERS: dict[str, Callable[[zarr.Group, int | None, tuple[int, int], FrameLayout], LosslessCoder | JpegCoder]] = {
    "lossless": LosslessCoder,
    "jpeg": JpegCoder,
}


def _keep_whole_shards(array: zarr.Array[Any]) -> int:
    """How many shard files from the first on are there and not cut off; those after them are removed.

    zarr reads what is there before it writes, and fails where that is cut off.
    """
    folder = Path(str(array.store_path.store.root)) / array.path
    missing = find_missing_shards(folder)
    count = missing[0] if missing else count_shards(array)
    for shard in (folder / "c").glob("*"):
        if shard.name.isdecimal() and int(shard.name) >= count:
            remove(shard)
    return count


def find_missing_shards(folder: Path) -> list[int]:
    """Shards of the array in a folder that are not there or cut off, ascending."""
    metadata = json.loads((folder / "zarr.json").read_text(encoding="utf-8"))
    count = -(-metadata["shape"][0] // metadata["chunk_grid"]["configuration"]["chunk_shape"][0])
    return [index for index in range(count) if is_cut(folder / "c" / str(index) / "0" / "0" / "0", metadata)]


def count_shards(array: zarr.Array[Any]) -> int:
    """Shards of an array, written or not."""
    return math.ceil(int(array.shape[0]) / int(array.shards[0]))
