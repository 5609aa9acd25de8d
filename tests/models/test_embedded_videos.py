"""Videos that probes see: what is refused, strides in rows and seconds, distances in pieces."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from reelwright.models.metrics.probes import embedded_videos
from reelwright.models.metrics.probes.embedded_videos import (
    EmbeddedVideo,
    count_classes,
    distance_chunks,
    labelled_only,
)
from tests.models.embedded import line

ROWS = np.arange(6.0).reshape(3, 2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rows": np.zeros(3)}, r"'v': rows must be \(T, D\).*got \(3,\)"),
        ({"rows": np.zeros((0, 2))}, r"T and D above 0, got \(0, 2\)"),
        ({"rows": np.array([[1.0, np.nan], [np.inf, 1.0], [1.0, 2.0]])}, "2 of 3 rows hold NaN or infinity"),
        ({"rows": ROWS, "labels": [0, 1]}, r"labels must be \(3,\) as its rows, got \(2,\)"),
        ({"rows": ROWS, "labels": [0, -2, 1]}, r"label -2; allowed: -1 \(unknown\)"),
        ({"rows": ROWS, "seconds": [0.0, 1.0]}, r"seconds must be \(3,\)"),
        ({"rows": ROWS, "seconds": [0.0, 1.0, 0.5]}, "must be finite and must not go back"),
        ({"rows": ROWS, "seconds": [0.0, np.nan, 2.0]}, "must be finite and must not go back"),
    ],
)
def test_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        EmbeddedVideo(name="v", **fields)


def test_strides():
    video = line(range(10), range(10), fps=10)
    assert video.every(4).rows[:, 0].tolist() == [0, 4, 8]
    assert video.every(4).labels.tolist() == [0, 4, 8]
    assert video.every_seconds(0.3).rows[:, 0].tolist() == [0, 3, 6, 9]  # 0.3 and 0.6 are not exact in binary
    assert video.every_seconds(0.25).rows[:, 0].tolist() == [0, 3, 5, 8]
    assert video.seconds_per_row == pytest.approx(0.1)
    for wrong in (0, -1):
        with pytest.raises(ValueError, match=f"1 or more rows, got {wrong}"):
            video.every(wrong)
        with pytest.raises(ValueError, match="must be above 0"):
            video.every_seconds(wrong)
    with pytest.raises(ValueError, match="needs times"):
        line(range(10)).every_seconds(1)


def test_a_video_of_one_row_has_no_rate():
    assert line([1], fps=10).seconds_per_row is None
    assert line([1], fps=10).every_seconds(2).rows.tolist() == [[1.0]]


def test_labels():
    part = line([5, 6, 7], [-1, 2, -1])
    assert part.labelled().rows.tolist() == [[6.0]]
    assert count_classes([part], [line([1])]) == 3
    assert count_classes([line([1])]) == 0
    assert [video.name for video in labelled_only([line([1]), part], what="x")] == ["line"]
    with pytest.raises(ValueError, match="probe: none of 2 videos has a label"):
        labelled_only([line([1]), line([1, 2], [-1, -1])], what="probe")
    with pytest.raises(ValueError, match="'line' has no label"):
        line([1]).labelled()


@pytest.mark.parametrize("distance", embedded_videos.DISTANCES)
def test_distances_in_pieces_are_those_at_once(monkeypatch, distance):
    monkeypatch.setattr(embedded_videos, "_CHUNK_CELLS", 10)
    generator = np.random.default_rng(0)
    query, key = generator.normal(size=(7, 3)), generator.normal(size=(4, 3))
    pieces = list(distance_chunks(query, key, distance=distance))
    assert [start for start, _ in pieces] == [0, 2, 4, 6]
    assert np.concatenate([found for _, found in pieces]).tolist() == cdist(query, key, distance).tolist()


def test_distances_of_zeros_and_refusals():
    zero = np.zeros((1, 2))
    assert next(distance_chunks(zero, np.ones((2, 2)), distance="cosine"))[1].tolist() == [[1.0, 1.0]]
    with pytest.raises(ValueError, match="'manhattan' is not known; choose one of sqeuclidean, euclidean, cosine"):
        next(distance_chunks(zero, zero, distance="manhattan"))
    with pytest.raises(ValueError, match="sizes 2 and 3"):
        next(distance_chunks(zero, np.ones((1, 3)), distance="cosine"))


def test_a_rate_above_the_video_s_own_repeats_times():
    video = EmbeddedVideo(name="a", rows=np.eye(4), seconds=np.array([0.0, 0.0, 0.5, 0.5]))
    assert video.seconds_per_row == 0.5 / 3
    with pytest.raises(ValueError, match="must not go back"):
        EmbeddedVideo(name="a", rows=np.eye(2), seconds=np.array([0.5, 0.0]))
