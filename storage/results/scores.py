"""Cached scores of one video under one predict spec: by content, without names, split or targets.

    predictions/<spec key>/
        <digest>.parquet        a line a window: window, start_row, stop_row, start_seconds, stop_seconds, time_seconds,
                                scores
        <digest>.rows.parquet   a line a row: start_seconds, stop_seconds, source_start, source_stop, num_windows and,
                                of task per_row, scores (mean over the windows that hold the row)

The published tables (predictions.py) are made of these; renaming a video or mending a label computes nothing again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from reelwright.storage.arrays.spans import IntArray, Spans
from reelwright.storage.digests import readable
from reelwright.storage.errors import StoreError
from reelwright.storage.files import write_table
from reelwright.storage.results.predictions import scores_matrix
from reelwright.storage.store import backend_of

Scores = npt.NDArray[np.float32]
_KEPT = b"reelwright.kept"  # in the metadata of the windows
_SPAN_COLUMNS = ("start_seconds", "stop_seconds", "source_start", "source_stop")


@dataclass(frozen=True, kw_only=True)
class VideoScores:
    """Probabilities of N windows over the T rows of one video, K classes."""

    start_row: IntArray  # (N,)
    stop_row: IntArray  # (N,) half-open: the last row plus 1
    scores: Scores  # (N, K)
    spans: Spans  # of the T rows
    num_windows: IntArray  # (T,) windows behind each row's score
    row_scores: Scores | None = None  # (T, K), tasks with a label a row only; NaN where num_windows is 0

    def window_columns(self) -> dict[str, Any]:
        """window, start_row, stop_row, start_seconds, stop_seconds, time_seconds (the last row's start), (N,) each."""
        last = self.stop_row - 1
        return {
            "window": np.arange(len(last), dtype=np.int32),
            "start_row": self.start_row.astype(np.int32),
            "stop_row": self.stop_row.astype(np.int32),
            "start_seconds": self.spans.start_seconds[self.start_row],
            "stop_seconds": self.spans.stop_seconds[last],
            "time_seconds": self.spans.start_seconds[last],
        }

    def of_rows(self) -> tuple[IntArray, Scores]:
        """Rows that have a score, and their scores: the mean over windows, or that of the window which ends there."""
        if self.row_scores is None:
            order = np.argsort(self.stop_row, kind="stable")
            return self.stop_row[order] - 1, self.scores[order]
        rows = np.flatnonzero(self.num_windows)
        return rows, self.row_scores[rows]


def write_scores(folder: Path, digest: str, scores: VideoScores, *, kept: Sequence[str] = ()) -> int:
    """Write the two files of a video, each in one step, windows last; returns their bytes.

    ``kept`` names the outputs of the model that were stored before (storage/arrays/window_outputs.py).
    """
    spans = {name: getattr(scores.spans, name) for name in _SPAN_COLUMNS}
    rows = {**spans, "num_windows": scores.num_windows.astype(np.int32)}
    if scores.row_scores is not None:
        rows["scores"] = _fixed_lists(scores.row_scores)
    files = {
        _rows_file(folder, digest): rows,
        _windows_file(folder, digest): {**scores.window_columns(), "scores": _fixed_lists(scores.scores)},
    }
    metadata = {_KEPT: json.dumps(list(kept)).encode()} if kept else None
    for path, columns in files.items():
        write_table(path, pa.table(columns, metadata=metadata))
    return sum(path.stat().st_size for path in files)


def read_scores(folder: Path, digest: str) -> VideoScores:
    """The inverse of `write_scores`. Raises StoreError when the video's files are missing or damaged."""
    try:
        if not backend_of(folder).ensure_local(_windows_file(folder, digest), _rows_file(folder, digest)):
            raise FileNotFoundError("not there")
        windows, rows = pq.read_table(_windows_file(folder, digest)), pq.read_table(_rows_file(folder, digest))
    except (OSError, pa.ArrowInvalid) as error:
        raise StoreError(
            f"the scores of video {digest} in {folder} cannot be read ({error}). Run predict again with --force."
        ) from error
    return VideoScores(
        start_row=windows["start_row"].to_numpy().astype(np.int64),
        stop_row=windows["stop_row"].to_numpy().astype(np.int64),
        scores=scores_matrix(windows),
        spans=Spans(*(rows[name].to_numpy() for name in _SPAN_COLUMNS)),
        num_windows=rows["num_windows"].to_numpy().astype(np.int64),
        row_scores=scores_matrix(rows) if "scores" in rows.column_names else None,
    )


def kept_outputs(folder: Path, digest: str) -> tuple[str, ...]:
    """Names of the outputs that are kept beside the scores of a video, whose files are here and intact."""
    with readable(_windows_file(folder, digest)):
        metadata = pq.read_schema(_windows_file(folder, digest)).metadata or {}
    return tuple(json.loads(metadata.get(_KEPT, b"[]")))


def _windows_file(folder: Path, digest: str) -> Path:
    return folder / f"{digest}.parquet"


def _rows_file(folder: Path, digest: str) -> Path:
    return folder / f"{digest}.rows.parquet"


def _fixed_lists(values: Scores) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
