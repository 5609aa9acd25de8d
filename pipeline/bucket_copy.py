"""Fresh copies of what a store in a bucket holds, for `verify`: the working copy says nothing of the bucket's bytes.

What `verify --repair` changes in such a copy is then changed in the bucket.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from reelwright.storage import remote
from reelwright.storage.checking import ledger_is_whole
from reelwright.storage.errors import StoreError
from reelwright.storage.listings import listing_of
from reelwright.storage.mirror import LAST, files_below
from reelwright.storage.reserved import URLS, VIDEOS
from reelwright.storage.store import Store
from reelwright.storage.urls import cache_folder

if TYPE_CHECKING:
    from reelwright.pipeline.verify import Scope

_OUTPUTS = ("runs", "steps", "reports", "predictions")
_TABLES = frozenset({VIDEOS, URLS})
_NOT_WRITTEN_ONCE = ("locks/", "claims/", "logs/")  # they come and go while others work
_FILES_AT_ONCE = 500
_TRIES = 5
_Stamps = dict[str, tuple[int, int, int]]


@contextlib.contextmanager
def copied(store: Store, scope: Scope | None) -> Iterator[Store]:
    """The copy of what ``scope`` looks at, of everything for None, as a store in a folder that is removed again."""
    with _empty() as copy:
        _bring(store, copy, _everything(store) if scope is None else sorted(_named(store, scope)))
        yield copy


@contextlib.contextmanager
def editable(store: Store, scope: Scope) -> Iterator[Store]:
    """What ``scope`` looks at, to be changed: the store itself, or a copy of the bucket's bytes.

    What was changed in a copy is changed in the bucket when the block ends well.
    """
    if store.url is None:
        yield store
        return
    with copied(store, scope) as copy, _sending_changes(store, copy):
        yield copy


@contextlib.contextmanager
def editable_tables(store: Store) -> Iterator[Store]:
    """The same of records, ledgers and what is known of videos; of ledgers that are damaged, their items too."""
    if store.url is None:
        yield store
        return
    with _empty() as copy:
        _bring(store, copy, _tables(store))
        damaged = [folder.name for folder in _folders(copy.root / "nodes") if not ledger_is_whole(folder)]
        _bring(store, copy, [name for key in damaged for name in _items_of(store, key)])
        with _sending_changes(store, copy):
            yield copy


@contextlib.contextmanager
def _empty() -> Iterator[Store]:
    """A store in a folder that is removed again."""
    cache_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="verify-", dir=cache_folder()) as name:
        yield Store(Path(name))


def _bring(store: Store, copy: Store, names: Iterable[str]) -> None:
    """Bring objects by name; those that are not there (any more) are left out, as they are of the copy."""
    wanted = list(names)
    for start in range(0, len(wanted), _FILES_AT_ONCE):
        part = {f"{store.url}/{entry}": copy.root / entry for entry in wanted[start : start + _FILES_AT_ONCE]}
        for _ in range(_TRIES):
            try:
                remote.download(part)
                break
            except FileNotFoundError:  # another process replaces or removes it just now
                there = remote.look_at(list(part))
                part = {url: path for url, path in part.items() if there[url] is not None}
        else:
            raise StoreError(f"{store.url} is changed by others all the time, so that no copy can be made. Run again")


@contextlib.contextmanager
def _sending_changes(store: Store, copy: Store) -> Iterator[None]:
    """Change in the bucket what the block changes in the copy; this machine's copies of that go.

    Ledgers that list less and records come first, then what they do not tell of any more goes, completion first.
    """
    before = _stamps(copy)
    yield
    after = _stamps(copy)
    changed = {copy.root / name: f"{store.url}/{name}" for name in sorted(after) if after[name] != before.get(name)}
    remote.upload({path: url for path, url in changed.items() if path.name not in LAST})
    remote.upload({path: url for path, url in changed.items() if path.name in LAST})
    for path in changed:
        (store.root / path.relative_to(copy.root)).unlink(missing_ok=True)
    gone = {_removed(copy, copy.root / name) for name in before.keys() - after.keys()}
    listing_of(store.root).remove([store.root / path.relative_to(copy.root) for path in sorted(gone)])


def _stamps(copy: Store) -> _Stamps:
    found = {path.relative_to(copy.root).as_posix(): path.stat() for path in files_below(copy.root)}
    return {name: (status.st_size, status.st_mtime_ns, status.st_ino) for name, status in found.items()}


def _removed(copy: Store, path: Path) -> Path:
    """The file, or the folder that was removed with it."""
    while path.parent != copy.root and not path.parent.exists():
        path = path.parent
    return path


def moved(scope: Scope, *, of: Store, to: Store) -> Scope:
    """The same scope in another copy of the store."""

    def places(paths: set[Path]) -> set[Path]:
        return {to.root / path.relative_to(of.root) for path in paths}

    return replace(scope, projects=places(scope.projects), weights=places(scope.weights))


def _named(store: Store, scope: Scope) -> Iterator[str]:
    """Names of the objects that a scope looks at."""
    yield from _TABLES & remote.list_names(str(store.url))
    folders = {f"nodes/{key}" for key in scope.nodes}
    folders |= {f"{area}/{key}" for area in _OUTPUTS for key in scope.records}
    folders |= {f"synthetic/{key}" for key in scope.synthetic}
    for (area, key), digests in scope.items.items():
        if area == "predictions" or digests is None:
            folders.add(f"{area}/{key}" if area == "predictions" else f"{area}/{key}.zarr")
            continue
        yield from {f"{area}/{key}.zarr/zarr.json"} if remote.look(f"{store.url}/{area}/{key}.zarr/zarr.json") else ()
        folders |= {f"{area}/{key}.zarr/{digest}" for digest in digests}
    for folder in sorted(folders):
        yield from (f"{folder}/{name}" for name in remote.list_objects(f"{store.url}/{folder}"))
    yield from (path.relative_to(store.root).as_posix() for path in scope.projects | scope.weights)


def _everything(store: Store) -> list[str]:
    return [name for name in remote.list_objects(str(store.url)) if not name.startswith(_NOT_WRITTEN_ONCE)]


def _tables(store: Store) -> Iterator[str]:
    """Names of what `mend_tables` looks at."""
    yield from _TABLES & remote.list_names(str(store.url))
    for area in ("nodes", "projects"):
        yield from (f"{area}/{name}" for name in remote.list_objects(f"{store.url}/{area}"))


def _items_of(store: Store, key: str) -> Iterator[str]:
    """Names of all objects of a spec key's items."""
    for folder in (f"frames/{key}.zarr", f"embeddings/{key}.zarr", f"predictions/{key}"):
        yield from (f"{folder}/{name}" for name in remote.list_objects(f"{store.url}/{folder}"))


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
