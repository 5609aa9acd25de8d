"""The Arrow schemas of predictions (see predictions.py for the columns) and tables of them from arrays."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from reelwright.storage.errors import InputError

METADATA_KEY = b"reelwright"
VERSION = 2  # of the schema; 1 kept the heads as a mapping, in an order that meant nothing
TABLES = ("windows", "rows", "videos")

_NAME = pa.dictionary(pa.int32(), pa.string())
_VIDEO = [("video_id", _NAME), ("video_digest", pa.string()), ("split", _NAME)]
_SPAN = [("start_seconds", pa.float64()), ("stop_seconds", pa.float64())]
_WINDOW = [
    ("window", pa.int32()),
    ("start_row", pa.int32()),
    ("stop_row", pa.int32()),
    *_SPAN,
    ("time_seconds", pa.float64()),
]
_ROW = [("row", pa.int32()), *_SPAN, ("source_start", pa.int64())]
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


def windows_schema(num_classes: int) -> pa.Schema:
    """The schema of windows.parquet for K = ``num_classes``."""
    return _schema([*_VIDEO, *_WINDOW, *_scored(num_classes), ("targets", pa.list_(pa.bool_()))])


def rows_schema(num_classes: int) -> pa.Schema:
    """The schema of rows.parquet for K = ``num_classes``."""
    return _schema([*_VIDEO, *_ROW, *_scored(num_classes)])


def videos_schema(num_classes: int) -> pa.Schema:
    """The schema of videos.parquet for K = ``num_classes``."""
    return _schema([*_VIDEO, ("num_windows", pa.int32()), *_scored(num_classes), ("targets", pa.list_(pa.bool_()))])


SCHEMAS = {"windows": windows_schema, "rows": rows_schema, "videos": videos_schema}


def _schema(columns: list[tuple[str, Any]]) -> pa.Schema:
    return pa.schema([pa.field(name, kind, nullable=name in _NULLABLE) for name, kind in columns])


def _scored(num_classes: int) -> list[tuple[str, Any]]:
    scores = [
        ("label_id", pa.int32()),
        ("label", _NAME),
        ("score", pa.float32()),
        ("scores", pa.list_(pa.float32(), num_classes)),
    ]
    return [*scores, ("target_id", pa.int32()), ("target", _NAME)]


def _video_columns(video: PredictedVideo, size: int) -> dict[str, Any]:
    zeros = pa.array(np.zeros(size, np.int32))
    return {
        "video_id": pa.DictionaryArray.from_arrays(zeros, [video.video_id]),
        "video_digest": [video.digest] * size,
        "split": pa.DictionaryArray.from_arrays(zeros, [video.split]),
    }


def scored_table(
    schema: pa.Schema, video: PredictedVideo, columns: Mapping[str, Any], *, info: PredictionInfo, scored: Scored
) -> pa.Table:
    """A table of ``schema`` for one video. Raises ValueError when a column is missing or the classes do not fit."""
    columns = _video_columns(video, len(scored.scores)) | dict(columns) | _score_columns(info.classes, scored)
    wrong = {name for name in schema.names if name not in columns}
    if wrong:
        raise ValueError(f"predictions lack the columns {sorted(wrong)}; given are {sorted(columns)}")
    arrays = [_array(columns[column.name], column.type) for column in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def _array(values: Any, kind: Any) -> pa.Array:
    return values.cast(kind) if isinstance(values, pa.Array) else pa.array(values, type=kind)


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
