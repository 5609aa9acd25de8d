"""Completed steps as Parquet: the documented schema, its writer and reader. DuckDB, pandas and polars need neither.

A folder holds `steps.parquet` (recognised), `truth.parquet` (annotated) and `videos.parquet`; the key-value metadata of
each file has one entry `reelwright`, JSON of `StepsInfo`.

| column | type | steps | truth | videos | meaning |
|---|---|---|---|---|---|
| video_id, split | string, dictionary-encoded | x | x | x | as in the manifest |
| video_digest | string | x | x | x | content digest of the video |
| position | int32 | x | x | | 0, 1, ... within the video, in the order of emission (truth: of time) |
| time_seconds | float64 | x | x | | when the step was recognised, or completed |
| frame | int64 | x | x | | the same as a frame of the procedure's fps or, without one, a row of the store |
| step_id | int32 | x | x | | 3 * component + 0 install, 1 install wrongly, 2 remove |
| step, component, action | string, dictionary-encoded | x | x | | names; action is install, wrong or remove |
| score | float32 | x | | | confidence or, where it is accumulated, the sum that fired |
| observed | bool | x | | | false: not seen, but implied by other steps |
| source | string, dictionary-encoded | x | | | detections or changes |
| procedure | string, dictionary-encoded | | | x | kind of procedure |
| duration_seconds | float64 | | | x | null where unknown |
| num_steps | int32 | | | x | recognised steps |
| has_truth | bool | | | x | whether it is known which steps were completed |
| has_errors | bool | | | x | an expected step is missing or was done wrongly; null without truth |

Rows are in the order of the manifest, those of one video in the order of `position`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from reelwright.storage.digests import read_table, readable
from reelwright.storage.errors import InputError

METADATA_KEY = b"reelwright"
VERSION = 1  # of the schema
TABLES = ("steps", "truth", "videos")

_NAME = pa.dictionary(pa.int32(), pa.string())
_VIDEO = [("video_id", _NAME), ("video_digest", pa.string()), ("split", _NAME)]
_STEP = [
    ("position", pa.int32()),
    ("time_seconds", pa.float64()),
    ("frame", pa.int64()),
    ("step_id", pa.int32()),
    ("step", _NAME),
    ("component", _NAME),
    ("action", _NAME),
]
SCHEMAS: Mapping[str, pa.Schema] = {
    "steps": pa.schema([*_VIDEO, *_STEP, ("score", pa.float32()), ("observed", pa.bool_()), ("source", _NAME)]),
    "truth": pa.schema([*_VIDEO, *_STEP]),
    "videos": pa.schema(
        [
            *_VIDEO,
            ("procedure", _NAME),
            ("duration_seconds", pa.float64()),
            ("num_steps", pa.int32()),
            ("has_truth", pa.bool_()),
            ("has_errors", pa.bool_()),
        ]
    ),
}


@dataclass(frozen=True, kw_only=True)
class StepsInfo:
    """What the metadata of each file says."""

    key: str  # node key of the steps
    procedure: str  # name of the procedure description
    decoder: str
    fps: float | None  # of the column frame; None: rows of the store
    window: int | None  # frames (of `frame`) that one prediction of changes looks back; None: no such stream
    step_names: tuple[str, ...]  # by step id
    expected: Mapping[str, Sequence[int]]  # kind of procedure -> step ids
    version: int = VERSION
    extra: Mapping[str, Any] = field(default_factory=dict)  # settings of the decoders: plain JSON values

    def metadata(self) -> dict[bytes, bytes]:
        """Key-value metadata of a Parquet file."""
        return {METADATA_KEY: json.dumps(asdict(self), ensure_ascii=False, sort_keys=True).encode()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[bytes, bytes] | None, *, path: Path) -> StepsInfo:
        """The inverse of `metadata`. Raises InputError when ``path`` is no file of ours."""
        if not metadata or METADATA_KEY not in metadata:
            raise InputError(
                f"{path} has no metadata {METADATA_KEY.decode()!r}: it was not written by steps; run steps"
            )
        values = json.loads(metadata[METADATA_KEY])
        known = {name: values[name] for name in (entry.name for entry in fields(cls)) if name in values}
        return cls(**{**known, "step_names": tuple(values["step_names"])})


def write_steps(folder: Path, info: StepsInfo, tables: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Write the three tables, given as rows by name (`TABLES`), into an empty folder."""
    for name in TABLES:
        schema = SCHEMAS[name].with_metadata(info.metadata())
        columns = [_column([row[entry.name] for row in tables[name]], entry.type) for entry in schema]
        pq.write_table(pa.Table.from_arrays(columns, schema=schema), folder / f"{name}.parquet", compression="zstd")


class StepSet:
    """The steps in one folder. Raises InputError when there are none."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not (folder / "steps.parquet").is_file():
            raise InputError(f"no steps at {folder}: steps.parquet is not there; run steps first")

    @property
    def info(self) -> StepsInfo:
        """Procedure, decoder and names, as the files' metadata says."""
        path = self.folder / "steps.parquet"
        with readable(path):
            return StepsInfo.from_metadata(pq.read_schema(path).metadata, path=path)

    def steps(self) -> pa.Table:
        """steps.parquet: what was recognised."""
        return read_table(self.folder / "steps.parquet")

    def truth(self) -> pa.Table:
        """truth.parquet: what was annotated."""
        return read_table(self.folder / "truth.parquet")

    def videos(self) -> pa.Table:
        """videos.parquet: all videos, with steps or without."""
        return read_table(self.folder / "videos.parquet")


def _column(values: Sequence[Any], kind: Any) -> pa.Array:
    return pa.array(values, type=pa.string()).dictionary_encode() if kind == _NAME else pa.array(values, type=kind)
