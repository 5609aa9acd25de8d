"""Records: what a finished node leaves behind, written last; and the newest record of each node of a pipeline file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from reelwright.storage.errors import StoreError
from reelwright.storage.files import write_json
from reelwright.storage.store import Store


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
    versions: dict[str, str] = field(default_factory=dict)
    finished: str = ""  # UTC, for people; nothing depends on it


def write_record(store: Store, record: Record, *, project: Path) -> None:
    """Note a finished node in the store, then as the newest of its pipeline file."""
    write_json(store.node(record.key) / "record.json", asdict(record))
    write_json(project / f"{record.node}.json", asdict(record))


def read_record(store: Store, key: str) -> Record | None:
    """The record of a key; None when that key was never finished."""
    return _read(store.node(key) / "record.json")


def last_record(project: Path, node: str) -> Record | None:
    """The newest record of a node of a pipeline file, whatever its key."""
    return _read(project / f"{node}.json")


def _read(path: Path) -> Record | None:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise StoreError(
            f"{path}: not a readable record ({error}). Remove the file; the node is then checked again"
        ) from None
    return Record(**values)
