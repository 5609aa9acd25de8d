"""Two views of a video, within the bounds that CARL's own code gave."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from reelwright.stages.datasets.sampling.two_views import (
    TimeAugment,
    block_size,
    offset_bounds,
    two_views,
    uniform_view,
)

CARL = json.loads((Path(__file__).parents[2] / "data" / "sampling_vectors.json").read_text())["carl"]
BOUNDS = {f"{c['seq_len']} {c['num_frames']} {c['expand_ratio']}": c for c in CARL["time_augment_bounds"]}


@pytest.mark.parametrize(("base", "name"), [("video", "pouring"), ("clip", "finegym")])
@pytest.mark.parametrize("case", BOUNDS.values(), ids=BOUNDS)
def test_bounds_of_carl(case, base, name):
    how = TimeAugment(length=case["num_frames"], base=base)
    block = block_size(case["seq_len"], case["expand_ratio"], how)
    assert block == case["block_size_pouring_penn_k400" if base == "video" else "block_size_finegym"]
    bounds = offset_bounds(case["seq_len"], block, how, before=None)
    assert bounds == (0, case[f"offset_high_exclusive_first_view_{name}"])
    assert min(case["seq_len"], case["num_frames"]) == case["num_valid"]


@pytest.mark.parametrize("base", ["clip", "video"])
@pytest.mark.parametrize(("num_frames", "length"), [(100, 20), (20, 20), (7, 20), (1, 3)])
def test_views_are_in_order_and_inside(base, num_frames, length):
    how = TimeAugment(length=length, base=base)
    for seed in range(50):
        for view in two_views(num_frames, how, np.random.default_rng(seed)):
            assert len(view.frames) == len(view.mask) == length
            assert view.frames.min() >= 0
            assert view.frames.max() < num_frames
            assert (np.diff(view.frames[view.mask]) > 0).all()
            assert (np.diff(view.mask.astype(int)) <= 0).all()  # masked frames are at the end
            assert (view.frames[~view.mask] == num_frames - 1).all()


def test_the_second_offset_stays_near_the_first():
    how = TimeAugment(length=20, overlap=0.75, max_stretch=1.0)
    starts = [[int(view.frames[0]) for view in two_views(200, how, np.random.default_rng(seed))] for seed in range(300)]
    distance = [abs(first - second) for first, second in starts]
    assert max(distance) == 5  # int((1 - 0.75) * 20)
    same = TimeAugment(length=20, overlap=1.0, max_stretch=1.0)
    for seed in range(20):
        first, second = two_views(200, same, np.random.default_rng(seed))
        assert first.frames.tolist() == second.frames.tolist()
    free = TimeAugment(length=20, overlap=0.0, max_stretch=1.0)
    drawn = [two_views(200, free, np.random.default_rng(seed)) for seed in range(100)]
    assert max(abs(int(first.frames[0] - second.frames[0])) for first, second in drawn) > 100


def test_uniform_view():
    assert uniform_view(3, length=5, generator=np.random.default_rng(0)).mask.tolist() == [True] * 3 + [False] * 2
    drawn = [uniform_view(50, length=5, generator=np.random.default_rng(seed)) for seed in range(200)]
    assert set(np.concatenate([view.frames for view in drawn]).tolist()) == set(range(50))
    assert all((np.diff(view.frames) > 0).all() and view.mask.all() for view in drawn)


def test_the_same_generator_draws_the_same():
    how = TimeAugment(length=20)
    views = [two_views(90, how, np.random.default_rng([3, seed])) for seed in (1, 1, 2)]
    assert (views[0][0].frames == views[1][0].frames).all()
    assert (views[0][0].frames != views[2][0].frames).any()


BAD = {
    "base": ({"base": "block"}, "base 'block' is not known; allowed: clip, video"),
    "stretch": ({"max_stretch": 0.5}, "max_stretch 0.5 must be at least 1"),
    "overlap": ({"overlap": 1.5}, r"overlap 1.5 in \[0, 1\]"),
}


@pytest.mark.parametrize(("how", "match"), BAD.values(), ids=BAD)
def test_refused(how, match):
    with pytest.raises(ValueError, match=match):
        TimeAugment(length=4, **how)


def test_no_frames():
    with pytest.raises(ValueError, match="a video has 0 frames"):
        two_views(0, TimeAugment(length=4), np.random.default_rng(0))
