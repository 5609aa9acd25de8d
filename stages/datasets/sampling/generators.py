"""Random generators that follow from a seed, a purpose and a place: nothing to store for an exact resume.

    purpose "crop", epoch 3, item 17   ->   always the same numbers, in any batch, worker, process, or second try

Purposes keep the streams apart: what a crop draws says nothing about what an erased box draws.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np


def generator_at(seed: int, purpose: str, *, epoch: int, place: int) -> np.random.Generator:
    """The generator of one place (an item, a batch, a step) in an epoch; all numbers not negative."""
    return np.random.default_rng([seed, zlib.crc32(purpose.encode()), epoch, place])


def generators_at(seed: int, purpose: str, *, epoch: int, places: Sequence[int]) -> list[np.random.Generator]:
    """One generator a place, for a batch of clips.

    Give positions in the epoch's order where an item comes several times an epoch, or its repeats would be alike.
    """
    return [generator_at(seed, purpose, epoch=epoch, place=place) for place in places]
