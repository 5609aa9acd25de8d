"""Rows and their times, computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from reelwright.stages.features.config import FeaturesConfig
from reelwright.stages.features.rows import read_features, times_by_video
from reelwright.storage.errors import ItemError

ROWS = np.arange(6, dtype=np.float64).reshape(3, 2)

SPANS = {
    "every frame": ({"fps": 10}, [0, 0.1, 0.2], [0.1, 0.2, 0.3], [0, 1, 2], [1, 2, 3]),
    "clips": ({"fps": 10, "stride": 2, "length": 4}, [0, 0.2, 0.4], [0.4, 0.6, 0.8], [0, 2, 4], [4, 6, 8]),
    "later": ({"fps": 2, "start_seconds": 1.5}, [1.5, 2, 2.5], [2, 2.5, 3], [0, 1, 2], [1, 2, 3]),
    "starts": ({"times_key": "t"}, [0, 1, 3], [1, 3, 4.5], [0, 1, 2], [1, 2, 3]),
    "starts and stops": ({"times_key": "tt"}, [0, 1, 3], [2, 3, 5], [0, 1, 2], [1, 2, 3]),
}


@pytest.mark.parametrize(("settings", "start", "stop", "first", "last"), SPANS.values(), ids=SPANS)
def test_spans(tmp_path, settings, start, stop, first, last):
    np.savez(tmp_path / "a.npz", rows=ROWS, t=np.array([0, 1, 3.0]), tt=np.array([[0, 2], [1, 3], [3, 5.0]]))
    rows, spans = read_features(tmp_path / "a.npz", FeaturesConfig(key="rows", **settings))
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, ROWS)
    np.testing.assert_allclose(spans.start_seconds, start)
    np.testing.assert_allclose(spans.stop_seconds, stop)
    assert spans.source_start.tolist() == first
    assert spans.source_stop.tolist() == last


def test_times_of_a_table():
    columns = {"video_id": ["b", "a", "b"], "start_seconds": ["0", "5", "1"]}
    found = times_by_video(columns, path=None)
    assert {name: values.ravel().tolist() for name, values in found.items()} == {"a": [5], "b": [0, 1]}


SHAPES = {
    "transposed": (ROWS.T, {"transposed": True}, (3, 2)),
    "tokens": (np.zeros((3, 5, 2)), {"output": "tokens"}, (3, 5, 2)),
    "map, time last": (np.zeros((2, 4, 5, 3)), {"transposed": True}, (3, 2, 4, 5)),
    "one hot": (np.array([2, 0]), {"one_hot": 3}, (2, 3)),
    "one hot of a column": (np.array([[2], [0]]), {"one_hot": 3}, (2, 3)),
}


@pytest.mark.parametrize(("values", "settings", "shape"), SHAPES.values(), ids=SHAPES)
def test_shapes(tmp_path, values, settings, shape):
    np.save(tmp_path / "a.npy", values)
    rows, _ = read_features(tmp_path / "a.npy", FeaturesConfig(fps=1, **settings))
    assert rows.shape == shape
    if "one_hot" in settings:
        assert rows.tolist() == [[0, 0, 1], [1, 0, 0]]


REFUSED = {
    "a vector": (np.zeros(3), {}, r"shape \(3,\).*set `one_hot`"),
    "text": (np.array([["a"]]), {}, "not real numbers"),
    "complex": (np.zeros((2, 2), complex), {}, "not real numbers"),
    "empty": (np.zeros((0, 4)), {}, "no rows"),
    "other dim": (np.zeros((3, 2)), {"dim": 3}, "not of dim 3. Set `transposed: true`"),
    "class too large": (np.array([0, 3]), {"one_hot": 3}, "class 3 is outside 0 to 2"),
    "half a class": (np.array([0.5]), {"one_hot": 3}, "whole numbers"),
}


@pytest.mark.parametrize(("values", "settings", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(tmp_path, values, settings, message):
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(ItemError, match=message):
        read_features(tmp_path / "a.npy", FeaturesConfig(fps=1, **settings))


TIMES = {
    "too few": ([0, 1], "3 rows, but there are 2 times"),
    "falling": ([0, 2, 1], "times must ascend"),
    "not finite": ([0, 1, np.nan], "times must ascend"),
    "three columns": (np.zeros((3, 3)), r"not \(3, 3\)"),
}


@pytest.mark.parametrize(("times", "message"), TIMES.values(), ids=TIMES)
def test_bad_times(tmp_path, times, message):
    np.savez(tmp_path / "a.npz", rows=ROWS, t=np.asarray(times, dtype=float))
    with pytest.raises(ItemError, match=message):
        read_features(tmp_path / "a.npz", FeaturesConfig(key="rows", times_key="t"))


SETTINGS = {
    "no rate": ({}, "exactly one of fps, times and times_key"),
    "two rates": ({"fps": 1, "times_key": "t"}, "exactly one of fps, times and times_key"),
    "start without fps": ({"times_key": "t", "start_seconds": 2}, "start_seconds goes with fps"),
    "one array for both": ({"times_key": "t", "key": "t"}, "both 't'"),
}


@pytest.mark.parametrize(("settings", "message"), SETTINGS.values(), ids=SETTINGS)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        FeaturesConfig(**settings)
