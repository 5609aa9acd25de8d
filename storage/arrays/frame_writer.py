"""Writing the frames of one video into a frame store: by one process, or by several that share its shards."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np
import zarr

from reelwright.storage.arrays.frame_coders import (
    CODERS,
    JpegCoder,
    LosslessCoder,
    count_shards,
    find_missing_shards,
    lossless_array,
    opened_lossless,
)
from reelwright.storage.arrays.frames import TIMES, FrameLayout, Frames
from reelwright.storage.arrays.spans import RowTimes
from reelwright.storage.arrays.zarrs import publish, small_array
from reelwright.storage.constants import PARTIAL
from reelwright.storage.errors import StoreError, UnusableStoreError
from reelwright.storage.files import remove
from reelwright.storage.heartbeat import check_held
from reelwright.storage.store_errors import check_there, named, usable


class FrameWriter:
    """Writes the frames of one video, a shard at a time, under a temporary name until `commit`.

    Use it in a `with` block: leaving it by an error removes what was written, unless the store is to blame. A process
    that is killed leaves its shards, and the next writer with the same ``tag`` (who decodes) goes on after them:
    `num_rows` says where. With codec jpeg, or where ``times`` of all rows are not known before they come (None), it
    begins anew. Holds at most one shard in memory.
    """

    def __init__(self, store: Path, digest: str, times: RowTimes | None, layout: FrameLayout, *, tag: str = "") -> None:
        self.num_rows = 0
        self._planned, self._layout = times, layout
        self._appended: list[RowTimes] = []
        self._path = store / digest
        self._temporary = _temporary_of(self._path, tag)
        self._coder: LosslessCoder | JpegCoder | None = None
        is_kept = self._resume()
        _remove_leftovers(self._path, but=self._temporary if is_kept else None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, UnusableStoreError):
            remove(self._temporary)

    def append(self, frames: Frames, times: RowTimes | None = None) -> None:
        """Add (n, H, W, 3) uint8 frames after those that came before; with their times where not all are planned.

        Raises UnusableStoreError when the disk is full, the store read-only or gone.
        """
        if self._planned is None:
            assert times is not None
            self._appended.append(times)
        check_held(self._path)
        with usable(self._path.parents[2]), named(self._path):
            if self._coder is None:
                check_there(self._path.parent / "zarr.json")
                size = (frames.shape[1], frames.shape[2])
                described = {"size": list(size), "codec": self._layout.codec}
                self._group = zarr.create_group(self._temporary, attributes=described)
                num_rows = None if self._planned is None else self._planned.num_rows
                self._coder = CODERS[self._layout.codec](self._group, num_rows, size, self._layout)
                if self._planned is not None:
                    self._write_times(self._planned)
            self._coder.append(frames)
        self.num_rows += len(frames)

    def commit(self) -> int:
        """Shrink to the rows that came, write the times, give the group its name. Returns the bytes on disk."""
        if self._coder is None:
            raise StoreError(f"no frames were written for {self._path.name}")
        with usable(self._path.parents[2]), named(self._path):
            self._coder.finish(self.num_rows)
            if self._planned is None:
                self._write_times(RowTimes.join(self._appended))
            elif self.num_rows < self._planned.num_rows:
                self._write_times(self._planned.take(np.arange(self.num_rows)))
            check_there(self._path.parent / "zarr.json")
            return publish(self._temporary, self._path)

    def _write_times(self, times: RowTimes) -> None:
        for name in TIMES:
            remove(self._temporary / name)
            small_array(self._group, name, getattr(times, name), axes=("row",))

    def _resume(self) -> bool:
        """Take up what a killed process left of the very rows that are to be written; whether there was such."""
        group = None if self._planned is None else _left_behind(self._temporary, self._planned)
        if group is None or self._planned is None:
            return False
        height, width = group["frame"].shape[1:3]
        self._group = group
        self._coder = LosslessCoder(group, self._planned.num_rows, (height, width), self._layout)
        self.num_rows = self._coder.written
        return True


class SharedFrames:
    """The frames of one long video that several processes write, each other shards of it; lossless only.

    It lies where a `FrameWriter` of the same ``tag`` would write it, so that either goes on after the other.
    """

    def __init__(self, store: Path, digest: str, *, tag: str) -> None:
        self._path = store / digest
        self._temporary = _temporary_of(self._path, tag)

    @classmethod
    def find(cls, store: Path, digest: str) -> tuple[SharedFrames, str] | None:
        """A video that was begun, and its tag; None where there is none."""
        for path in _begun_by_anyone(store / digest):
            if _is_begun(path):
                tag = path.name.rpartition("-")[2]
                return cls(store, digest, tag=tag), tag
        return None

    def begin(self, times: RowTimes, size: tuple[int, int]) -> None:
        """Make the arrays at their full size, for frames of ``size`` (height, width); those that fit are kept."""
        with usable(self._path.parents[2]), named(self._path):
            check_there(self._path.parent / "zarr.json")
            is_kept = self._fits(times, size)
            _remove_leftovers(self._path, but=self._temporary if is_kept else None)
            if not is_kept:
                attributes = {"size": list(size), "codec": "lossless"}
                group = zarr.create_group(self._temporary, attributes=attributes)
                lossless_array(group, times.num_rows, size)
                for name in TIMES:
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
        return count_shards(self._array())

    def missing_shards(self) -> list[int]:
        """Shards that are not there or cut off, ascending."""
        return find_missing_shards(self._temporary / "frame")

    def write_shard(self, index: int, frames: Frames) -> None:
        """Write a shard, (n, H, W, 3) uint8, if it is whole: where a video is damaged it is not.

        Raises UnusableStoreError when the disk is full, the store read-only or gone.
        """
        check_held(self._path)
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
            return publish(self._temporary, self._path)

    def _array(self) -> zarr.Array[Any]:
        return opened_lossless(zarr.open_group(self._temporary, mode="r+", use_consolidated=False))

    def _fits(self, times: RowTimes, size: tuple[int, int]) -> bool:
        group = _left_behind(self._temporary, times)
        return group is not None and group["frame"].shape == (times.num_rows, *size, 3)


def _temporary_of(video: Path, tag: str) -> Path:
    return video.with_name(f"{PARTIAL}{video.name}-{tag}")


def _begun_by_anyone(video: Path) -> list[Path]:
    return sorted(video.parent.glob(f"{PARTIAL}{video.name}-*"))


def _remove_leftovers(video: Path, *, but: Path | None) -> None:
    """Of processes that were killed; one writes a video at a time, or several that have one tag."""
    for leftover in _begun_by_anyone(video):
        if leftover != but:
            remove(leftover)


def _is_begun(temporary: Path) -> bool:
    """Whether all arrays of a lossless video are there, whole or not."""
    return all((temporary / name / "zarr.json").is_file() for name in ("", "frame", *TIMES))


def _left_behind(temporary: Path, times: RowTimes) -> zarr.Group | None:
    """What a killed process left of the very rows that are to be written; None where there is no such."""
    if not _is_begun(temporary):
        return None
    group = zarr.open_group(temporary, mode="r+", use_consolidated=False)
    try:
        is_same = all(np.array_equal(group[name][:], getattr(times, name)) for name in TIMES)
    except (ValueError, OSError):  # killed while they were written
        return None
    return group if is_same and group["frame"].shape[0] == times.num_rows else None
