"""Which layout a store has: ``store.json`` at its root, written with the first run.

A store of a newer release is refused, since what it holds may mean something else; one of an older release is read, and
gets this release's number with the next run. What only single fields are about needs no new number: those that another
release wrote are kept, and those that it lacks are as by default.
"""

from __future__ import annotations

from reelwright.storage.constants import SCHEMA
from reelwright.storage.errors import ConfigError
from reelwright.storage.files import read_sealed, write_sealed
from reelwright.storage.store import Store
from reelwright.storage.store_errors import readable

VERSION = 2  # 1: keys of what reads clips, windows or a model were made with other names of settings
OLDEST = 0  # that can be read: without store.json, and the files of loggers lay among those of runs


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
    if number > VERSION:
        raise ConfigError(
            f"the store {store.place} has layout {number}, of a newer release of reelwright; this one knows up to "
            f"{VERSION}. Install a newer release, or name another store (store:)"
        )
    if number < OLDEST:
        raise ConfigError(
            f"the store {store.place} has layout {number}, of an older release of reelwright; this one reads from "
            f"{OLDEST} on. Name another store (store:), which makes everything anew, or use the older release"
        )
    return number


def older_note(store: Store) -> str:
    """What becomes of the content of an older release's store, for people; "" where there is none."""
    number = check_schema(store)
    if number == VERSION or (number is None and not store.root.joinpath("nodes").is_dir()):
        return ""
    return (
        f"the store {store.place} is of an older release, in which settings had other names (skip, stride, contrast, "
        "tcn, ...). Its videos, frames and fetched weights are used as they are; embeddings, runs and predictions are "
        "made anew under new keys, and videos of videos.synthesize again, once. The old ones stay until "
        "`reelwright gc --delete`"
    )


def note_schema(store: Store) -> None:
    """Give the store this release's number, before anything is written to it. Raises as `check_schema`."""
    if check_schema(store) != VERSION:
        write_sealed(store.root / SCHEMA, {"schema": VERSION})
