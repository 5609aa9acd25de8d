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
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import zarr
from numpy.typing import NDArray
from PIL import Image

from reelwright.storage.errors import StoreError, UnusableStoreError
from reelwright.storage.files import folder_bytes, remove
from reelwright.storage.shards import is_cut
from reelwright.storage.unusable import check_there, named, usable
from reelwright.storage.zarrs import (
    PARTIAL,
    ArrayLayout,
    create_array,
    create_group,
    has_item,
    item_names,
    open_group,
    publish,
    small_array,
)

Frames = NDArray[np.uint8]
CHUNK_BYTES = 1 << 20  # read at once: a few frames, so that one window costs little
SHARD_BYTES = 32 << 20  # written at once, held in memory by the writer
_TIMES = ("source_frame", "pts_seconds", "stop_seconds")
JPEG_CHUNK_BYTES = 1 << 18  # zstd over them costs little and makes the empty end of the last one vanish


@dataclass(frozen=True, kw_only=True)
class RowTimes:
    """Which frame each row is: (T,) arrays."""

    source_frame: NDArray[np.int64]
    pts_seconds: NDArray[np.float64]
    stop_seconds: NDArray[np.float64]

    @property
    def num_rows(self) -> int:
        """T."""
        return len(self.source_frame)


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
        return item_names(self.path)

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
        names = ("source_frame", "pts_seconds", "stop_seconds")
        return RowTimes(**{name: np.asarray(self._group[name][:]) for name in names})

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
        if "frame" in self._group:
            return np.asarray(self._group["frame"][start:stop])
        starts = self._jpeg_start[start : stop + 1]
        packed = np.asarray(self._group["frame_jpeg"][int(starts[0]) : int(starts[-1])])
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
        return np.asarray(self._group["jpeg_start"][:])

    def _decode(self, files: Sequence[NDArray[np.uint8]]) -> Frames:
        out = np.empty((len(files), *self.frame_size, 3), np.uint8)
        for index, packed in enumerate(files):
            with Image.open(io.BytesIO(packed.tobytes())) as image:
                out[index] = np.asarray(image.convert("RGB"))
        return out


class FrameWriter:
    """Writes the frames of one video, a shard at a time, under a temporary name until `commit`.

    Use it in a `with` block: leaving it by an error removes what was written, unless the store is to blame. A process
    that is killed leaves its shards, and the next writer with the same ``tag`` (who decodes) goes on after them:
    `num_rows` says where. With codec jpeg it begins anew. Holds at most one shard in memory.
    """

    def __init__(self, store: Path, digest: str, times: RowTimes, layout: FrameLayout, *, tag: str = "") -> None:
        self.num_rows = 0
        self._times, self._layout = times, layout
        self._path = store / digest
        self._temporary = store / f"{PARTIAL}{digest}-{tag}"
        self._coder: _LosslessCoder | _JpegCoder | None = None
        self._size = (0, 0)
        is_kept = self._resume()
        for leftover in store.glob(f"{PARTIAL}{digest}-*"):
            if leftover != self._temporary or not is_kept:
                remove(leftover)  # of a process that was killed; one process writes a video at a time

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not isinstance(error, UnusableStoreError):
            remove(self._temporary)

    def append(self, frames: Frames) -> None:
        """Add (n, H, W, 3) uint8 frames after those that came before.

        Raises UnusableStoreError when the disk is full, the store read-only or gone.
        """
        with usable(self._path.parents[2]), named(self._path):
            self._append(frames)
        self.num_rows += len(frames)

    def _append(self, frames: Frames) -> None:
        if self._coder is None:
            check_there(self._path.parent / "zarr.json")
            self._size = (frames.shape[1], frames.shape[2])
            group = zarr.create_group(
                self._temporary, attributes={"size": list(self._size), "codec": self._layout.codec}
            )
            self._coder = _CODERS[self._layout.codec](group, self._times.num_rows, self._size, self._layout)
            self._group = group
            self._write_times(self._times.num_rows)
        self._coder.append(frames)

    def commit(self) -> int:
        """Shrink to the rows that came, write the times, give the group its name. Returns the bytes on disk."""
        if self._coder is None:
            raise StoreError(f"no frames were written for {self._path.name}")
        with usable(self._path.parents[2]), named(self._path):
            self._coder.finish(self.num_rows)
            if self.num_rows < self._times.num_rows:
                self._write_times(self.num_rows)
            check_there(self._path.parent / "zarr.json")
            publish(self._temporary, self._path)
            return folder_bytes(self._path)

    def _write_times(self, num_rows: int) -> None:
        for name in _TIMES:
            remove(self._temporary / name)
            small_array(self._group, name, getattr(self._times, name)[:num_rows], axes=("row",))

    def _resume(self) -> bool:
        """Take up what a killed process left of the very rows that are to be written; whether there was such."""
        names = ("", "frame", *_TIMES)
        if not all((self._temporary / name / "zarr.json").is_file() for name in names):
            return False
        group = zarr.open_group(self._temporary, mode="r+", use_consolidated=False)
        try:
            found = {name: np.asarray(group[name][:]) for name in _TIMES}
        except (ValueError, OSError):  # killed while they were written
            return False
        is_same = all(np.array_equal(found[name], getattr(self._times, name)) for name in _TIMES)
        if not is_same or group["frame"].shape[0] != self._times.num_rows:
            return False
        self._group, self._size = group, (int(group.attrs["size"][0]), int(group.attrs["size"][1]))
        self._coder = _LosslessCoder(group, self._times.num_rows, self._size, self._layout)
        self.num_rows = self._coder.written
        return True


class SharedFrames:
    """The frames of one long video that several processes write, each other shards of it; lossless only.

    It lies where a `FrameWriter` of the same ``tag`` would write it, so that either goes on after the other.
    """

    def __init__(self, store: Path, digest: str, *, tag: str) -> None:
        self._path = store / digest
        self._temporary = store / f"{PARTIAL}{digest}-{tag}"

    @classmethod
    def find(cls, store: Path, digest: str) -> tuple[SharedFrames, str] | None:
        """A video that was begun, and its tag; None where there is none."""
        for path in sorted(store.glob(f"{PARTIAL}{digest}-*")):
            if all((path / name / "zarr.json").is_file() for name in ("", "frame", *_TIMES)):
                tag = path.name.rpartition("-")[2]
                return cls(store, digest, tag=tag), tag
        return None

    def begin(self, times: RowTimes, size: tuple[int, int]) -> None:
        """Make the arrays at their full size, for frames of ``size`` (height, width); those that fit are kept."""
        with usable(self._path.parents[2]), named(self._path):
            check_there(self._path.parent / "zarr.json")
            is_kept = self._fits(times, size)
            for leftover in self._path.parent.glob(f"{PARTIAL}{self._path.name}-*"):
                if leftover != self._temporary or not is_kept:
                    remove(leftover)
            if not is_kept:
                attributes = {"size": list(size), "codec": "lossless"}
                group = zarr.create_group(self._temporary, attributes=attributes)
                _lossless_array(group, times.num_rows, size)
                for name in _TIMES:
                    small_array(group, name, getattr(times, name), axes=("row",))

    @property
    def num_rows(self) -> int:
        """Rows of the video, written or not."""
        return int(self._array().shape[0])

    @property
    def shard_rows(self) -> int:
        """Rows of a shard; the last one may have fewer."""
        return int(self._array().shards[0])

    @property
    def num_shards(self) -> int:
        """Shards of the video, written or not."""
        return _num_shards(self._array())

    def missing_shards(self) -> list[int]:
        """Shards that are not there or cut off, ascending."""
        return _missing_shards(self._temporary / "frame")

    def write_shard(self, index: int, frames: Frames) -> None:
        """Write a shard, (n, H, W, 3) uint8, if it is whole: where a video is damaged it is not.

        Raises UnusableStoreError when the disk is full, the store read-only or gone.
        """
        array = self._array()
        start = index * int(array.shards[0])
        if len(frames) < min(int(array.shards[0]), array.shape[0] - start):
            return
        with usable(self._path.parents[2]), named(self._path):
            remove(self._temporary / "frame" / "c" / str(index))  # cut off; zarr would read it, and fail
            array[start : start + len(frames)] = frames

    def commit(self) -> int:
        """Give the video its name. Returns the bytes on disk."""
        with usable(self._path.parents[2]), named(self._path):
            check_there(self._path.parent / "zarr.json")
            publish(self._temporary, self._path)
            return folder_bytes(self._path)

    def _array(self) -> zarr.Array[Any]:
        found: zarr.Array[Any] = zarr.open_group(self._temporary, mode="r+", use_consolidated=False)["frame"]
        return found

    def _fits(self, times: RowTimes, size: tuple[int, int]) -> bool:
        if not all((self._temporary / name / "zarr.json").is_file() for name in ("", "frame", *_TIMES)):
            return False
        group = zarr.open_group(self._temporary, mode="r", use_consolidated=False)
        try:
            is_same = all(np.array_equal(group[name][:], getattr(times, name)) for name in _TIMES)
        except (ValueError, OSError):  # killed while they were written
            return False
        return is_same and group["frame"].shape == (times.num_rows, *size, 3)


class _LosslessCoder:
    """Fills one shard in memory, then writes it in one piece; goes on after the shards that are there."""

    def __init__(self, group: zarr.Group, num_rows: int, size: tuple[int, int], layout: FrameLayout) -> None:
        del layout
        is_new = "frame" not in group
        self._array = _lossless_array(group, num_rows, size) if is_new else group["frame"]
        self._shard_rows = int(self._array.shards[0])
        self._buffer = np.empty((self._shard_rows, *size, 3), np.uint8)
        self._filled = 0
        self.written = 0 if is_new else min(num_rows, self._shard_rows * _keep_whole_shards(self._array))

    def append(self, frames: Frames) -> None:
        while len(frames):
            count = min(len(frames), self._shard_rows - self._filled)
            self._buffer[self._filled : self._filled + count] = frames[:count]
            self._filled += count
            frames = frames[count:]
            if self._filled == self._shard_rows:
                self._flush()

    def finish(self, num_rows: int) -> None:
        self._flush()
        if num_rows < self._array.shape[0]:
            self._array.resize((num_rows, *self._array.shape[1:]))

    def _flush(self) -> None:
        if self._filled:
            self._array[self.written : self.written + self._filled] = self._buffer[: self._filled]
            self.written += self._filled
            self._filled = 0


def _lossless_array(group: zarr.Group, num_rows: int, size: tuple[int, int]) -> zarr.Array[Any]:
    frame_bytes = size[0] * size[1] * 3
    chunk_rows = max(1, CHUNK_BYTES // frame_bytes)
    layout = ArrayLayout(
        shape=(num_rows, *size, 3),
        dtype=np.dtype(np.uint8),
        chunk_rows=chunk_rows,
        shard_rows=chunk_rows * max(1, SHARD_BYTES // (frame_bytes * chunk_rows)),
        codec="zstd",
    )
    return create_array(group, "frame", layout, axes=("row", "height", "width", "channel"))


class _JpegCoder:
    """Appends JPEG files to one long array, a shard at a time."""

    def __init__(self, group: zarr.Group, num_rows: int, size: tuple[int, int], layout: FrameLayout) -> None:
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
        for frame in frames:
            file = io.BytesIO()
            Image.fromarray(np.ascontiguousarray(frame)).save(file, "JPEG", quality=self._quality)
            self._pending += file.getbuffer()
            self._starts.append(self._starts[-1] + file.tell())
            if len(self._pending) >= SHARD_BYTES:
                self._flush(SHARD_BYTES)

    def finish(self, num_rows: int) -> None:
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


_CODERS: dict[str, Callable[[zarr.Group, int, tuple[int, int], FrameLayout], _LosslessCoder | _JpegCoder]] = {
    "lossless": _LosslessCoder,
    "jpeg": _JpegCoder,
}


def _keep_whole_shards(array: zarr.Array[Any]) -> int:
    """How many shard files from the first on are there and not cut off; those after them are removed.

    zarr reads what is there before it writes, and fails where that is cut off.
    """
    folder = Path(str(array.store_path.store.root)) / array.path
    missing = _missing_shards(folder)
    count = missing[0] if missing else _num_shards(array)
    for shard in (folder / "c").glob("*"):
        if shard.name.isdecimal() and int(shard.name) >= count:
            remove(shard)
    return count


def _missing_shards(folder: Path) -> list[int]:
    """Shards of the array in a folder that are not there or cut off, ascending."""
    metadata = json.loads((folder / "zarr.json").read_text(encoding="utf-8"))
    count = -(-metadata["shape"][0] // metadata["chunk_grid"]["configuration"]["chunk_shape"][0])
    return [index for index in range(count) if is_cut(folder / "c" / str(index) / "0" / "0" / "0", metadata)]


def _num_shards(array: zarr.Array[Any]) -> int:
    return math.ceil(int(array.shape[0]) / int(array.shards[0]))


def _adjacent(values: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Index ranges [first, last) of ascending values that follow one another without a gap."""
    if not len(values):
        return []
    edges = np.flatnonzero(np.diff(values) != 1) + 1
    return list(zip([0, *edges.tolist()], [*edges.tolist(), len(values)], strict=True))
