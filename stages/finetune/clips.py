"""Windows of frames for training: as the encoder sees them, from memory where they fit, else from the frame store."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from reelwright.stages.augment.resized_crop import ClipTransform
from reelwright.stages.base.work import VideoItem
from reelwright.stages.datasets.sampling.windows import shown, window_rows
from reelwright.stages.decode.config import DecodeConfig
from reelwright.stages.decode.geometry import Geometry, apply
from reelwright.stages.decode.source import Ended, FrameChunk, stream_frames
from reelwright.stages.embed.threads import read_ahead
from reelwright.stages.fit.loop.batches import Batch, Origin
from reelwright.stages.train.window_batches import LabelledBatches, describe_windows
from reelwright.storage.arrays.frames import FrameRows, FrameStore
from reelwright.storage.arrays.spans import Spans
from reelwright.storage.errors import StoreError
from reelwright.storage.ledger.items import DONE

Frames = npt.NDArray[np.uint8]
Read = Callable[[int, npt.NDArray[np.int64]], Frames]  # position of a video, its rows -> (n, h, w, 3)

BATCHES_AHEAD = 2


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
    """How rows are read, and what is held in memory for it."""

    read: Read
    held_bytes: int


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
        return Reading(read=lambda video, rows: apply(videos.rows[video].take(rows), geometry), held_bytes=0)
    held = _load(videos.only(of), geometry, store=store, size=(height, width))
    return Reading(read=lambda video, rows: held[videos.digests[video]][rows], held_bytes=total_bytes)


def stored_reader(videos: StoredVideos, of: Collection[int], *, memory_bytes: int) -> Reading:
    """Frames as they are stored, of the videos at the positions ``of``.

    Where all fit into ``memory_bytes``, each video is read once, when it is first asked for.
    """
    total_bytes = sum(videos.rows[video].num_rows * math.prod(videos.rows[video].frame_size) * 3 for video in of)
    if total_bytes > memory_bytes:
        return Reading(read=lambda video, rows: videos.rows[video].take(rows), held_bytes=0)

    @functools.cache
    def whole(video: int) -> Frames:
        rows = videos.rows[video]
        return rows.read(0, rows.num_rows)

    return Reading(read=lambda video, rows: whole(video)[rows], held_bytes=total_bytes)


def _load(videos: StoredVideos, geometry: Geometry, *, store: Path, size: tuple[int, int]) -> Mapping[str, Frames]:
    held = {
        digest: np.empty((rows.num_rows, *size, 3), np.uint8)
        for digest, rows in zip(videos.digests, videos.rows, strict=True)
    }
    items = [VideoItem(digest=digest, path="", video_id=digest) for digest in videos.digests]
    events = stream_frames(items, decode=DecodeConfig(), frames_store=store, geometry=geometry, workers=None)
    with closing(events):  # type: ignore[type-var]  # it is a generator, which has close
        for event in events:
            if isinstance(event, FrameChunk):
                held[event.digest][event.start_row : event.start_row + len(event.frames)] = event.frames
            elif isinstance(event, Ended) and event.status not in DONE:
                raise StoreError(f"stored frames of video {event.digest} cannot be read: {event.message}")
    return held


@dataclass(frozen=True, kw_only=True)
class FrameBatches(LabelledBatches):
    """Batches of windows of frames: inputs are `frames` (B, length, h, w, 3) uint8 and `mask` (B, length)."""

    read: Read
    transforms: tuple[ClipTransform, ...] = ()  # of every clip, as it is read

    def epoch(self, epoch: int, *, first: int = 0) -> Iterator[Batch]:
        """As `train.batches.Batches.epoch`; the next batches are read while one is in use."""
        with read_ahead(self._read(epoch, first), depth=BATCHES_AHEAD) as batches:
            yield from batches

    def _read(self, epoch: int, first: int) -> Iterator[Batch]:
        order, ordered = self.drawn(epoch)
        for places, num_all, is_counted in self.split.parts(np.arange(len(order)), first=first):
            picked, windows = order[places], ordered.take(places)
            rows, mask = window_rows(windows, self.shape)
            frames = [self.read(int(video), row) for video, row in zip(windows.video, rows, strict=True)]
            for transform in self.transforms:
                frames = [transform(clip, epoch, int(at)) for clip, at in zip(frames, places, strict=True)]
            inputs = {"frames": torch.from_numpy(np.stack(frames)), "mask": torch.from_numpy(shown(mask, self.shape))}
            about = partial(describe_windows, windows, self.shape, self.names)
            targets = torch.from_numpy(self.targets[picked])
            yield Batch(inputs, targets, num_all, is_counted, about, Origin(epoch, places))
