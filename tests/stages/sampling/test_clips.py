"""Clips that stand for a video: at random in training, spread at test, whatever the video's length."""

from __future__ import annotations

import numpy as np
import pytest

from reelwright.stages.datasets.sampling.clips import ClipSampling, DrawnClips, clip_sampling
from reelwright.stages.datasets.sampling.draws import EpochSampler
from reelwright.stages.datasets.sampling.settings import CLIPS, WHOLE
from reelwright.stages.datasets.sampling.windows import WindowShape, window_rows


def clips(kind, *, length=4, dilation=1, hop=1, short="pad", **options):
    return ClipSampling(kind=kind, shape=WindowShape(length=length, dilation=dilation, hop=hop, short=short), **options)


VIEWS = {
    "middle of segments": (clips("segments"), [8], 1, [[1, 3, 5, 7]]),
    "two of segments": (clips("segments"), [8], 2, [[0, 2, 4, 6], [1, 3, 5, 7]]),
    "runs in segments": (clips("segments", segments=2), [8], 1, [[1, 2, 5, 6]]),
    "segments of a short video": (clips("segments"), [2], 1, [[0, 0, 1, 1]]),
    "dense middle": (clips("dense", dilation=2), [15], 1, [[4, 6, 8, 10]]),
    "dense three": (clips("dense"), [10], 3, [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]),
    "dense short": (clips("dense"), [3], 2, [[0, 1, 2, 2], [0, 1, 2, 2]]),
    "dense left out": (clips("dense", short="leave_out"), [3, 4], 1, [[0, 1, 2, 3]]),
    "starts": (clips("multi_start", hop=2), [9], 5, [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7]]),
    "starts, too many": (clips("multi_start"), [10], 2, [[0, 1, 2, 3], [6, 7, 8, 9]]),
    "no rows": (clips("segments"), [0], 3, []),
    "two of segments, first": (clips("segments", phase="first"), [8], 2, [[0, 2, 4, 6], [1, 3, 5, 7]]),
    "three of segments, first": (clips("segments", length=2, phase="first"), [18], 3, [[0, 9], [3, 12], [6, 15]]),
    "stretched middle": (clips("stretched", dilation=2), [15], 1, [[4, 6, 8, 10]]),
    "stretched three": (clips("stretched"), [10], 3, [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]),
    "stretched short": (clips("stretched", dilation=2, short="leave_out"), [4], 1, [[0, 2, 2, 2]]),
}


@pytest.mark.parametrize(("sampling", "num_rows", "num_views", "expected"), VIEWS.values(), ids=VIEWS)
def test_views(sampling, num_rows, num_views, expected):
    windows = sampling.views(num_rows, num_views=num_views)
    rows, _ = window_rows(windows, sampling.shape)
    assert rows.tolist() == expected
    assert windows.last_row(sampling.shape).tolist() == [row[-1] for row in expected]


def test_views_of_several_videos_name_their_video():
    windows = clips("segments").views([4, 0, 8], num_views=2)
    assert windows.video.tolist() == [0, 0, 2, 2]


@pytest.mark.parametrize("kind", CLIPS)
def test_an_epoch_draws_a_clip_of_each_video_and_another_for_a_repeat(kind):
    sampling, num_rows = clips(kind), np.array([40, 60, 3, 50])
    draws = EpochSampler(seed=3, repeats=2, clips=DrawnClips(sampling, num_rows))
    candidates = sampling.views(num_rows.tolist())

    def epoch(number):
        order = draws.order(len(candidates), number)
        return draws.windows(candidates, order, number)

    first, again, second = epoch(0), epoch(0), epoch(1)
    assert sorted(first.video.tolist()) == [0, 0, 1, 1, 2, 2, 3, 3]
    rows, mask = window_rows(first, sampling.shape)
    assert (rows < num_rows[first.video][:, None]).all()
    assert (rows >= 0).all()
    assert (mask.sum(1) == np.where(first.video == 2, 4 if kind in WHOLE else 3, 4)).all()
    assert np.array_equal(rows, window_rows(again, sampling.shape)[0])
    assert not np.array_equal(rows, window_rows(second, sampling.shape)[0])
    longest = rows[first.video == 1]
    assert not np.array_equal(longest[0], longest[1])


def test_random_rows_lie_in_their_segments_and_reach_all_rows():
    sampling = clips("segments", length=3)
    drawn = sampling.drawn(np.full(400, 10), np.random.default_rng(0))
    low, high = np.array([0, 3, 6]), np.array([3, 6, 10])
    assert ((drawn.rows >= low) & (drawn.rows < high)).all()
    assert set(drawn.rows.ravel().tolist()) == set(range(10))
    whole = clips("segments", length=3, segment_rule="whole").drawn(np.full(400, 10), np.random.default_rng(0))
    assert set(whole.rows.ravel().tolist()) == set(range(9))


def test_stretched_clips_lie_in_a_span():
    sampling = clips("stretched", dilation=3)
    drawn = sampling.drawn(np.full(300, 20), np.random.default_rng(0))
    assert set(drawn.rows[:, 0].tolist()) == set(range(8))  # stops 12 to 19
    assert np.array_equal(drawn.rows - drawn.rows[:, :1], np.tile([0, 4, 8, 11], (300, 1)))


def test_windows_are_no_clips():
    assert clip_sampling("grid", WindowShape(length=3)) is None
