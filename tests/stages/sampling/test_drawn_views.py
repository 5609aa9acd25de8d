"""Views of batches: the same wherever and whenever they are drawn, side by side, in any strategy."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest

from reelwright.stages.datasets.sampling.settings import ViewSettings
from reelwright.stages.datasets.sampling.two_views import DrawnViews, ViewSampler

STRATEGIES = ("time_augment", "offset_uniform", "anchor_positive", "clip")
VIDEOS, ROWS = [4, 0, 4, 2], [30, 9, 30, 1]


def sampler(strategy="time_augment", **options):
    how = {"length": 12, **options.pop("views", {})}
    return ViewSampler(strategy=strategy, views=ViewSettings(**how), **{"seed": 3, **options})


def drawn(views, *, epoch=0, places=range(4)):
    places = list(places)
    return views.drawn([VIDEOS[p % 4] for p in places], [ROWS[p % 4] for p in places], epoch=epoch, places=places)


def equal(one, two):
    return all(np.array_equal(a, b) for a, b in zip(astuple(one), astuple(two), strict=True))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("num_views", [1, 2])
def test_what_is_drawn(strategy, num_views):
    found = drawn(sampler(strategy, num_views=num_views, num_contexts=3, views={"context_stride": 2}))
    count = 4 * num_views
    assert found.positions.shape == found.mask.shape == (count, 12)
    assert found.rows.shape == (count, 12, 3)
    assert found.video.tolist() == np.repeat(VIDEOS, num_views).tolist()
    assert found.num_rows.tolist() == np.repeat(ROWS, num_views).tolist()
    assert (found.positions >= 0).all()
    assert (found.positions < found.num_rows[:, None]).all()
    assert (
        found.positions[~found.mask] == np.broadcast_to(found.num_rows[:, None] - 1, found.mask.shape)[~found.mask]
    ).all()
    assert (found.rows[..., 2] == found.positions).all()
    assert (found.rows[..., 0] == np.maximum(found.positions - 4, 0)).all()
    has_pair = strategy != "anchor_positive" or found.num_rows > 1
    assert (found.mask.any(1) == has_pair).all()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_place_and_epoch_alone_say_what_is_drawn(strategy):
    """In one batch, place by place, or in the shares of two processes."""
    views = sampler(strategy)
    whole = drawn(views, epoch=2)
    for share in ([0], [1], [2], [3], [0, 2], [1, 3]):
        part = drawn(views, epoch=2, places=share)
        mine = np.repeat(np.isin(np.arange(4), share), 2)
        assert equal(part, DrawnViews(*(values[mine] for values in astuple(whole))))
    assert equal(whole, drawn(sampler(strategy), epoch=2))
    first, again = whole.positions[:2], whole.positions[4:6]
    assert (first != again).any()  # the same video at another place
    for other in (drawn(views, epoch=3), drawn(sampler(strategy, seed=4), epoch=2)):
        assert (other.positions != whole.positions).any()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_two_views_differ(strategy):
    found = drawn(sampler(strategy), places=range(0, 40, 4))
    differ = (found.positions[::2] != found.positions[1::2]).any(1)
    assert differ.mean() > 0.8 if strategy == "clip" else differ.all()  # a clip may start twice at the same row


def test_base_and_overlap_reach_the_views():
    cropped = drawn(sampler(views={"overlap": 1.0, "max_stretch": 1.0}), places=range(0, 40, 4))
    assert (cropped.positions[::2] == cropped.positions[1::2]).all()  # crops of 12 at one place
    assert (np.diff(cropped.positions) == 1).all()
    whole = drawn(sampler(views={"base": "video"}), places=range(0, 80, 4))
    assert whole.positions[:, 0].max() < 30
    assert not whole.mask.all()  # blocks reach past the end
    assert (np.ptp(whole.positions, axis=1) > 12).any()


def test_one_long_video():
    views = sampler(views={"length": 80, "base": "video"})
    found = views.drawn([0], [100_000], epoch=0, places=[7])
    assert found.mask.any(1).all()
    assert (np.diff(found.positions[found.mask.all(1)]) > 0).all()


def test_no_video():
    found = sampler(num_contexts=2).drawn([], [], epoch=0, places=[])
    assert found.positions.shape == (0, 12)
    assert found.rows.shape == (0, 12, 2)


BAD = {
    "views": ({"num_views": 3}, "num_views is 3; allowed: 1 or 2"),
    "odd": ({"strategy": "anchor_positive", "views": {"length": 5}}, "length 5 must be even"),
    "context": ({"num_contexts": 0}, "context of 0 frames"),
}


@pytest.mark.parametrize(("options", "match"), BAD.values(), ids=BAD)
def test_refused(options, match):
    with pytest.raises(ValueError, match=match):
        sampler(**options)


def test_a_video_without_rows():
    with pytest.raises(ValueError, match="a video has 0 frames"):
        sampler().drawn([0, 1], [5, 0], epoch=0, places=[0, 1])
