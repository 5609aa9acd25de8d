"""What lies in a store and is reached from nowhere, and its removal.

Only what is named as ours (keys, digests, unfinished work) in the store's own folders is ever listed. Links are
not followed: one in the store is left alone, and a folder of the store that is a link is not looked into.
"""

from __future__ import annotations

import os
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from reelwright.storage.checking import is_key
from reelwright.storage.files import remove
from reelwright.storage.items import ItemLedger
from reelwright.storage.known import KnownFiles
from reelwright.storage.reserved import PARTIAL, TEMPORARY
from reelwright.storage.store import Store

_GROUPS = ("frames", "embeddings")
_KEYED = ("synthetic", "predictions", "runs", "steps", "reports", "nodes", "jobs", "logs", "claims")


@dataclass
class Roots:
    """What is reached."""

    keys: set[str] = field(default_factory=set)  # keys and spec keys
    items: dict[str, set[str]] = field(default_factory=dict)  # spec key -> digests of videos; not named: all
    weights: set[Path] = field(default_factory=set)
    weight_digests: set[str] = field(default_factory=set)
    projects: tuple[str, ...] = ()  # of other pipeline files


@dataclass(frozen=True, kw_only=True)
class Garbage:
    """One thing that nothing reaches."""

    path: Path
    kind: str  # the store's folder it lies in, or leftovers
    num_bytes: int
    changed: float  # seconds since the epoch, of its newest file
    ledger: tuple[str, str] | None = None  # spec key and digest of an item, to be taken from the ledger
    beside: tuple[Path, ...] = ()  # more files of the same thing


def find_garbage(store: Store, roots: Roots) -> Iterator[Garbage]:
    """Everything in the store's own folders that the roots do not reach."""
    for area in _GROUPS:
        for group in _real(store.root / area):
            key = group.name.removesuffix(".zarr")
            yield from _items_of_group(group, area, key, roots) if key in roots.keys else _unreached(group, area, key)
    for area in _KEYED:
        for folder in _real(store.root / area):
            if folder.name not in roots.keys:
                yield from _unreached(folder, area, folder.name)
            elif area == "predictions" and folder.name in roots.items:
                yield from _scores(folder, roots)
    yield from _weights(store, roots)
    yield from (_garbage(path, "leftovers") for path in _real(store.root / "scratch"))
    yield from (_garbage(path, "leftovers") for path in _real(store.root) if _is_leftover(path))


def _unreached(folder: Path, area: str, key: str) -> Iterator[Garbage]:
    """All of a key that no root has; what is not named like a key is not ours to remove."""
    if is_key(key) or _is_leftover(folder):
        yield _garbage(folder, area if is_key(key) else "leftovers")


def delete(store: Store, going: Iterable[Garbage]) -> None:
    """Remove garbage: marks first, then the data, which loses its name in one step before it goes."""
    ledgers: dict[str, set[str]] = defaultdict(set)
    listed = list(going)
    for garbage in listed:
        if garbage.ledger is not None:
            ledgers[garbage.ledger[0]].add(garbage.ledger[1])
    for key, digests in ledgers.items():
        if store.node(key).is_dir():
            ItemLedger(store.node(key)).drop(digests)
    # Records and ledgers first: what is half removed must not look finished.
    for garbage in sorted(listed, key=lambda garbage: garbage.kind != "nodes"):
        for path in (garbage.path, *garbage.beside):
            aside = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex[:12]}-gone")
            os.replace(path, aside)  # noqa: PTH105 - named as the system call it is
            remove(aside)


def _items_of_group(group: Path, area: str, key: str, roots: Roots) -> Iterator[Garbage]:
    """Videos that are gone from the manifests; unfinished ones that are wanted stay, work goes on from them."""
    wanted = roots.items.get(key)
    if wanted is None:
        return
    for path in _real(group):
        digest = path.name.removeprefix(PARTIAL).partition("-")[0]
        if _is_leftover(path) and digest not in wanted:
            yield _garbage(path, "leftovers")
        elif is_key(path.name) and digest not in wanted:
            yield _garbage(path, area, ledger=(key, digest))


def _scores(folder: Path, roots: Roots) -> Iterator[Garbage]:
    files: dict[str, list[Path]] = defaultdict(list)
    for path in _real(folder):
        digest = path.name.partition(".")[0]
        if _is_leftover(path):
            yield _garbage(path, "leftovers")
        elif is_key(digest) and digest not in roots.items[folder.name]:
            files[digest].append(path)
    for digest, (first, *rest) in files.items():
        yield _garbage(first, "predictions", ledger=(folder.name, digest), beside=tuple(rest))


def _weights(store: Store, roots: Roots) -> Iterator[Garbage]:
    """Fetched weights that no node names; those whose content was never noted stay while there are other projects."""
    known = KnownFiles(store.files)
    for path in _real(store.root / "weights"):
        entry = known.entries.get(str(path))
        is_used = path in roots.weights or (
            bool(roots.projects) and (entry is None or entry[2] in roots.weight_digests)
        )
        if _is_leftover(path):
            yield _garbage(path, "leftovers")
        elif path.suffix == ".safetensors" and not is_used:
            yield _garbage(path, "weights")


def _garbage(path: Path, kind: str, *, ledger: tuple[str, str] | None = None, beside: tuple[Path, ...] = ()) -> Garbage:
    found = [entry for part in (path, *beside) for entry in sizes(part)]
    return Garbage(
        path=path,
        kind=kind,
        num_bytes=sum(size for size, _ in found),
        changed=max(changed for _, changed in found),
        ledger=ledger,
        beside=beside,
    )


def sizes(path: Path) -> Iterator[tuple[int, float]]:
    """(bytes, time of change) of a file or of everything below a folder, the folders too; links are not followed."""
    status = path.lstat()
    is_folder = path.is_dir() and not path.is_symlink()
    yield (0 if is_folder else status.st_size), status.st_mtime
    for entry in os.scandir(path) if is_folder else ():
        yield from sizes(Path(entry.path))


def _real(folder: Path) -> list[Path]:
    """What lies in a folder, without links; nothing where the folder is one itself."""
    if folder.is_symlink() or not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not path.is_symlink())


def _is_leftover(path: Path) -> bool:
    return path.name.startswith((TEMPORARY, PARTIAL))
