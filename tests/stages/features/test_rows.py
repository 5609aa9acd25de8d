"""Rows and their times, computed by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reelwright.stages.features.config import FeaturesConfig
from reelwright.stages.features.rows import read_features, times_by_video
from reelwright.storage.errors import ItemError

ROWS = np.arange(6, dtype=np.float64).reshape(3, 2)

SPANS = {
    "every frame": ({"fps": 10}, [0, 0.1, 0.2], [0.1, 0.2, 0.3], [0, 1, 2], [1, 2, 3]),
    "clips": ({"fps": 10, "hop": 2, "length": 4}, [0, 0.2, 0.4], [0.4, 0.6, 0.8], [0, 2, 4], [4, 6, 8]),
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
    "vectors as pooling leaves them": (np.zeros((3, 5, 1, 1)), {}, (3, 5)),
    "vectors of a 3D network": (np.zeros((3, 5, 1, 1, 1)), {}, (3, 5)),
    "vectors, channels last": (np.zeros((3, 1, 1, 5)), {}, (3, 5)),
    "vectors, one of each": (np.zeros((3, 1, 5)), {}, (3, 5)),
    "numbers": (np.zeros((3, 1, 1)), {}, (3, 1)),
    "one row": (np.zeros((1, 1, 1, 5)), {}, (1, 5)),
    "vectors, time last": (np.zeros((1, 5, 3)), {"transposed": True}, (3, 5)),
    "one token is one when it is said": (np.zeros((3, 1, 5)), {"output": "tokens"}, (3, 1, 5)),
    "one row of tokens": (np.zeros((1, 4, 5)), {"output": "layer9.tokens"}, (1, 4, 5)),
    "one row of a map": (np.zeros((1, 16, 7, 7)), {"output": "map"}, (1, 16, 7, 7)),
    "one row of a map, channels last": (np.zeros((1, 7, 7, 16)), {"channels_last": True}, (1, 16, 7, 7)),
    "a map of one pixel when it is said": (np.zeros((3, 5, 1, 1)), {"output": "map"}, (3, 5, 1, 1)),
    "map, channels last": (np.zeros((3, 7, 7, 16)), {"channels_last": True}, (3, 16, 7, 7)),
    "map that only looks so": (np.zeros((3, 7, 7, 16)), {"channels_last": False}, (3, 7, 7, 16)),
    "map": (np.zeros((3, 16, 7, 7)), {}, (3, 16, 7, 7)),
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


@pytest.mark.parametrize("cell", ["x", "1_5", ""])
def test_times_that_are_no_numbers(cell):
    columns = {"video_id": ["a", "a"], "start_seconds": ["0", cell]}
    with pytest.raises(ItemError, match=f"start_seconds '{cell}' is not a number; times are seconds"):
        times_by_video(columns, path=Path("times.csv"))


REFUSED = {
    "a vector": (np.zeros(3), {}, r"shape \(3,\).*set `one_hot`"),
    "text": (np.array([["a"]]), {}, "not real numbers"),
    "complex": (np.zeros((2, 2), complex), {}, "not real numbers"),
    "a batch of one": (np.zeros((1, 3, 4)), {}, r"shape \(1, 3, 4\): is the first axis a batch.*output: tokens"),
    "a batch of tokens": (
        np.zeros((1, 20, 5, 8)),
        {},
        r"shape \(1, 20, 5, 8\): is the first axis a batch.*output: map",
    ),
    "a batch of tokens of one number": (np.zeros((1, 20, 5, 1)), {}, "is the first axis a batch"),
    "volumes": (np.zeros((3, 4, 2, 5, 5)), {}, r"shape \(3, 4, 2, 5, 5\); rows are"),
    "maps, channels last": (np.zeros((3, 7, 7, 16)), {}, r"maps of \(7, 7, 16\): set `channels_last: true`"),
    "not finite": (
        np.array([[0, 1], [np.nan, np.inf], [np.nan, 0]]),
        {},
        r"^a\.npy: 2 of 3 rows, row 1 first, hold 2 NaN and 1 infinite values in the file itself\. Make the features",
    ),
    "not finite, as float16": (np.array([[np.nan, 1e6]]), {"dtype": "float16"}, "hold 1 NaN and 0 infinite values"),
    "too large for float16": (
        np.array([[0.0], [-1e6]]),
        {"dtype": "float16"},
        r"1 of 2 rows, row 1 first, hold values up to 1e\+06; float16 holds them up to 6\.55e\+04\. Set dtype: float32",
    ),
    "whole numbers too large for float16": (np.array([[70000]]), {"dtype": "float16"}, "hold values up to 7e"),
    "too large for float32": (np.array([[1e300]]), {}, r"float32 holds them up to 3\.4e\+38\. Scale them"),
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


FRAMES = {
    "every frame": ({}, 8, (8, 8)),
    "every fourth": ({"hop": 4}, 3, (9, 15)),
    "clips": ({"hop": 4, "length": 8}, 3, (9, 19)),
}


@pytest.mark.parametrize(("settings", "num_rows", "expected"), FRAMES.values(), ids=FRAMES)
def test_frames_that_rows_stand_for(settings, num_rows, expected):
    assert FeaturesConfig(fps=10, **settings).num_frames(num_rows) == expected
