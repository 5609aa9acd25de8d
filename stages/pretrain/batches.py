"""Batches of pretrain, which follow from the seed, the epoch and the place alone, so an epoch can go on at any batch.

Of key frames: as many of each state, and background. Of clips of stored frames: one or two of each video from random
starts, the last frame repeated at its end.

    videos   7 2 5                     the epoch's order, each once
    clips    7a 7b | 2a 2b | 5a 5b     two of each, for losses that compare them
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
from reelwright.stages.pretrain.examples import BACKGROUND, Examples
from reelwright.stages.pretrain.examples_config import BatchSettings
from reelwright.stages.train.window_batches import describe_windows
from reelwright.storage.errors import InputError

ReadFrames = Callable[[IntArray, IntArray], Frames]  # positions of videos, their rows -> (n, h, w, 3)
ReadStored = Callable[[int, int], Frames]  # position of a video, its row -> (1, H, W, 3) as it is stored


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Where batches are drawn from: positions of examples by class."""

    examples: Examples  # real ones, then synthetic ones
    real: dict[int, IntArray]  # class -> positions; background too
    synthetic: dict[int, IntArray]

    @property
    def classes(self) -> list[int]:
        """The states of which there is a frame."""
        return sorted({*self.real, *self.synthetic} - {BACKGROUND})


def make_pool(real: Examples, synthetic: Examples, *, batch: BatchSettings) -> Pool:
    """All examples by class. Raises InputError where a batch could not be filled."""
    both = Examples.joined([real, synthetic])
    positions = np.arange(len(both), dtype=np.int64)
    pool = Pool(
        examples=both,
        real=_by_class(positions[: len(real)], real.label),
        synthetic=_by_class(positions[len(real) :], synthetic.label),
    )
    if len(pool.classes) < 2:
        raise InputError(
            "fewer than two states have a frame to learn from; look at states, key_frames and train_splits"
        )
    if batch.classes is not None and batch.classes > len(pool.classes):
        raise InputError(
            f"batch.classes is {batch.classes}, but only {len(pool.classes)} states have a frame; lower it"
        )
    if batch.synthetic_per_class and not pool.synthetic:
        raise InputError("batch.synthetic_per_class is set, but no video of the synthetic splits has a labelled frame")
    return pool


def draw_batch(pool: Pool, batch: BatchSettings, rng: np.random.Generator) -> IntArray:
    """Positions of examples: class by class real, then synthetic ones, and background behind them.

    A state without real frames gets synthetic ones in their place, and one without synthetic frames real ones.
    """
    picked: list[IntArray] = []
    for label in rng.permutation(pool.classes)[: batch.classes].tolist():
        real, synthetic = pool.real.get(label), pool.synthetic.get(label)
        if not batch.synthetic_per_class:
            synthetic = real if synthetic is None else synthetic
        wanted = ((batch.per_class, real, synthetic), (batch.synthetic_per_class, synthetic, real))
        for count, first, second in wanted:
            source = second if first is None else first
            assert source is not None  # a class of the pool has one of both
            picked.append(_draw(source, count, rng))
    if BACKGROUND in pool.real:
        picked.append(_draw(pool.real[BACKGROUND], batch.background, rng))
    return np.concatenate(picked)


def _draw(source: IntArray, count: int, rng: np.random.Generator) -> IntArray:
    """``count`` of ``source``, none twice unless there are too few."""
    rounds = -(-count // len(source))
    orders = [rng.permutation(source) for _ in range(rounds)]
    return np.concatenate([np.zeros(0, dtype=np.int64), *orders])[:count]


def _by_class(positions: IntArray, labels: IntArray) -> dict[int, IntArray]:
    return {int(label): positions[labels == label] for label in np.unique(labels)}


@dataclass(frozen=True, kw_only=True)
class KeyFrameBatches:
    """Batches of frames (B, h, w, 3) uint8; targets int64 (B,) are classes, or which frame it is a copy of."""

    read: ReadFrames
    pool: Pool
    batch: BatchSettings
    seed: int
    crop: ClipTransform | None = None  # of every frame and copy, as it is read
    read_stored: ReadStored | None = None  # what is cropped
    world: World = ALONE
    num_copies: int = 1  # of each frame; above 1 (SimCLR) targets number the frames and not the states

    @property
    def num_items(self) -> int:
        """Frames of an epoch."""
        return self.num_batches * len(self._drawn(0, 0)) * self.num_copies

    @property
    def num_batches(self) -> int:
        """Batches of an epoch."""
        return self.batch.per_epoch

    def _drawn(self, epoch: int, number: int) -> IntArray:
        return draw_batch(self.pool, self.batch, np.random.default_rng([self.seed, epoch, number]))

    def _frames(self, picked: IntArray, epoch: int, places: IntArray) -> Frames:
        """Frames (B, h, w, 3) of a batch: each crop is drawn from the place of its frame in the epoch."""
        video, row = self.pool.examples.video[picked], self.pool.examples.row[picked]
        if self.crop is None:
            return self.read(video, row)
        assert self.read_stored is not None
        pairs = zip(video.tolist(), row.tolist(), strict=True)
        stored = (self.read_stored(one, at) for one, at in pairs)
        return np.concatenate([self.crop(frame, epoch, at) for at, frame in zip(places.tolist(), stored, strict=True)])

    @read_early
    def epoch(self, epoch: int, *, first: int = 0) -> Iterator[Batch]:
        """See `Batches.epoch`."""
        copies = np.arange(self.num_copies)
        for number in range(first, self.num_batches):
            drawn = self._drawn(epoch, number)
            split = Split(batch_size=len(drawn), world=self.world)
            ((own, _, is_counted),) = split.parts(np.arange(len(drawn)))
            picked = np.repeat(drawn[own], self.num_copies)
            places = ((number * len(drawn) + own)[:, None] * self.num_copies + copies).flatten()
            frames = torch.from_numpy(self._frames(picked, epoch, places))
            targets = self.pool.examples.label[picked] if self.num_copies == 1 else np.repeat(own, self.num_copies)
            num_all = len(drawn) * self.num_copies
            yield Batch({"frames": frames}, torch.from_numpy(targets), num_all, is_counted)


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
class ClipBatches(Split):
    """Inputs are `frames` (B V, T, h, w, 3) uint8, `mask` (B V, T), all True, and `video` (B V,), its position.

    Targets int64 (B V,) are the labels. The V clips of a video stand side by side.
    """

    videos: ClipVideos
    read: Read
    shape: WindowShape
    seed: int
    num_views: int = 1
    transforms: tuple[ClipTransform, ...] = ()  # of every clip, as it is read

    @property
    def num_items(self) -> int:
        """Clips of an epoch."""
        return self.num_kept(len(self.videos)) * self.num_views

    @property
    def num_batches(self) -> int:
        """Batches of an epoch; the last may be smaller."""
        return self.num_parts(len(self.videos))

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
        for own, num_all, is_counted in self.parts(np.arange(len(order)), first=first):
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
