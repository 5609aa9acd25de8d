"""Retrieval of frames against the public code's values (tests/data/carl_evaluation.json) and by hand."""

from __future__ import annotations

import numpy as np
import pytest

from reelwright.models.metrics.probes import embedded_videos
from reelwright.models.metrics.probes.embedded_videos import EmbeddedVideo
from reelwright.models.metrics.probes.frame_retrieval import (
    frame_retrieval,
    nearest_of_each,
    nearest_stable,
    spread_rows,
    time_retrieval,
)
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


def test_time_retrieval_by_hand():
    """x is at 0, 1/2 and 1 of its video; y at 0 and 1, and its rows are the other way round."""
    x = EmbeddedVideo(name="x", rows=np.array([[0.0], [4.0], [10.0]]), seconds=np.array([1.0, 2.0, 5.0]))
    y = EmbeddedVideo(name="y", rows=np.array([[9.0], [1.0]]), seconds=np.array([0.0, 2.0]))
    found = time_retrieval([x, y], depths=[1, 5])
    # x: 0 -> 1.0 (off by 1), 1/2 -> 1.0 (1/2), 1 -> 0.0 (1); y: 0 -> 1.0 (1), 1 -> 0.0 (1)
    assert found["time_error@1"] == pytest.approx(((1 + 0.5 + 1) / 3 + 1) / 2)
    assert found["time_error_seconds@1"] == pytest.approx((4 * 2.5 / 3 + 2 * 1) / 2)
    assert found["time_error@5"] == pytest.approx(found["chance"]) == pytest.approx(0.5)  # all that there are
    assert found["num_queries"] == 5
    bare = time_retrieval([x, EmbeddedVideo(name="y", rows=y.rows)], depths=[1])
    assert bare["time_error_seconds@1"] is None
    assert bare["time_error@1"] == found["time_error@1"]


@pytest.mark.parametrize(
    ("videos", "depths", "message"), [(1, [1], "there are none"), (2, [0], "depths must be 1 or more")]
)
def test_time_retrieval_refuses(videos, depths, message):
    given = [EmbeddedVideo(name=str(number), rows=np.ones((2, 1))) for number in range(videos)]
    with pytest.raises(ValueError, match=message):
        time_retrieval(given, depths=depths)


def test_the_nearest_row_of_each_video():
    query = EmbeddedVideo(name="q", rows=np.array([[0.0], [5.0]]), labels=np.array([0, 1]))
    near = EmbeddedVideo(name="near", rows=np.array([[9.0], [5.5], [5.5]]), labels=np.array([1, 0, 1]))
    far = EmbeddedVideo(name="far", rows=np.array([[7.0]]), labels=np.array([1]))
    bare = EmbeddedVideo(name="bare", rows=np.array([[5.1]]))
    found = nearest_of_each(query, 1, [far, near, bare], depth=5)
    assert [(each.video.name, each.row, each.is_right) for each in found] == [
        ("bare", 0, None),
        ("near", 1, False),  # the first of those that are equally near
        ("far", 0, True),
    ]
    assert found[1].distance == pytest.approx(0.25)
    assert [each.video.name for each in nearest_of_each(query, 1, [far, near, bare], depth=1)] == ["bare"]


@pytest.mark.parametrize(("rows", "number", "expected"), [(10, 2, [2, 7]), (3, 5, [0, 1, 2]), (1, 4, [0])])
def test_rows_spread_over_a_video(rows, number, expected):
    assert spread_rows(rows, number) == expected
