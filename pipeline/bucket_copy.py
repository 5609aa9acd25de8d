"""What `verify` looks at, and of a store in a bucket fresh copies of it: the working copy says nothing of its bytes."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from reelwright.storage import remote
from reelwright.storage.errors import StoreError
from reelwright.storage.kinds import RECORDED, WITH_ITEMS
from reelwright.storage.reserved import SCHEMA, URLS, VIDEOS
from reelwright.storage.store import Store
from reelwright.storage.urls import cache_folder

_TABLES = frozenset({VIDEOS, URLS, SCHEMA})
_NOT_WRITTEN_ONCE = ("locks/", "claims/", "logs/")  # they come and go while others work
_FILES_AT_ONCE = 500
_TRIES = 5


Items = tuple[str, str]  # area and spec key


@dataclass
class Scope:
    """What is looked at."""

    nodes: set[str] = field(default_factory=set)  # folders below nodes/
    records: set[str] = field(default_factory=set)  # keys whose outputs are checked
    items: dict[Items, frozenset[str] | None] = field(default_factory=dict)  # digests of videos; None: all
    projects: set[Path] = field(default_factory=set)
    weights: set[Path] = field(default_factory=set)
    synthetic: set[str] = field(default_factory=set)  # keys of sets of videos and of classes
    is_whole: bool = False  # also what belongs to nothing

    def moved(self, store: Store, copy: Store) -> Scope:
        """The same in a copy of the store."""

        def places(paths: set[Path]) -> set[Path]:
            return {copy.root / path.relative_to(store.root) for path in paths}

        return replace(self, projects=places(self.projects), weights=places(self.weights))


@contextlib.contextmanager
def copied(store: Store, scope: Scope | None) -> Iterator[Store]:
    """The copy of what ``scope`` looks at, of everything for None, as a store in a folder that is removed again."""
    cache_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="verify-", dir=cache_folder()) as folder:
        names = _everything(store) if scope is None else sorted(_named(store, scope))
        _download({store.backend.name_of(store.root / name): Path(folder) / name for name in names}, store)
        yield Store(Path(folder))


def _download(files: dict[str, Path], store: Store) -> None:
    """Download objects (by URL); those that are not there (any more) are left out, as they are of the copy."""
    urls = list(files)
    for start in range(0, len(urls), _FILES_AT_ONCE):
        part = urls[start : start + _FILES_AT_ONCE]
        for _ in range(_TRIES):
            try:
                remote.download({url: files[url] for url in part})
                break
            except FileNotFoundError:  # another process replaces or removes it just now
                there = remote.look_at(part)
                part = [url for url in part if there[url] is not None]
        else:
            raise StoreError(f"{store.url} is changed by others all the time, so that no copy can be made. Run again")


def _named(store: Store, scope: Scope) -> Iterator[str]:
    """Names of the objects that a scope looks at."""
    yield from _TABLES & store.backend.names(store.root)
    folders = {f"nodes/{key}" for key in scope.nodes}
    folders |= {f"{area}/{key}" for area in RECORDED for key in scope.records}
    folders |= {f"synthetic/{key}" for key in scope.synthetic}
    for (area, key), digests in scope.items.items():
        kind = WITH_ITEMS[area]
        folder = f"{area}/{key}{kind.ending}"
        if not kind.is_rows:
            folders.add(folder)
            continue
        for name, _ in store.backend.entries(store.root / folder):
            if digests is None or name == kind.marker or name.partition("/")[0] in digests:
                yield f"{folder}/{name}"
    for folder in sorted(folders):
        yield from (f"{folder}/{name}" for name, _ in store.backend.entries(store.root / folder))
    yield from (path.relative_to(store.root).as_posix() for path in scope.projects | scope.weights)


def _everything(store: Store) -> list[str]:
    return [name for name, _ in store.backend.entries(store.root) if not name.startswith(_NOT_WRITTEN_ONCE)]
