"""Batches with as many frames of each state, and background: drawn from seed, epoch and number of the batch alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from reelwright.stages.augment.resized_crop import ClipTransform
from reelwright.stages.fit.loop.batches import Batch, Split, read_early
from reelwright.stages.fit.processes.world import ALONE, World
from reelwright.stages.pretrain.examples import BACKGROUND, Examples, IntArray
from reelwright.stages.pretrain.frame_config import BatchSettings
from reelwright.storage.errors import InputError

Frames = npt.NDArray[np.uint8]
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
