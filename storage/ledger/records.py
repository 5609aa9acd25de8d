"""What a store says of itself: records of finished nodes, written last, the newest of each node, and its layout.

``store.json`` at its root, written with the first run, says which layout it has. A store of a newer release is refused,
since what it holds may mean something else; one of an older release is read, and gets this release's number with the
next run. What only single fields are about needs no new number: those that another release wrote are kept, and those
that it lacks are as by default.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from reelwright.storage.constants import SCHEMA
from reelwright.storage.digests import damaged, read_sealed, readable
from reelwright.storage.errors import ConfigError, StoreError
from reelwright.storage.files import write_sealed
from reelwright.storage.store import Store, backend_of

LAYOUT = 2  # 1: keys of what reads clips, windows or a model were made with other names of settings
OLDEST_LAYOUT = 0  # that can be read: without store.json, and the files of loggers lay among those of runs


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
    finished: str = ""  # UTC, for people, and for the order of runs, of which several may end in a second
    other: dict[str, Any] = field(default_factory=dict)  # fields of another release, kept as they are

    @property
    def all_done(self) -> bool:
        """Whether each of its videos has rows, if not to its end."""
        return bool(self.items) and self.items["done"] == self.items["total"]


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


def check_schema(store: Store) -> int | None:
    """The number of a store; None without one, of a store that is new or of release 0.1.0 or older.

    Raises ConfigError for a number that this release cannot read, StoreError when the file is damaged.
    """
    path = store.root / SCHEMA
    store.backend.pull_file(path)
    try:
        with readable(path):
            number = int(read_sealed(path)["schema"])
    except FileNotFoundError:
        return None
    if number > LAYOUT:
        raise ConfigError(
            f"the store {store.place} has layout {number}, of a newer release of reelwright; this one knows up to "
            f"{LAYOUT}. Install a newer release, or name another store (store:)"
        )
    if number < OLDEST_LAYOUT:
        raise ConfigError(
            f"the store {store.place} has layout {number}, of an older release of reelwright; this one reads from "
            f"{OLDEST_LAYOUT} on. Name another store (store:), which makes everything anew, or use the older release"
        )
    return number


def older_note(store: Store) -> str:
    """What becomes of the content of an older release's store, for people; "" where there is none."""
    number = check_schema(store)
    if number == LAYOUT or (number is None and not store.root.joinpath("nodes").is_dir()):
        return ""
    return (
        f"the store {store.place} is of an older release, in which settings had other names (skip, stride, contrast, "
        "tcn, ...). Its videos, frames and fetched weights are used as they are; embeddings, runs and predictions are "
        "made anew under new keys, and videos of videos.synthesize again, once. The old ones stay until "
        "`reelwright gc --delete`"
    )


def note_schema(store: Store) -> None:
    """Give the store this release's number, before anything is written to it. Raises as `check_schema`."""
    if check_schema(store) != LAYOUT:
        write_sealed(store.root / SCHEMA, {"schema": LAYOUT})
