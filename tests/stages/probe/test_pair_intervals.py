"""Intervals over videos of numbers of pairs: which video is which, whatever part of a pair it is."""

from __future__ import annotations

import itertools

import numpy as np

from reelwright.models.metrics.bootstrap import PairMean, intervals
from reelwright.stages.probe.intervals import score_intervals


def test_videos_that_are_keys_alone_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    names, value_VV = list("abcdef"), np.full((6, 6), np.nan)
    pairs = []
    for query, key in itertools.product(range(2), range(2, 6)):  # none of the last four is ever a query
        value_VV[query, key] = rng.uniform(-1, 1)
        pairs.append({"query": names[query], "key": names[key], "tau": value_VV[query, key]})
    wanted = intervals({"kendalls_tau": PairMean(value=value_VV)}, num_videos=6)["kendalls_tau"]
    assert score_intervals({"kendalls_tau": {"pairs": pairs}}) == {"kendalls_tau": [wanted.low, wanted.high]}
