"""Frames of clips spread over a video, against CAST's, ST-ABN's and TSN's own values."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from reelwright.stages.datasets.sampling.clips import (
    SegmentShape,
    centre_starts,
    clip_frames,
    train_starts,
    view_starts,
)

VECTORS = json.loads((Path(__file__).parents[2] / "data" / "sampling_vectors.json").read_text())
CAST = VECTORS["cast"]
SIXTEEN = SegmentShape(num_segments=16)


class Lowest:
    """Stands for a generator that always draws the least."""

    value = 0.0

    def random(self, shape):
        return np.full(shape, self.value)


class Highest(Lowest):
    value = 1 - 2**-53  # the largest that a generator draws


def of(case_list):
    return {f"{case['n_frames']} frames": case for case in case_list}


TEST = of(CAST["uniform_test(SSV2/EPIC)"])


@pytest.mark.parametrize("case", TEST.values(), ids=TEST)
def test_cast_two_views(case):
    starts = view_starts(case["n_frames"], SIXTEEN, num_views=2, phase="first")[0]
    assert starts.tolist() == [case["view0"], case["view1"]]
    assert sorted(starts.ravel().tolist()) == case["all_indices(32 sorted)"]


TRAIN = of(CAST["uniform_train_bounds(16 segments)"])


@pytest.mark.parametrize("case", TRAIN.values(), ids=TRAIN)
def test_cast_training_bounds(case):
    for generator, bound in ((Lowest(), "min_draw"), (Highest(), "max_draw")):
        drawn = train_starts(case["n_frames"], SIXTEEN, generator=generator, rule="whole")[0]
        assert drawn.tolist() == case[bound]


SCHEMES = {
    "st_abn_32 (32 segments x1 frame)": {"num_segments": 32},
    "st_abn_32_2 (1 segment, 32 frames stride 2)": {"num_segments": 1, "length": 32, "step": 2},
    "tsn_8x1": {"num_segments": 8},
}
RAW = {
    f"{scheme.split(' ')[0]} {case['n_frames']}": (SegmentShape(**SCHEMES[scheme], reach_end=False), case)
    for scheme, cases in VECTORS["st_abn"]["rawframe_sampling"].items()
    for case in cases
}


@pytest.mark.parametrize(("shape", "case"), RAW.values(), ids=RAW)
def test_raw_frames_of_st_abn(shape, case):
    n = case["n_frames"]
    test, val = (centre_starts(n, shape, rule=rule) for rule in ("spread", "guarded"))
    assert (test[0] + 1).tolist() == case["test_offsets(1-based)"]
    assert (val[0] + 1).tolist() == case["val_offsets(1-based)"]
    assert (clip_frames(n, test, shape)[0] + 1).tolist() == case["test_frames"]
    for generator, bound in ((Lowest(), "train_min"), (Highest(), "train_max")):
        drawn = train_starts(n, shape, generator=generator, rule="whole")[0]
        assert (drawn + 1).tolist() == case[bound]


def test_more_frames_than_segments_but_not_places_draws_anywhere():
    """ST-ABN's middle branch: 40 frames, runs of 10, so 31 places for 32 segments."""
    shape = SegmentShape(num_segments=32, length=10)
    drawn = train_starts([40], shape, generator=np.random.default_rng(0), rule="whole")[0]
    assert (np.diff(drawn) >= 0).all()
    assert drawn.min() >= 0
    assert 15 < drawn.max() <= 30


def test_drawn_example():
    three = SegmentShape(num_segments=3)
    low = train_starts([10], three, generator=Lowest())
    high = train_starts([10], three, generator=Highest())
    assert low.tolist() == [[0, 3, 6]]
    assert high.tolist() == [[2, 5, 9]]
    assert centre_starts([10], three).tolist() == [[1, 5, 8]]


@pytest.mark.parametrize("num_frames", [1, 5, 16, 17, 33, 100])
def test_even_segments_reach_every_frame(num_frames):
    generator = np.random.default_rng(0)
    drawn = train_starts([num_frames] * 500, SIXTEEN, generator=generator)
    assert (np.diff(drawn, axis=1) >= 0).all()
    assert set(drawn.ravel().tolist()) == set(range(num_frames))


def test_whole_segments_leave_out_the_end():
    drawn = train_starts([33] * 500, SIXTEEN, generator=np.random.default_rng(0), rule="whole")
    assert drawn.max() == 31


def test_many_videos_at_once_are_each_as_alone():
    lengths = [1, 7, 40, 333]
    together = view_starts(lengths, SIXTEEN, num_views=3)
    assert together.shape == (4, 3, 16)
    for n, row in zip(lengths, together, strict=True):
        assert (view_starts(n, SIXTEEN, num_views=3)[0] == row).all()


def test_one_centred_view_is_the_validation_clip():
    assert (view_starts([50], SIXTEEN, num_views=1)[:, 0] == centre_starts([50], SIXTEEN)).all()


@pytest.mark.parametrize("num_views", [2, 3, 5])
@pytest.mark.parametrize("phase", ["centred", "first"])
def test_views_of_a_long_video_all_differ(num_views, phase):
    """CAST's own way gives clips of 38 to 40 frames for five views."""
    starts = view_starts([320], SIXTEEN, num_views=num_views, phase=phase)[0]
    assert starts.shape == (num_views, 16)
    assert len(set(starts.ravel().tolist())) == num_views * 16


def test_runs_stop_at_the_last_frame():
    shape = SegmentShape(num_segments=2, length=3, step=2)
    assert clip_frames([8], np.array([[0, 4]]), shape).tolist() == [[0, 2, 4, 4, 6, 6]]
    unreached = SegmentShape(num_segments=1, length=3, step=2, reach_end=False)
    assert clip_frames([5], np.array([[0]]), unreached).tolist() == [[0, 2, 2]]  # frame 4 is the last
    assert clip_frames([1], np.array([[0]]), unreached).tolist() == [[0, 0, 0]]


def test_clips_of_views_keep_their_shape():
    shape = SegmentShape(num_segments=4, length=2)
    assert clip_frames([30, 9], view_starts([30, 9], shape, num_views=3), shape).shape == (2, 3, 8)


def test_a_video_without_frames_is_refused():
    with pytest.raises(ValueError, match="a video has 0 frames; leave videos without frames out"):
        centre_starts([5, 0], SIXTEEN)
