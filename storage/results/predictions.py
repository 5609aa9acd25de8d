"""Predictions as Parquet: the documented schema, a streaming writer, a reader. DuckDB, pandas and polars need neither.

A folder holds `windows.parquet`, `videos.parquet` and, where rows were predicted, `rows.parquet`. K is the
number of classes; the key-value metadata of each file has one entry `reelwright`, JSON of `PredictionInfo`.

| column | type | windows | rows | videos | meaning |
|---|---|---|---|---|---|
| video_id, split | string, dictionary-encoded | x | x | x | as in the manifest |
| video_digest | string | x | x | x | content digest of the video |
| window | int32 | x | | | 0, 1, ... within the video |
| start_row, stop_row | int32 | x | | | rows of the embedding or frame store, half-open |
| row | int32 | | x | | row of the store |
| start_seconds, stop_seconds | float64 | x | x | | half-open span of presentation time |
| source_start | int64 | | x | | first source frame of the row |
| time_seconds | float64 | x | | | start_seconds of the window's last row |
| num_windows | int32 | | | x | windows behind the mean |
| label_id, label | int32; string, dictionary-encoded | x | x | x | best class |
| score | float32 | x | x | x | its probability |
| scores | list of K float32 | x | x | x | probabilities of all classes, in the order of `classes` |
| target_id, target | int32; string, dictionary-encoded | x | x | x | the true class; null where unknown |
| targets | list of K bool | x | | x | classes present (task multi_label); null otherwise |

Windows and rows of one video are one row group, in order of time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from reelwright.storage.digests import read_table, readable
from reelwright.storage.errors import InputError, nearest
from reelwright.storage.files import replacing_folder
from reelwright.storage.results.prediction_schema import (
    METADATA_KEY,
    SCHEMAS,
    TABLES,
    PredictedVideo,
    PredictionInfo,
    Scored,
    rows_schema,
    scored_table,
    videos_schema,
    windows_schema,
)

__all__ = [
    "METADATA_KEY",
    "PredictedVideo",
    "PredictionInfo",
    "PredictionSet",
    "PredictionWriter",
    "Scored",
    "open_writer",
    "rows_schema",
    "scores_matrix",
    "videos_schema",
    "windows_schema",
]


class PredictionWriter:
    """Streams the tables of one prediction into ``folder``; use `open_writer`."""

    def __init__(self, folder: Path, info: PredictionInfo, *, with_rows: bool) -> None:
        self.folder = folder  # what else belongs beside the tables may be written here
        names = TABLES if with_rows else ("windows", "videos")
        self._info = info
        self._schemas = {name: SCHEMAS[name](len(info.classes)).with_metadata(info.metadata()) for name in names}
        self._writers = {
            name: pq.ParquetWriter(folder / f"{name}.parquet", schema, compression="zstd")
            for name, schema in self._schemas.items()
        }
        self._videos: list[pa.Table] = []

    def write_windows(self, video: PredictedVideo, columns: Mapping[str, Any], scored: Scored) -> None:
        """All windows of ``video`` as one row group.

        ``columns`` has window, start_row, stop_row, start_seconds, stop_seconds and time_seconds, each (N,).
        """
        self._write("windows", self._table("windows", video, columns, scored))

    def write_rows(self, video: PredictedVideo, columns: Mapping[str, Any], scored: Scored) -> None:
        """All rows of ``video`` as one row group.

        ``columns`` has row, start_seconds, stop_seconds and source_start, each (N,).
        """
        self._write("rows", self._table("rows", video, columns, scored))

    def write_video(self, video: PredictedVideo, *, num_windows: int, scored: Scored) -> None:
        """The result of the whole video; N is 1 in ``scored``."""
        self._videos.append(self._table("videos", video, {"num_windows": [num_windows]}, scored))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self._videos:
                self._write("videos", pa.concat_tables(self._videos).unify_dictionaries())
        finally:
            for writer in self._writers.values():
                writer.close()

    def _write(self, name: str, table: pa.Table) -> None:
        if table.num_rows:
            self._writers[name].write_table(table, row_group_size=table.num_rows)

    def _table(self, name: str, video: PredictedVideo, columns: Mapping[str, Any], scored: Scored) -> pa.Table:
        if name not in self._schemas:
            raise ValueError(f"task {self._info.task!r} was opened without {name}; open the writer with_rows=True")
        return scored_table(self._schemas[name], video, columns, info=self._info, scored=scored)


@contextlib.contextmanager
def open_writer(folder: Path, info: PredictionInfo, *, with_rows: bool = False) -> Iterator[PredictionWriter]:
    """A writer whose files take the place of ``folder`` when the block ends well; otherwise nothing changes."""
    with replacing_folder(folder) as temporary, PredictionWriter(temporary, info, with_rows=with_rows) as writer:
        yield writer


class PredictionSet:
    """The predictions in one folder. Raises InputError when there are none."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not (folder / "windows.parquet").is_file():
            raise InputError(f"no predictions at {folder}: windows.parquet is not there; run predict first")

    @property
    def info(self) -> PredictionInfo:
        """Run, task and classes, as the files' metadata says."""
        path = self.folder / "windows.parquet"
        with readable(path):
            return PredictionInfo.from_metadata(pq.read_schema(path).metadata, path=path)

    @property
    def has_rows(self) -> bool:
        """Whether there is a prediction for every row."""
        return (self.folder / "rows.parquet").is_file()

    def windows(self, *, columns: Sequence[str] | None = None) -> pa.Table:
        """windows.parquet, or some of its columns."""
        return self._read("windows", columns)

    def rows(self, *, columns: Sequence[str] | None = None) -> pa.Table:
        """rows.parquet, or some of its columns. Raises InputError where there are none."""
        return self._read("rows", columns)

    def videos(self, *, columns: Sequence[str] | None = None) -> pa.Table:
        """videos.parquet, or some of its columns."""
        return self._read("videos", columns)

    def by_video(self, name: str, *, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The table of one video after the other, of 'windows' or 'rows'; one is in memory at a time."""
        with readable(self._path(name)), pq.ParquetFile(self._path(name)) as file:
            for group in range(file.num_row_groups):
                yield file.read_row_group(group, columns=list(columns) if columns else None)

    def _read(self, name: str, columns: Sequence[str] | None) -> pa.Table:
        path = self._path(name)
        with readable(path):
            known = pq.read_schema(path).names
        unknown = [column for column in columns or () if column not in known]
        if unknown:
            hint = nearest(unknown[0], known)
            raise InputError(f"{path.name} has no column {unknown[0]!r}.{hint} It has: {', '.join(known)}")
        return read_table(path, columns or None)

    def _path(self, name: str) -> Path:
        path = self.folder / f"{name}.parquet"
        if not path.is_file():
            raise InputError(f"no {name} at {self.folder}: predict again; there are {self._names()}")
        return path

    def _names(self) -> str:
        return ", ".join(sorted(path.name for path in self.folder.glob("*.parquet")))


def scores_matrix(table: pa.Table) -> npt.NDArray[np.float32]:
    """The column ``scores`` as one array, float32 (N, K)."""
    width = table.schema.field("scores").type.list_size
    parts = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in table["scores"].chunks]
    return np.concatenate([np.empty(0, np.float32), *parts]).reshape(-1, width)
