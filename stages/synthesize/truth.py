"""The table of what is true of each frame of action videos: where the object is that acts, and whether it does now."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from reelwright.stages.synthesize.actions.draw import FrameTruth, truth_of
from reelwright.stages.synthesize.config import SynthesizeConfig
from reelwright.stages.synthesize.ledger import write_rows
from reelwright.stages.synthesize.samples import Sample, SamplePlan, generator_of

TRUTH = "objects.csv"
COLUMNS = ("video_id", "frame", "time_seconds", "x", "y", "w", "h", "acts")
_DIGITS = 2  # of a pixel


def sample_truth(config: SynthesizeConfig, sample: Sample) -> list[FrameTruth]:
    """What is true of each frame of a sample of the family actions."""
    return truth_of(generator_of(config, sample.stream, sample.index, 0), config, label=sample.label)


def write_truth(path: Path, plan: SamplePlan, names: Iterable[str]) -> None:
    """Write the table of COLUMNS for all frames of the samples ``names``; an equal one stays untouched.

    x and y are the left upper corner of the box, w and h its size, in pixels of the video; empty where nothing of the
    object is seen. ``acts`` is 1 in frames of the action.
    """

    def rows() -> Iterator[tuple[object, ...]]:
        for name in names:
            sample = plan.sample(int(name.rpartition("/")[2]))
            for index, truth in enumerate(sample_truth(plan.config, sample)):
                box: tuple[object, ...] = ("",) * 4
                if truth.box is not None:
                    left, top, right, bottom = truth.box
                    box = tuple(round(value, _DIGITS) for value in (left, top, right - left, bottom - top))
                yield name, index, round(index / plan.config.fps, 6), *box, int(truth.is_acting)

    write_rows(path, COLUMNS, rows())
