"""Batches of clips of stored frames: one or two of each video from random starts, the last frame repeated at its end.

    videos   7 2 5                     the epoch's order, each once
    clips    7a 7b | 2a 2b | 5a 5b     two of each, for losses that compare them

Everything follows from (seed, epoch, place), so an epoch can go on at any batch, in any number of processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch

from reelwright.stages.augment.resized_crop import ClipTransform
from reelwright.stages.datasets.sampling.generators import generator_at, generators_at
from reelwright.stages.datasets.sampling.windows import IntArray, Windows, WindowShape, window_rows, windows_at
from reelwright.stages.finetune.clips import Frames, Read, drawn_clip, in_threads
from reelwright.stages.fit.loop.batches import Batch, Origin, Split, read_early
from reelwright.stages.fit.processes.world import ALONE, World
from reelwright.stages.train.window_batches import describe_windows


@dataclass(frozen=True, kw_only=True)
class ClipVideos:
    """N videos that clips are taken of."""

    positions: IntArray  # (N,) among those that are stored
    num_rows: IntArray  # (N,) frames of each
    labels: IntArray  # (N,) classes; 0 where nothing is learned from them
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.positions)


@dataclass(frozen=True, kw_only=True)
class ClipBatches:
    """Inputs are `frames` (B V, T, h, w, 3) uint8, `mask` (B V, T), all True, and `video` (B V,), its position.

    Targets int64 (B V,) are the labels. The V clips of a video stand side by side.
    """

    videos: ClipVideos
    read: Read
    shape: WindowShape
    batch_size: int  # videos, over all processes
    seed: int
    num_views: int = 1
    transforms: tuple[ClipTransform, ...] = ()  # of every clip, as it is read
    drop_last: bool = False
    world: World = ALONE

    @property
    def split(self) -> Split:
        """How an epoch becomes batches of videos."""
        return Split(batch_size=self.batch_size, world=self.world, drop_last=self.drop_last)

    @property
    def num_items(self) -> int:
        """Clips of an epoch."""
        return self.split.num_items(len(self.videos)) * self.num_views

    @property
    def num_batches(self) -> int:
        """Batches of an epoch; the last may be smaller."""
        return self.split.num_batches(len(self.videos))

    def windows(self, chosen: IntArray, places: IntArray, *, epoch: int) -> Windows:
        """A clip from a random start of each of ``chosen`` (N,) videos, which stand at ``places`` of an epoch."""
        generators = generators_at(self.seed, "clips", epoch=epoch, places=places.tolist())
        num_rows = self.videos.num_rows[chosen]
        room = np.maximum(num_rows - self.shape.span_rows + 1, 1)
        starts = [int(generator.integers(count)) for generator, count in zip(generators, room.tolist(), strict=True)]
        return windows_at(self.videos.positions[chosen], np.array(starts, dtype=np.int64), num_rows, self.shape)

    @read_early
    def epoch(self, epoch: int, *, first: int = 0) -> Iterator[Batch]:
        """See `Batches.epoch`."""
        clip = partial(drawn_clip, self.read, self.transforms, epoch)
        order = generator_at(self.seed, "videos", epoch=epoch, place=0).permutation(len(self.videos))
        views = np.arange(self.num_views)
        for own, num_all, is_counted in self.split.parts(np.arange(len(order)), first=first):
            chosen = np.repeat(order[own], self.num_views)
            places = (own[:, None] * self.num_views + views).reshape(-1)
            windows = self.windows(chosen, places, epoch=epoch)
            rows, _ = window_rows(windows, self.shape)
            frames = in_threads(clip, windows.video.tolist(), rows, places.tolist())
            inputs = {
                "frames": torch.from_numpy(np.stack(frames)),
                "mask": torch.ones(len(frames), self.shape.length, dtype=torch.bool),
                "video": torch.from_numpy(windows.video),
            }
            yield Batch(
                inputs,
                torch.from_numpy(self.videos.labels[chosen]),
                num_all * self.num_views,
                is_counted,
                partial(describe_windows, windows, self.shape, self._names),
                Origin(epoch, places),
            )

    @cached_property
    def _names(self) -> tuple[str, ...]:
        named = dict(zip(self.videos.positions.tolist(), self.videos.names, strict=True))
        return tuple(named.get(position, str(position)) for position in range(max(named) + 1))


def read_clips(windows: Windows, shape: WindowShape, read: Read) -> list[Frames]:
    """The frames (T,h,w,3) of every window."""
    rows, _ = window_rows(windows, shape)
    return in_threads(read, windows.video.tolist(), rows)
