"""Windows and views of frames for training, as the encoder sees them: from memory where they fit, else from a store."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from reelwright.stages.augment.resized_crop import ClipTransform
from reelwright.stages.base.work import VideoItem
from reelwright.stages.datasets.sampling.two_views import DrawnViews
from reelwright.stages.datasets.sampling.windows import IntArray, shown, window_rows
from reelwright.stages.decode.config import DecodeConfig
from reelwright.stages.decode.geometry import Geometry, apply
from reelwright.stages.decode.processes.attempts import num_cores
from reelwright.stages.decode.source import Ended, FrameChunk, stream_frames
from reelwright.stages.fit.loop.batches import Batch, Origin, read_early
from reelwright.stages.train.view_batches import VideoViews
from reelwright.stages.train.window_batches import LabelledBatches, describe_windows
from reelwright.storage.arrays.frames import FrameRows, FrameStore
from reelwright.storage.arrays.spans import Spans
from reelwright.storage.errors import StoreError
from reelwright.storage.ledger.items import DONE

Frames = npt.NDArray[np.uint8]
Read = Callable[[int, npt.NDArray[np.int64]], Frames]  # position of a video, its rows -> (n, h, w, 3)

MAX_READERS = 8  # clips of a batch that are read at once


@dataclass(frozen=True)
class StoredVideos:
    """Videos whose frames are stored, and where their rows lie in time."""

    digests: tuple[str, ...]
    rows: tuple[FrameRows, ...]
    spans: tuple[Spans, ...]

    def only(self, positions: Collection[int]) -> StoredVideos:
        """The videos at these positions."""
        chosen = sorted(positions)
        return StoredVideos(
            tuple(self.digests[at] for at in chosen),
            tuple(self.rows[at] for at in chosen),
            tuple(self.spans[at] for at in chosen),
        )


def open_videos(store: FrameStore, digests: Sequence[str]) -> StoredVideos:
    """The videos of ``digests`` that are in the store; each row has the span of its frame."""
    present = set(store.digests())
    found = tuple(digest for digest in digests if digest in present)
    rows = tuple(store.rows(digest) for digest in found)
    return StoredVideos(found, rows, tuple(spans_of(entry) for entry in rows))


def spans_of(rows: FrameRows) -> Spans:
    """The span of every stored frame."""
    return Spans(rows.pts_seconds, rows.stop_seconds, rows.source_frame, rows.source_frame + 1)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How rows are read, and what is cached in memory for it."""

    read: Read
    memory_bytes: int


@dataclass(frozen=True, kw_only=True)
class ClipReading:
    """How clips are read, and what is done to those that are trained on as they are."""

    train: Read
    val: Read
    transforms: tuple[ClipTransform, ...]


def reader(videos: StoredVideos, of: Collection[int], geometry: Geometry, *, store: Path, memory_bytes: int) -> Reading:
    """Frames as the encoder sees them, of the videos at the positions ``of``.

    All are brought into memory at once where they fit into ``memory_bytes``.
    """
    assert geometry.size is not None
    height, width = geometry.size
    total_bytes = sum(videos.rows[video].num_rows for video in of) * height * width * 3
    if total_bytes > memory_bytes:
        return Reading(read=lambda video, rows: apply(videos.rows[video].take(rows), geometry), memory_bytes=0)
    cached = _load(videos.only(of), geometry, store=store, size=(height, width))
    return Reading(read=lambda video, rows: cached[videos.digests[video]][rows], memory_bytes=total_bytes)


def stored_reader(videos: StoredVideos, of: Collection[int], *, memory_bytes: int) -> Reading:
    """Frames as they are stored, of the videos at the positions ``of``.

    Where all fit into ``memory_bytes``, each video is read once, when it is first asked for.
    """
    total_bytes = sum(videos.rows[video].num_rows * math.prod(videos.rows[video].frame_size) * 3 for video in of)
    if total_bytes > memory_bytes:
        return Reading(read=lambda video, rows: videos.rows[video].take(rows), memory_bytes=0)

    cached: dict[int, Frames] = {}
    lock = threading.Lock()

    def read(video: int, rows: npt.NDArray[np.int64]) -> Frames:
        with lock:  # else two readers of a video would both load it
            if video not in cached:
                cached[video] = videos.rows[video].read(0, videos.rows[video].num_rows)
        return cached[video][rows]

    return Reading(read=read, memory_bytes=total_bytes)


def drawn_clip(
    read: Read, transforms: Iterable[ClipTransform], epoch: int, video: int, rows: npt.NDArray[np.int64], place: int
) -> Frames:
    """A clip to train on, at a place of an epoch: as it is read, then what each transform makes of it."""
    clip = read(video, rows)
    for transform in transforms:
        clip = transform(clip, epoch, place)
    return clip


def in_threads(make: Callable[..., Frames], *of: Iterable[Any]) -> list[Frames]:
    """``make`` of each, in order, some at once: decoding and resizing leave the interpreter to others."""
    with ThreadPoolExecutor(min(MAX_READERS, num_cores())) as pool:
        return list(pool.map(make, *of))


def _load(videos: StoredVideos, geometry: Geometry, *, store: Path, size: tuple[int, int]) -> Mapping[str, Frames]:
    cached = {
        digest: np.empty((rows.num_rows, *size, 3), np.uint8)
        for digest, rows in zip(videos.digests, videos.rows, strict=True)
    }
    items = [VideoItem(digest=digest, path="", video_id=digest) for digest in videos.digests]
    events = stream_frames(items, decode=DecodeConfig(), frames_store=store, geometry=geometry, workers=None)
    with closing(events):  # type: ignore[type-var]  # it is a generator, which has close
        for event in events:
            if isinstance(event, FrameChunk):
                cached[event.digest][event.start_row : event.start_row + len(event.frames)] = event.frames
            elif isinstance(event, Ended) and event.status not in DONE:
                raise StoreError(f"stored frames of video {event.digest} cannot be read: {event.message}")
    return cached


@dataclass(frozen=True, kw_only=True)
class FrameBatches(LabelledBatches):
    """Batches of windows of frames: inputs are `frames` (B, length, h, w, 3) uint8 and `mask` (B, length)."""

    read: Read
    transforms: tuple[ClipTransform, ...] = ()  # of every clip, as it is read
    is_val: bool = False
    # Nothing is drawn: a frame that several windows of a batch hold is read once, and `first_shown` (B, length) int64
    # says of each frame where among all of the batch it is shown first, so that an encoder need not see it again.

    @read_early
    def epoch(self, epoch: int, *, first: int = 0) -> Iterator[Batch]:
        """See `Batches.epoch`."""
        clip = partial(drawn_clip, self.read, self.transforms, epoch)
        order, ordered = self.drawn(epoch)
        for places, num_all, is_counted in self.parts(np.arange(len(order)), first=first):
            picked, windows = order[places], ordered.take(places)
            rows, mask = window_rows(windows, self.shape)
            videos = windows.video.tolist()
            if self.is_val:
                first_shown, frames = self._each_once(windows.video, rows)
            else:
                frames = np.stack(in_threads(clip, videos, rows, places.tolist()))
            inputs = {"frames": torch.from_numpy(frames), "mask": torch.from_numpy(shown(mask, self.shape))}
            if self.is_val:
                inputs["first_shown"] = torch.from_numpy(first_shown)
            about = partial(describe_windows, windows, self.shape, self.names)
            targets = torch.from_numpy(self.targets[picked])
            yield Batch(inputs, targets, num_all, is_counted, about, Origin(epoch, places))

    def _each_once(
        self, videos: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], Frames]:
        """Where each frame of windows (B, length) is shown first, and the frames (B, length, h, w, 3)."""
        names = np.stack([np.repeat(videos, rows.shape[1]), rows.reshape(-1)], axis=1)
        once, first, of_once = np.unique(names, axis=0, return_index=True, return_inverse=True)
        cuts = np.flatnonzero(np.diff(once[:, 0])) + 1
        parts = [
            part for of_video in np.split(once, cuts) for part in np.array_split(of_video, MAX_READERS) if len(part)
        ]
        read = in_threads(lambda part: self.read(int(part[0, 0]), part[:, 1]), parts)
        of_once = of_once.reshape(rows.shape)
        return first[of_once], np.concatenate(read)[of_once]


@dataclass(frozen=True, kw_only=True)
class FrameViewBatches(VideoViews):
    """Views of frames, as `ViewBatches` of stored rows: inputs are `frames` (N V, T C, h, w, 3) uint8 too.

    What is drawn for a view is its own.
    """

    reading: ClipReading
    num_frames: Sequence[int]  # of each video that can be read
    videos: Sequence[int] | None = None  # among those that can be read; None: they are all

    @cached_property
    def rows_of_videos(self) -> Sequence[int]:
        """See VideoViews."""
        return self.num_frames if self.videos is None else [self.num_frames[video] for video in self.videos]

    epoch = read_early(VideoViews.epoch)

    def read_views(self, drawn: DrawnViews, origin: Origin) -> dict[str, Tensor]:
        """See VideoViews."""
        clips = in_threads(
            partial(self._clip, origin.epoch), drawn.video.tolist(), drawn.rows, origin.positions.tolist()
        )
        return {"frames": torch.from_numpy(np.stack(clips))}

    def _clip(self, epoch: int, video: int, rows: IntArray, place: int) -> Frames:
        known = video if self.videos is None else self.videos[video]
        if not self.draws:
            return self.reading.val(known, rows.reshape(-1))
        return drawn_clip(self.reading.train, self.reading.transforms, epoch, known, rows.reshape(-1), place)
