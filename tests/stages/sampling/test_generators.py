"""Generators follow from seed, purpose and place, and from nothing else."""

from __future__ import annotations

from itertools import combinations

from reelwright.stages.datasets.sampling.generators import generator_at, generators_at

PLACES = {
    "first": (0, "crop", 0, 0),
    "other seed": (1, "crop", 0, 0),
    "other purpose": (0, "erase", 0, 0),
    "other epoch": (0, "crop", 1, 0),
    "other place": (0, "crop", 0, 1),
}


def drawn(seed, purpose, epoch, place):
    return generator_at(seed, purpose, epoch=epoch, place=place).integers(0, 1 << 62, 4).tolist()


def test_streams_are_apart():
    for one, other in combinations(PLACES.values(), 2):
        assert drawn(*one) != drawn(*other)


def test_a_stream_is_the_same_again_and_in_any_batch():
    assert drawn(*PLACES["first"]) == drawn(*PLACES["first"])
    several = generators_at(7, "mix", epoch=2, places=[9, 4])
    assert several[1].random() == generator_at(7, "mix", epoch=2, place=4).random()


def test_streams_stay_what_they_were():
    """A change here would change every run that is resumed or repeated."""
    drawn_by_numpy_2_4 = [40, 342, 837]
    assert generator_at(0, "crop", epoch=0, place=0).integers(0, 1000, 3).tolist() == drawn_by_numpy_2_4
