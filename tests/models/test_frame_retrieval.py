"""Retrieval of frames against the public code's values (tests/data/carl_evaluation.json) and by hand."""

from __future__ import annotations

import numpy as np
import pytest

from reelwright.models.metrics import embedded_videos
from reelwright.models.metrics.frame_retrieval import frame_retrieval, nearest_stable
from tests.models.embedded import PUBLIC, given, line


@pytest.mark.parametrize("stride", [1, 2, 5])
def test_precision_of_the_public_code(stride):
    found = frame_retrieval(given("val"), stride=stride)
    for depth in (5, 10, 15):
        expected = PUBLIC["retrieval"][f"stride{stride}_K{depth}"]
        assert found[f"precision@{depth}"] == pytest.approx(expected, abs=1e-12)


def test_by_hand():
    first = line([0.0], [0], name="a")
    second = line([0.1, 0.2, 0.3, 9.0], [0, 1, 0, 0], name="b")
    found = frame_retrieval([first, second], depths=(1, 2, 3, 9))
    assert found["videos"]["a"] == {
        "precision@1": 1.0,
        "precision@2": 0.5,
        "precision@3": pytest.approx(2 / 3),
        "precision@9": 0.75,  # of the four that there are
        "average_precision@1": 1.0,
        "average_precision@2": 0.5,  # (1) / 2
        "average_precision@3": pytest.approx((1 + 2 / 3) / 3),
        "average_precision@9": pytest.approx((1 + 2 / 3 + 3 / 4) / 3),
        "chance": 0.75,
    }
    # of b the row of label 1 has nothing to find: wrong in precision, left out of average precision
    assert found["videos"]["b"]["precision@1"] == 0.75
    assert found["videos"]["b"]["average_precision@1"] == 1.0
    assert found["precision@2"] == pytest.approx((0.5 + 0.75) / 2)
    assert (found["num_queries"], found["num_unanswerable"]) == (5, 1)


def test_rows_without_labels_are_not_searched():
    first = line([0, 5], [0, -1])
    found = frame_retrieval([first, line([0, 1], [-1, 0]), line([0])], depths=(1,))
    assert (found["precision@1"], found["num_queries"]) == (1, 2)
    assert list(found["videos"]) == ["line", "line (1)"]


def test_equally_near_rows_come_in_order():
    assert nearest_stable(np.array([2.0, 1.0, 1.0, 0.0, 1.0]), 3).tolist() == [3, 1, 2]
    videos = [line([0], [0], name="a"), line([1], [1], name="b"), line([1], [0], name="c")]
    assert frame_retrieval(videos, depths=(1,))["videos"]["a"]["precision@1"] == 0


def test_pieces_change_nothing(monkeypatch):
    expected = frame_retrieval(given("val"))
    monkeypatch.setattr(embedded_videos, "_CHUNK_CELLS", 300)
    assert frame_retrieval(given("val")) == expected


def test_nothing_in_common():
    found = frame_retrieval([line([0], [0], name="a"), line([0], [1], name="b")], depths=(1,))
    assert (found["precision@1"], found["average_precision@1"], found["num_unanswerable"]) == (0, None, 2)


def test_refused():
    video = line([0], [0])
    with pytest.raises(ValueError, match=r"depths must be 1 or more, got \[0\]"):
        frame_retrieval([video, video], depths=(0,))
    with pytest.raises(ValueError, match="one video has labels"):
        frame_retrieval([video, line([1])])
    with pytest.raises(ValueError, match="retrieval: none of 1 videos has a label"):
        frame_retrieval([line([1])])
