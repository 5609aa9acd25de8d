"""Two views of a video, within the bounds that CARL's own code gave."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from reelwright.stages.datasets.sampling.settings import ViewSettings
from reelwright.stages.datasets.sampling.two_views import (
    anchor_positive_view,
    block_size,
    clip_view,
    context_frames,
    offset_bounds,
    two_views,
    uniform_view,
)

CARL = json.loads((Path(__file__).parents[2] / "data" / "sampling_vectors.json").read_text())["carl"]
BOUNDS = {f"{c['seq_len']} {c['num_frames']} {c['expand_ratio']}": c for c in CARL["time_augment_bounds"]}


@pytest.mark.parametrize(("base", "name"), [("video", "pouring"), ("clip", "finegym")])
@pytest.mark.parametrize("case", BOUNDS.values(), ids=BOUNDS)
def test_bounds_of_carl(case, base, name):
    how = ViewSettings(length=case["num_frames"], base=base)
    block = block_size(case["seq_len"], case["expand_ratio"], how)
    assert block == case["block_size_pouring_penn_k400" if base == "video" else "block_size_finegym"]
    bounds = offset_bounds(case["seq_len"], block, how, before=None)
    assert bounds == (0, case[f"offset_high_exclusive_first_view_{name}"])
    assert min(case["seq_len"], case["num_frames"]) == case["num_valid"]


@pytest.mark.parametrize("base", ["clip", "video"])
@pytest.mark.parametrize(("num_frames", "length"), [(100, 20), (20, 20), (7, 20), (1, 3)])
def test_views_are_in_order_and_inside(base, num_frames, length):
    how = ViewSettings(length=length, base=base)
    for seed in range(50):
        for view in two_views(num_frames, how, np.random.default_rng(seed)):
            assert len(view.frames) == len(view.mask) == length
            assert view.frames.min() >= 0
            assert view.frames.max() < num_frames
            assert (np.diff(view.frames[view.mask]) > 0).all()
            assert (np.diff(view.mask.astype(int)) <= 0).all()  # masked frames are at the end
            assert (view.frames[~view.mask] == num_frames - 1).all()


def test_clips_are_neighbours_from_any_start():
    draws = [clip_view(9, length=3, stride=2, generator=np.random.default_rng(seed)) for seed in range(60)]
    assert {view.frames[0] for view in draws} == {0, 1, 2, 3, 4}
    assert all((np.diff(view.frames) == 2).all() and view.mask.all() for view in draws)
    short = clip_view(4, length=4, stride=2, generator=np.random.default_rng(0))
    assert (short.frames.tolist(), short.mask.tolist()) == ([0, 2, 3, 3], [True, True, False, False])
    with pytest.raises(ValueError, match="stride is 0"):
        clip_view(4, length=4, stride=0, generator=np.random.default_rng(0))


def test_the_second_offset_stays_near_the_first():
    how = ViewSettings(length=20, overlap=0.75, max_stretch=1.0)
    starts = [[int(view.frames[0]) for view in two_views(200, how, np.random.default_rng(seed))] for seed in range(300)]
    distance = [abs(first - second) for first, second in starts]
    assert max(distance) == 5  # int((1 - 0.75) * 20)
    same = ViewSettings(length=20, overlap=1.0, max_stretch=1.0)
    for seed in range(20):
        first, second = two_views(200, same, np.random.default_rng(seed))
        assert first.frames.tolist() == second.frames.tolist()
    free = ViewSettings(length=20, overlap=0.0, max_stretch=1.0)
    drawn = [two_views(200, free, np.random.default_rng(seed)) for seed in range(100)]
    assert max(abs(int(first.frames[0] - second.frames[0])) for first, second in drawn) > 100


@pytest.mark.parametrize("overlap", [0.2, 0.5, 1.0])
@pytest.mark.parametrize(("num_frames", "length"), [(60, 12), (13, 12), (12, 12), (7, 12)])
def test_the_overlap_is_at_least_what_is_asked_for(overlap, num_frames, length):
    """Wherever view 1 starts and the second block may, it covers so much of the clip that starts with view 1."""
    how = ViewSettings(length=length, overlap=overlap)
    valid = min(num_frames, length)
    for stretch in (1.0, 1.2, 1.5):
        block = block_size(num_frames, stretch, how)
        for before in range(num_frames - valid + 1):
            low, high = offset_bounds(num_frames, block, how, before=before)
            assert 0 <= low < high
            for offset in range(low, high):
                shared = min(offset + block, before + valid) - max(offset, before)
                assert shared >= overlap * valid - 1e-9


def test_anchors_and_positives_in_turn():
    drawn = [anchor_positive_view(30, length=8, window=5, generator=np.random.default_rng(s)) for s in range(400)]
    anchors, positives = (np.stack([view.frames[start::2] for view in drawn]) for start in (0, 1))
    assert all(view.mask.all() for view in drawn)
    assert (np.diff(anchors) > 0).all()
    assert set(np.unique(anchors)) == set(range(1, 30))
    assert set(np.unique((anchors - positives)[anchors >= 5])) == {1, 2, 3, 4, 5}
    assert positives.min() == 0  # never before the start
    assert (positives[anchors == 1] == 0).all()


@pytest.mark.parametrize(("num_frames", "num_pairs"), [(1, 0), (2, 1), (4, 3), (5, 4), (6, 4)])
def test_too_few_frames_for_so_many_pairs(num_frames, num_pairs):
    view = anchor_positive_view(num_frames, length=8, window=5, generator=np.random.default_rng(0))
    assert view.mask.tolist() == [True] * 2 * num_pairs + [False] * (8 - 2 * num_pairs)
    assert 0 <= view.frames.min() <= view.frames.max() < num_frames
    if num_pairs == num_frames - 1:
        assert view.frames[0 : 2 * num_pairs : 2].tolist() == list(range(1, num_frames))
    assert (view.frames[2 * num_pairs :] == num_frames - 1).all()


def test_contexts():
    frames = np.array([[0, 7], [20, 40]])
    assert context_frames(frames, num=1, stride=15).tolist() == [[[0], [7]], [[20], [40]]]
    assert context_frames(frames, num=2, stride=15).tolist() == [[[0, 0], [0, 7]], [[5, 20], [25, 40]]]
    assert context_frames(np.array([9]), num=4, stride=3).tolist() == [[0, 3, 6, 9]]


def test_uniform_view():
    assert uniform_view(3, length=5, generator=np.random.default_rng(0)).mask.tolist() == [True] * 3 + [False] * 2
    drawn = [uniform_view(50, length=5, generator=np.random.default_rng(seed)) for seed in range(200)]
    assert set(np.concatenate([view.frames for view in drawn]).tolist()) == set(range(50))
    assert all((np.diff(view.frames) > 0).all() and view.mask.all() for view in drawn)


def test_the_same_generator_draws_the_same():
    how = ViewSettings(length=20)
    views = [two_views(90, how, np.random.default_rng([3, seed])) for seed in (1, 1, 2)]
    assert (views[0][0].frames == views[1][0].frames).all()
    assert (views[0][0].frames != views[2][0].frames).any()


def test_no_frames():
    generator = np.random.default_rng(0)
    draws = [
        lambda: two_views(0, ViewSettings(length=4), generator),
        lambda: uniform_view(0, length=4, generator=generator),
        lambda: anchor_positive_view(0, length=4, window=5, generator=generator),
    ]
    for draw in draws:
        with pytest.raises(ValueError, match="a video has 0 frames"):
            draw()


@pytest.mark.parametrize(("length", "window"), [(5, 5), (0, 5), (4, 0)])
def test_no_pairs(length, window):
    with pytest.raises(ValueError, match=f"length {length} must be even .* window {window} at least 1"):
        anchor_positive_view(9, length=length, window=window, generator=np.random.default_rng(0))


@pytest.mark.parametrize(("num", "stride"), [(0, 1), (1, 0)])
def test_no_context(num, stride):
    with pytest.raises(ValueError, match=f"context of {num} frames, {stride} apart"):
        context_frames(np.array([3]), num=num, stride=stride)
