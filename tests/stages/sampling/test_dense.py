"""Clips a fixed step apart, against CAST's and fractal_video's own values."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from reelwright.stages.datasets.sampling.dense import (
    dense_views,
    multi_starts,
    random_starts,
    repeated_views,
    stretched_clips,
)
from reelwright.stages.datasets.sampling.windows import WindowShape, window_rows

VECTORS = json.loads((Path(__file__).parents[2] / "data" / "sampling_vectors.json").read_text())
CAST, FRACTAL = VECTORS["cast"], VECTORS["fractal"]["split_segments_pad"]
CLIP = WindowShape(length=16, dilation=4)


class Fixed:
    """Stands for a generator whose whole numbers are the least, or the largest, that it could draw."""

    def __init__(self, end):
        self.end = end

    def integers(self, low, high):
        return np.broadcast_to(low if self.end == "min" else high - 1, np.shape(high))


SHORT = {case["n_frames"]: case for case in CAST["dense_train(clip16,rate4)"] if "short video branch" in case}
LONG = {case["n_frames"]: case for case in CAST["dense_train(clip16,rate4)"] if "end_idx=min" in case}


@pytest.mark.parametrize("case", SHORT.values(), ids=SHORT)
def test_cast_stretches_short_videos(case):
    clip = stretched_clips(case["n_frames"], length=16, step=4, generator=np.random.default_rng(0))
    assert clip.tolist() == [case["short video branch"]]


@pytest.mark.parametrize("end", ["min", "max"])
@pytest.mark.parametrize("case", LONG.values(), ids=LONG)
def test_cast_stretched_clip(case, end):
    clip = stretched_clips(case["n_frames"], length=16, step=4, generator=Fixed(end))
    assert clip.tolist() == [case[f"end_idx={end}"]]


def by_the_definition(frames, length, step, stop):
    """One clip as CAST's reader makes it."""
    if frames <= length * step:
        index = np.linspace(0, frames, num=frames // step)
        index = np.concatenate([index, np.ones(length - frames // step) * frames])
        return np.clip(index, 0, frames - 1).astype(np.int64).tolist()
    start = stop - length * step
    return np.clip(np.linspace(start, stop, num=length), start, stop - 1).astype(np.int64).tolist()


@pytest.mark.parametrize(("length", "step"), [(16, 4), (8, 3), (5, 1)])
def test_stretched_clips_of_many_videos(length, step):
    frames = np.arange(1, 120)
    clips = stretched_clips(frames, length=length, step=step, generator=np.random.default_rng(5))
    long = frames[frames > length * step]
    stops = dict(zip(long.tolist(), np.random.default_rng(5).integers(length * step, long).tolist(), strict=True))
    assert clips.tolist() == [by_the_definition(n, length, step, stops.get(n)) for n in frames.tolist()]


@pytest.mark.parametrize(("length", "step", "num_views"), [(16, 4, 5), (16, 4, 2), (4, 3, 7)])
def test_repeated_views_by_the_definition(length, step, num_views):
    frames = np.arange(1, 100)
    views = repeated_views(frames, length=length, step=step, num_views=num_views)
    for n, found in zip(frames.tolist(), views.tolist(), strict=True):
        grid = list(range(0, n, step))
        grid += [grid[-1]] * (length - len(grid))
        room = max((len(grid) - length) / (num_views - 1), 0)
        assert found == [grid[int(view * room) :][:length] for view in range(num_views)]


def test_repeated_views_of_cast():
    for n, case in VIEWS.items():
        views = repeated_views(n, length=16, step=4, num_views=5)[0]
        assert views[:, [0, -1]].tolist() == case["first_last_original_frame_per_view"]


VIEWS = {case["n_frames"]: case for case in CAST["dense_test(clip16,rate4,5 views)"]}


@pytest.mark.parametrize("case", VIEWS.values(), ids=VIEWS)
def test_cast_dense_views(case):
    windows = dense_views([case["n_frames"]], CLIP, num_views=5)
    assert (windows.start // 4).tolist() == case["start(in strided frames) for 5 views"]
    rows, _ = window_rows(windows, CLIP)
    assert rows[:, [0, -1]].tolist() == case["first_last_original_frame_per_view"]


def test_one_dense_view_is_the_middle():
    assert dense_views([250], CLIP, num_views=1).start.tolist() == [92]  # grid row int(47 / 2)


SPLITS = {
    "finetune_default(clip8,stride6,min_step1,max10)": (WindowShape(length=8, dilation=6, short="leave_out"), 1, 10),
    "pretrain(clip8,stride2,min_step2,max1)": (WindowShape(length=8, dilation=2, short="leave_out"), 2, 1),
    "clip16_stride1_step24_max8": (WindowShape(length=16, short="leave_out"), 24, 8),
}


@pytest.mark.parametrize("name", SPLITS)
def test_fractal_starts(name):
    shape, min_step, max_clips = SPLITS[name]
    case = FRACTAL[name]
    windows = multi_starts(case["frame_counts"], shape, max_clips=max_clips, min_step=min_step, rule="whole")
    for video, expected in enumerate(case["starts"]):
        assert windows.start[windows.video == video].tolist() == (expected or [])
    assert case["n_short"] == len(case["frame_counts"]) - len(set(windows.video.tolist()))


def test_spread_starts_reach_the_end():
    shape = WindowShape(length=8, dilation=6)
    windows = multi_starts([300, 60, 5, 44], shape, max_clips=10)
    assert windows.start[windows.video == 0][[0, -1]].tolist() == [0, 300 - 43]
    assert windows.start[windows.video == 1][-1] == 60 - 43
    assert windows.start[windows.video == 3].tolist() == [0, 1]
    short = windows.take(windows.video == 2)
    assert window_rows(short, shape)[0].tolist() == [[0] * 8]  # frame 6 is not there: the first is repeated
    assert multi_starts([100], shape, max_clips=1).start.tolist() == [28]


def test_random_starts_reach_all_places():
    shape = WindowShape(length=3, dilation=2)  # spans 5 rows
    windows = random_starts([9, 2], shape, generator=np.random.default_rng(0), num_clips=200)
    assert set(windows.start[windows.video == 0].tolist()) == {0, 1, 2, 3, 4}
    assert set(windows.start[windows.video == 1].tolist()) == {0}
    assert windows.count[windows.video == 1].tolist() == [1] * 200


def test_the_same_seed_draws_the_same():
    drawn = [random_starts([900], CLIP, generator=np.random.default_rng([7, epoch])).start for epoch in (3, 3, 4)]
    assert (drawn[0] == drawn[1]).all()
    assert (drawn[0] != drawn[2]).any()


BAD = {
    "rule": ({"max_clips": 2, "rule": "odd"}, "rule 'odd' is not known; allowed: spread, whole"),
    "clips": ({"max_clips": 0}, "max_clips is 0"),
    "step": ({"max_clips": 2, "min_step": 0}, "min_step is 0; it must be at least 1"),
}


@pytest.mark.parametrize(("how", "match"), BAD.values(), ids=BAD)
def test_refused(how, match):
    with pytest.raises(ValueError, match=re.escape(match)):
        multi_starts([10], CLIP, **how)
