"""Which videos there are, by number: class, instance, split, name and seed; what is true in frames of action videos.

Samples are numbered from 1 (`step`). Classes are shuffled once and take turns, so that every beginning of the list is
balanced; within a class, instances count from 0. The random numbers of a sample come from
`SeedSequence(seed, spawn_key=(class, instance, attempt))`: whatever else is made, in whatever order, on whatever
process, a sample is the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reelwright.stages.synthesize.actions.draw import truth_of
from reelwright.stages.synthesize.config import SynthesizeConfig
from reelwright.stages.synthesize.families.fractal import draw_variation
from reelwright.stages.synthesize.ledger import write_rows
from reelwright.storage.digests import digest

_ORDER_STREAM = 0  # spawn_key (0,): the order of classes
_UNLABELLED_STREAM = 1
_CLASS_STREAM = 2  # spawn_key (2, number): classes that are drawn, --gen-param
_NAMED_BIT = 1 << 63  # classes with a name have streams of their own, whatever other classes there are


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One video, or one set of images in the still mode."""

    step: int  # from 1
    label: str  # name of the class; empty: unlabelled
    index: int  # of the instance in its class, from 0
    stream: int  # the class's part of the seed
    split: str
    name: str  # path without ending, relative to the data set


@dataclass(frozen=True)
class SamplePlan:
    """All samples of a data set, as many as anyone asks for; ``labels`` is empty for an unlabelled one."""

    config: SynthesizeConfig
    labels: tuple[str, ...] = ()

    def sample(self, step: int) -> Sample:
        """Sample number ``step``, from 1."""
        if not self.labels:
            return self._sample(step, "", step - 1, _UNLABELLED_STREAM)
        turn, place = divmod(step - 1, len(self.labels))
        order = generator_of(self.config, _ORDER_STREAM).permutation(len(self.labels))
        label = self.labels[order[place]]
        return self._sample(step, label, turn, _NAMED_BIT | int(digest(label)[:15], 16))

    def _sample(self, step: int, label: str, index: int, stream: int) -> Sample:
        name = f"{label}/{step}" if label else str(step)
        if self.config.family == "fractal" and not label:
            name = f"{step}-{variation_of(self.config, stream, index)}"
        return Sample(step=step, label=label, index=index, stream=stream, split=self.config.split_of(index), name=name)


def generator_of(config: SynthesizeConfig, *key: int) -> np.random.Generator:
    """The random numbers of a part of the data set."""
    return np.random.default_rng(np.random.SeedSequence(entropy=config.seed, spawn_key=key))


def variation_of(config: SynthesizeConfig, stream: int, index: int) -> int:
    """The variation of a fractal that is drawn anew: known before it is drawn, since it stands in the file name."""
    return draw_variation(generator_of(config, stream, index), config.fractal.variations)


def class_stream(number: int) -> tuple[int, int]:
    """(stream, index) of class ``number``, from 1, among those that are drawn."""
    return _CLASS_STREAM, number


TRUTH = "objects.csv"
COLUMNS = ("video_id", "frame", "time_seconds", "x", "y", "w", "h", "acts")
_DIGITS = 2  # of a pixel


def write_truth(path: Path, plan: SamplePlan, names: Iterable[str]) -> None:
    """Write the table of COLUMNS for all frames of the samples ``names``; an equal one stays untouched.

    x and y are the left upper corner of the box, w and h its size, in pixels of the video; empty where nothing of the
    object is seen. ``acts`` is 1 in frames of the action.
    """

    def rows() -> Iterator[tuple[object, ...]]:
        for name in names:
            sample = plan.sample(int(name.rpartition("/")[2]))
            rng = generator_of(plan.config, sample.stream, sample.index, 0)
            for index, truth in enumerate(truth_of(rng, plan.config, label=sample.label)):
                box: tuple[object, ...] = ("",) * 4
                if truth.box is not None:
                    left, top, right, bottom = truth.box
                    box = tuple(round(value, _DIGITS) for value in (left, top, right - left, bottom - top))
                yield name, index, round(index / plan.config.fps, 6), *box, int(truth.is_acting)

    write_rows(path, COLUMNS, rows())
