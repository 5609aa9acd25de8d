"""Cached scores: written, read back, and turned into rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from reelwright.storage.arrays.spans import Spans
from reelwright.storage.errors import StoreError
from reelwright.storage.results.scores import VideoScores, read_scores, write_scores

FRAMES = np.arange(4, dtype=np.int64)
SPANS = Spans(FRAMES * 0.5, FRAMES * 0.5 + 0.5, FRAMES * 10, FRAMES * 10 + 1)
WINDOWS = VideoScores(
    start_row=np.array([0, 2]),
    stop_row=np.array([3, 4]),
    scores=np.array([[0.25, 0.75], [1.0, 0.0]], dtype=np.float32),
    spans=SPANS,
    num_windows=np.array([0, 0, 1, 1]),
)
ROW_SCORES = np.array([[0.5, 0.5], [0.0, 1.0], [np.nan, np.nan], [1.0, 0.0]], dtype=np.float32)
PER_ROW = VideoScores(**{**vars(WINDOWS), "num_windows": np.array([1, 2, 0, 1]), "row_scores": ROW_SCORES})


@pytest.mark.parametrize("scores", [WINDOWS, PER_ROW], ids=["windows", "per row"])
def test_what_is_written_is_read(tmp_path, scores):
    size = write_scores(tmp_path, "d", scores)
    assert size == sum(path.stat().st_size for path in tmp_path.iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.parquet", "d.rows.parquet"]
    found = read_scores(tmp_path, "d")
    for name in ("start_row", "stop_row", "scores", "num_windows", "row_scores"):
        np.testing.assert_array_equal(getattr(found, name), getattr(scores, name))
    for name in ("start_seconds", "stop_seconds", "source_start", "source_stop"):
        assert getattr(found.spans, name).tolist() == getattr(SPANS, name).tolist()


def test_the_cache_reads_with_pandas_alone(tmp_path):
    write_scores(tmp_path, "d", WINDOWS)
    found = pd.read_parquet(tmp_path / "d.parquet")
    assert found.drop(columns="scores").to_dict("list") == {
        "window": [0, 1],
        "start_row": [0, 2],
        "stop_row": [3, 4],
        "start_seconds": [0.0, 1.0],
        "stop_seconds": [1.5, 2.0],
        "time_seconds": [1.0, 1.5],
    }
    assert found.scores[0].tolist() == [0.25, 0.75]


def test_rows_of_windows_are_their_last_rows_and_of_rows_their_means():
    rows, scores = WINDOWS.of_rows()
    assert rows.tolist() == [2, 3]
    assert scores.tolist() == WINDOWS.scores.tolist()
    rows, scores = PER_ROW.of_rows()
    assert rows.tolist() == [0, 1, 3]
    assert scores.tolist() == ROW_SCORES[[0, 1, 3]].tolist()


def test_damaged_scores_are_named(tmp_path):
    with pytest.raises(StoreError, match=r"scores of video gone .* cannot be read"):
        read_scores(tmp_path, "gone")
    write_scores(tmp_path, "d", WINDOWS)
    (tmp_path / "d.parquet").write_bytes(b"no parquet")
    with pytest.raises(StoreError, match="Run predict again with --force"):
        read_scores(tmp_path, "d")
