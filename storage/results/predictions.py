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
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from reelwright.storage.digests import read_table, readable
from reelwright.storage.errors import InputError, nearest
from reelwright.storage.files import replacing_folder

METADATA_KEY = b"reelwright"
VERSION = 2  # of the schema; 1 kept the heads as a mapping, in an order that meant nothing
_NAME = pa.dictionary(pa.int32(), pa.string())
_VIDEO = {"video_id": _NAME, "video_digest": pa.string(), "split": _NAME}
_SPAN = {"start_seconds": pa.float64(), "stop_seconds": pa.float64()}
TABLES: Mapping[str, Mapping[str, Any]] = {  # what each has between the video and its scores
    "windows": {
        "window": pa.int32(),
        "start_row": pa.int32(),
        "stop_row": pa.int32(),
        **_SPAN,
        "time_seconds": pa.float64(),
    },
    "rows": {"row": pa.int32(), **_SPAN, "source_start": pa.int64()},
    "videos": {"num_windows": pa.int32()},
}
_NULLABLE = frozenset({"target_id", "target", "targets"})


@dataclass(frozen=True, kw_only=True)
class PredictionInfo:
    """What the metadata of each file says."""

    key: str  # node key of the predictions
    run: str  # key of the run that predicted
    task: str  # video, last_row, majority, per_row or multi_label
    classes: tuple[str, ...]  # names by label id
    heads: tuple[tuple[str, int], ...] = ()  # name and number of classes, in the order of their columns in `scores`
    version: int = VERSION
    extra: Mapping[str, Any] = field(default_factory=dict)  # window settings, sources of rows: plain JSON values

    def metadata(self) -> dict[bytes, bytes]:
        """Key-value metadata of a Parquet file."""
        return {METADATA_KEY: json.dumps(asdict(self), ensure_ascii=False, sort_keys=True).encode()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[bytes, bytes] | None, *, path: Path) -> PredictionInfo:
        """The inverse of `metadata`. Raises InputError for no file of ours, or heads of version 1."""
        if not metadata or METADATA_KEY not in metadata:
            raise InputError(
                f"{path} has no metadata {METADATA_KEY.decode()!r}: it was not written by predict; predict again"
            )
        values = json.loads(metadata[METADATA_KEY])
        if "heads" in values["extra"]:
            raise InputError(
                f"{path} was written by an older version, which did not keep the order of the heads "
                f"({', '.join(values['extra']['heads'])}): run predict again"
            )
        known = {name: values[name] for name in (entry.name for entry in fields(cls)) if name in values}
        heads = tuple((name, int(size)) for name, size in values.get("heads", ()))
        return cls(**{**known, "classes": tuple(values["classes"]), "heads": heads})


@dataclass(frozen=True, kw_only=True)
class PredictedVideo:
    """Whose predictions they are."""

    video_id: str
    digest: str
    split: str


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Scores of N windows, rows or (N = 1) of one video, over K classes."""

    scores: npt.NDArray[np.float32]  # (N, K) probabilities
    target_ids: npt.NDArray[np.int64] | None = None  # (N,) negative where unknown; None: none known
    targets: npt.NDArray[np.bool_] | None = None  # (N, K) multi_label only
    known: npt.NDArray[np.bool_] | None = None  # (N,) where targets is known; None: everywhere


def schema_of(table: str, num_classes: int) -> pa.Schema:
    """The schema of windows, rows or videos (`TABLES`) for K = ``num_classes``."""
    kinds = {
        "label_id": pa.int32(),
        "label": _NAME,
        "score": pa.float32(),
        "scores": pa.list_(pa.float32(), num_classes),
        "target_id": pa.int32(),
        "target": _NAME,
        **({} if table == "rows" else {"targets": pa.list_(pa.bool_())}),
    }
    columns = {**_VIDEO, **TABLES[table], **kinds}
    return pa.schema([pa.field(name, kind, nullable=name in _NULLABLE) for name, kind in columns.items()])


def scored_table(
    table: str, video: PredictedVideo, columns: Mapping[str, Any], *, info: PredictionInfo, scored: Scored
) -> pa.Table:
    """Windows, rows or videos of one video. Raises ValueError when a column is missing or the classes do not fit."""
    schema = schema_of(table, len(info.classes))
    size = len(scored.scores)
    zeros = pa.array(np.zeros(size, np.int32))
    columns = {
        "video_id": pa.DictionaryArray.from_arrays(zeros, [video.video_id]),
        "video_digest": [video.digest] * size,
        "split": pa.DictionaryArray.from_arrays(zeros, [video.split]),
        **columns,
        **_score_columns(info.classes, scored),
    }
    wrong = {name for name in schema.names if name not in columns}
    if wrong:
        raise ValueError(f"predictions lack the columns {sorted(wrong)}; given are {sorted(columns)}")
    arrays = [pa.array(columns[column.name]).cast(column.type) for column in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def _score_columns(classes: Sequence[str], scored: Scored) -> dict[str, Any]:
    scores_NK = np.ascontiguousarray(scored.scores, dtype=np.float32)
    size, num_classes = scores_NK.shape
    if num_classes != len(classes):
        raise ValueError(f"scores have {num_classes} columns, but there are {len(classes)} classes")
    label_ids = scores_NK.argmax(axis=1).astype(np.int32)
    target_ids = np.full(size, -1, np.int32) if scored.target_ids is None else scored.target_ids.astype(np.int32)
    targets = pa.array(target_ids, mask=target_ids < 0)
    return {
        "label_id": pa.array(label_ids),
        "label": pa.DictionaryArray.from_arrays(pa.array(label_ids), list(classes)),
        "score": pa.array(scores_NK.max(axis=1)),
        "scores": pa.FixedSizeListArray.from_arrays(pa.array(scores_NK.reshape(-1)), num_classes),
        "target_id": targets,
        "target": pa.DictionaryArray.from_arrays(targets, list(classes)),
        "targets": _target_sets(scored, size),
    }


def _target_sets(scored: Scored, size: int) -> pa.Array:
    if scored.targets is None:
        return pa.nulls(size, pa.list_(pa.bool_()))
    known = np.ones(size, bool) if scored.known is None else scored.known
    sets = [row.tolist() if is_known else None for row, is_known in zip(scored.targets, known, strict=True)]
    return pa.array(sets, type=pa.list_(pa.bool_()))


class PredictionWriter:
    """Streams the tables of one prediction into ``folder``; use `open_writer`."""

    def __init__(self, folder: Path, info: PredictionInfo, *, with_rows: bool) -> None:
        self.folder = folder  # what else belongs beside the tables may be written here
        names = TABLES if with_rows else ("windows", "videos")
        self._info = info
        schemas = {name: schema_of(name, len(info.classes)).with_metadata(info.metadata()) for name in names}
        self._writers = {
            name: pq.ParquetWriter(folder / f"{name}.parquet", schema, compression="zstd")
            for name, schema in schemas.items()
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

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
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
        if name not in self._writers:
            raise ValueError(f"task {self._info.task!r} was opened without {name}; open the writer with_rows=True")
        return scored_table(name, video, columns, info=self._info, scored=scored)


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
            names = sorted(other.name for other in self.folder.glob("*.parquet"))
            raise InputError(f"no {name} at {self.folder}: predict again; there are {', '.join(names)}")
        return path


def scores_matrix(table: pa.Table) -> npt.NDArray[np.float32]:
    """The column ``scores`` as one array, float32 (N, K)."""
    width = table.schema.field("scores").type.list_size
    parts = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in table["scores"].chunks]
    return np.concatenate([np.empty(0, np.float32), *parts]).reshape(-1, width)
