"""Records: what a finished node leaves behind, written last; and the newest record of each node of a pipeline file."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from reelwright.storage.errors import StoreError
from reelwright.storage.files import read_sealed, write_sealed
from reelwright.storage.store import Store, backend_of
from reelwright.storage.store_errors import damaged


@dataclass(frozen=True, kw_only=True)
class Record:
    """One finished node."""

    node: str
    stage: str
    key: str
    spec_key: str  # equals key for stages without items
    material: dict[str, Any]  # what the key is the digest of: stage, version, spec, inputs; `explain` compares it
    items: dict[str, int] = field(default_factory=dict)  # total, done, failed
    outputs: dict[str, Any] = field(default_factory=dict)  # such as weights: digest; metrics
    rows: int = 0
    bytes: int = 0
    seconds: float = 0.0
    files: dict[str, list[Any]] = field(
        default_factory=dict
    )  # path in the store -> [bytes, digest]; not those of items
    versions: dict[str, str] = field(default_factory=dict)
    work: dict[str, float] = field(default_factory=dict)
    """What the run that finished it did: videos, video_seconds, rows, bytes, seconds, and the share of a training that
    it did in them; `run -n` estimates from it."""
    finished: str = ""  # UTC, for people; nothing depends on it
    other: dict[str, Any] = field(default_factory=dict)  # fields of another release, kept as they are


def write_record(store: Store, record: Record, *, project: Path) -> None:
    """Note a finished node in the store, then as the newest of its pipeline file.

    Fields of another release that an earlier record of the same key has are kept.
    """
    save_record(store.node(record.key) / "record.json", record)
    remember_record(record, project=project, node=record.node)


def remember_record(record: Record, *, project: Path, node: str) -> None:
    """Note what a pipeline file has now under a node's name, made by it or found in the store."""
    save_record(project / f"{node}.json", record)


def save_record(path: Path, record: Record) -> None:
    """Write one copy of a record."""
    values = asdict(record)
    other = values.pop("other")
    try:
        before = load_record(path)
    except StoreError:  # damaged: it is replaced
        before = None
    if before is not None and before.key == record.key:
        other = before.other | other
    write_sealed(path, values | other)


def read_record(store: Store, key: str) -> Record | None:
    """The record of a key; None when that key was never finished."""
    store.backend.pull(store.node(key))
    return load_record(store.node(key) / "record.json")


def read_records(store: Store) -> list[Record]:
    """All records of a store, by key."""
    store.backend.pull(store.root / "nodes", skip=_is_no_record)
    found = (load_record(path) for path in sorted((store.root / "nodes").glob("*/record.json")))
    return [record for record in found if record is not None]


def _is_no_record(name: str) -> bool:
    return not name.endswith("/record.json")


def last_record(project: Path, node: str) -> Record | None:
    """The newest record of a node of a pipeline file, whatever its key."""
    backend_of(project).pull(project)
    return load_record(project / f"{node}.json")


def load_record(path: Path) -> Record | None:
    """The record in a file; None when there is no such file. Raises StoreError when it is damaged."""
    try:
        values = read_sealed(path)
    except FileNotFoundError:
        return None
    other = {name: values.pop(name) for name in values.keys() - _FIELDS}
    try:
        return Record(**values, other=other)
    except TypeError as error:
        raise damaged(path, f"not a record of ours: {error}") from error


_FIELDS = {entry.name for entry in fields(Record)} - {"other"}
