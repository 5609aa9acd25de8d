"""Intervals over videos: against scipy, against what is known exactly, and what is left out."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import average_precision_score

from reelwright.models.metrics import bootstrap
from reelwright.models.metrics.bootstrap import ClassMean, Mean, MeanAveragePrecision, PairMean, Ratio, intervals
from reelwright.models.metrics.steps import f1_score


def test_a_mean_over_videos_has_the_interval_of_scipy() -> None:
    right = np.random.default_rng(3).random(40)
    found = intervals({"mean": Ratio(above=right, below=np.ones(40))}, num_videos=40)["mean"]
    other = scipy.stats.bootstrap((right,), np.mean, n_resamples=1000, method="percentile", rng=1).confidence_interval
    assert (found.low, found.high) == pytest.approx((other.low, other.high), abs=0.015)
    assert found.num_draws == 1000
    assert found == intervals({"mean": Ratio(above=right, below=np.ones(40))}, num_videos=40)["mean"]


def test_videos_are_drawn_not_their_windows() -> None:
    """Two videos, one all right, one all wrong: every draw has a share of 0, a half or 1, however many windows."""
    measure = Ratio(above=np.array([1000, 0]), below=np.array([1000, 1000]), best=100.0)
    found = intervals({"edit": measure}, num_videos=2)["edit"]
    assert (found.low, found.high) == (0.0, 100.0)


@pytest.mark.parametrize(("above", "low", "high"), [([1, 1, 1, 1], 0.3976, 1.0), ([0, 0, 0, 0], 0.0, 0.6024)])
def test_videos_that_are_all_alike_have_the_exact_interval(above: list[int], low: float, high: float) -> None:
    found = intervals({"top1": Ratio(above=np.array(above), below=np.ones(4))}, num_videos=4)["top1"]
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-4)
    exact = scipy.stats.binomtest(sum(above), 4).proportion_ci(0.95, method="exact")
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high))


def test_draws_of_a_ranking_are_those_of_the_entries_repeated() -> None:
    """Average precision with counts as weights, equal scores and unknown entries, is sklearn's with copies."""
    random = np.random.default_rng(0)
    scores = random.integers(0, 6, (30, 3)) / 5
    positive, known, video = random.random((30, 3)) < 0.3, random.random((30, 3)) < 0.8, np.arange(30) % 5
    positive &= known
    count = random.integers(0, 4, (7, 5)).astype(float)
    measure = MeanAveragePrecision(scores=scores, is_positive=positive, is_known=known, video=video)
    expected = []
    for draw in count.astype(int):
        times = draw[video]
        columns = [np.repeat(known[:, k] * np.arange(1, 31), times) for k in range(3)]
        entries = [column[column > 0] - 1 for column in columns]
        found = [
            average_precision_score(positive[entry, k], scores[entry, k])
            for k, entry in enumerate(entries)
            if positive[entry, k].any()
        ]
        expected.append(np.mean(found))
    np.testing.assert_allclose(measure.values(count), expected, rtol=1e-12)


def test_pairs_are_those_of_the_videos_that_were_drawn() -> None:
    """Each copy of a video makes pairs with the copies of the others, and none with its own."""
    value = np.array([[np.nan, 1.0, 2.0], [4.0, np.nan, np.nan], [8.0, 16.0, np.nan]])
    drawn = np.array([[2.0, 1.0, 0.0], [1.0, 1.0, 1.0], [3.0, 0.0, 0.0]])
    found = PairMean(value=value).values(drawn)
    assert found[:2].tolist() == [(2 * 1 + 2 * 4) / 4, (1 + 2 + 4 + 8 + 16) / 5]
    assert np.isnan(found[2])


def test_a_mean_of_what_only_some_videos_have() -> None:
    delays = Mean(value=np.array([2.0, np.nan, 4.0]))
    found = delays.values(np.array([[1.0, 5.0, 1.0], [3.0, 0.0, 1.0], [0.0, 3.0, 0.0]]))
    assert found[:2].tolist() == [3.0, 2.5]
    assert np.isnan(found[2])
    assert set(intervals({"delay": delays, "same": Mean(value=np.ones(3))}, num_videos=3)) == {"delay"}


def test_what_is_not_defined_or_too_much_has_no_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = Ratio(above=np.zeros(3), below=np.zeros(3))
    assert intervals({"nothing": nothing}, num_videos=3) == {}
    assert intervals({"one": Ratio(above=np.ones(1), below=np.ones(1))}, num_videos=1) == {}
    mean = ClassMean(above=np.array([[1, 0], [0, 0]]), below=np.array([[1, 0], [2, 0]]))
    assert mean.values(np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])) == pytest.approx([1 / 3, 1, np.nan], nan_ok=True)
    scores, video = np.linspace(0, 1, 10)[:, None], np.arange(10) % 3
    ranking = MeanAveragePrecision(scores=scores, is_positive=scores > 0.4, is_known=None, video=video)
    monkeypatch.setattr(bootstrap, "MAX_STEPS", 300 * 2 * 6 * 3)
    assert intervals({"map": ranking}, num_videos=3)["map"].num_draws == 300
    monkeypatch.setattr(bootstrap, "MAX_STEPS", 100 * 2 * 6 * 3)
    assert intervals({"map": ranking}, num_videos=3) == {}


@pytest.mark.parametrize("num_videos", [2, 7, 40])
def test_the_best_value_of_all_videos_is_no_certainty_where_it_is_not_quite_1(num_videos: int) -> None:
    """F1 of steps is 0.9999995 at best (`f1_score`), and means of it differ in their last digit."""
    best = f1_score(1, 0, 0)
    found = intervals({"f1": Mean(value=np.full(num_videos, best), best=best)}, num_videos=num_videos)["f1"]
    assert found.low == pytest.approx(0.025 ** (1 / num_videos))
    assert found.high == pytest.approx(1)
