"""What `verify` looks at, and fresh copies of it from a bucket: the working copy says nothing of the bucket's bytes."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from reelwright.storage.bucket import remote
from reelwright.storage.constants import SCHEMA, URLS, VIDEOS
from reelwright.storage.errors import StoreError
from reelwright.storage.kinds import RECORDED, WITH_ITEMS
from reelwright.storage.store import Store, cache_folder

Digests = frozenset[str] | None  # of videos; None: all
_TABLES = frozenset({VIDEOS, URLS, SCHEMA})
_NOT_WRITTEN_ONCE = ("locks/", "claims/", "logs/")  # they come and go while others work
_FILES_AT_ONCE = 500
_TRIES = 5


@dataclass
class Scope:
    """What is looked at."""

    # area -> names in it: keys, paths of files in projects and weights; of frames, embeddings and cached predictions
    # which videos. "outputs" are those of the records with these keys, in whatever area.
    names: dict[str, dict[str, Digests]] = field(default_factory=dict)
    is_whole: bool = False  # also what belongs to nothing

    def add(self, area: str, name: str, digests: Digests = None) -> None:
        """Look at this too, and at these videos besides those that are looked at."""
        before = self.of(area).get(name, frozenset())
        self.names.setdefault(area, {})[name] = None if digests is None or before is None else before | digests

    def of(self, area: str) -> Mapping[str, Digests]:
        """What is looked at of an area."""
        return self.names.get(area, {})


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
    folders = {f"nodes/{key}" for key in scope.of("nodes")}
    folders |= {f"{area}/{key}" for area in RECORDED for key in scope.of("outputs")}
    for area, kind in WITH_ITEMS.items():
        for key, digests in scope.of(area).items():
            folder = f"{area}/{key}{kind.ending}"
            if not kind.is_rows:
                folders.add(folder)
                continue
            for name, _ in store.backend.entries(store.root / folder):
                if digests is None or name == kind.marker or name.partition("/")[0] in digests:
                    yield f"{folder}/{name}"
    for folder in sorted(folders):
        yield from (f"{folder}/{name}" for name, _ in store.backend.entries(store.root / folder))
    yield from (f"{area}/{name}" for area in ("projects", "weights") for name in scope.of(area))


def _everything(store: Store) -> list[str]:
    return [name for name, _ in store.backend.entries(store.root) if not name.startswith(_NOT_WRITTEN_ONCE)]
