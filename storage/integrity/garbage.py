"""What lies in a store and is reached from nowhere, and its removal.

Only what is named as ours (keys, digests, unfinished work) in the store's own folders is ever listed. Links are
not followed: one in the store is left alone, and a folder of the store that is a link is not looked into. Where the
store lies, in a folder or in a bucket, only its `Backend` knows.
"""

from __future__ import annotations

import contextlib
import functools
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from reelwright.storage.backend import UNFINISHED, Backend
from reelwright.storage.constants import INCOMING, LOGGERS, PARTIAL
from reelwright.storage.integrity.check import is_key
from reelwright.storage.kinds import GROUPED, RECORDED, WITH_ITEMS
from reelwright.storage.ledger.digest_cache import KnownFiles
from reelwright.storage.ledger.items import ItemLedger
from reelwright.storage.lock_holder import started
from reelwright.storage.locks.locks import exclusive
from reelwright.storage.store import Store

_KEYED = (*RECORDED, "nodes", "jobs", "logs", "claims", LOGGERS)
_LEFTOVERS = "leftovers"
_DEPTH = 3  # area, group, item: nothing below is asked for by name


@dataclass
class Roots:
    """What is reached."""

    keys: set[str] = field(default_factory=set)  # keys and spec keys
    items: dict[str, set[str]] = field(default_factory=dict)  # spec key -> digests of videos; not named: all
    weights: set[Path] = field(default_factory=set)
    weight_digests: set[str] = field(default_factory=set)
    projects: tuple[str, ...] = ()  # of other pipeline files
    videos: set[str] | None = None  # digests of all videos; None: not known, as of other pipeline files
    in_use: frozenset[str] = frozenset()  # keys, and names of files of weights, that processes work with now

    def is_being_written(self, path: Path) -> bool:
        """Whether what is not whole yet is being written: it is named after what it will be part of."""
        return any(name in path.name for name in self.in_use)


@dataclass(frozen=True, kw_only=True)
class Garbage:
    """One thing that nothing reaches."""

    path: Path
    kind: str  # the store's folder it lies in, or leftovers
    num_bytes: int
    changed: float  # seconds since the epoch, of its newest file
    group: str = ""  # spec key of items that stay, among which it lies
    ledger: tuple[str, str] | None = None  # spec key and digest of an item, to be taken from the ledger
    beside: tuple[Path, ...] = ()  # more files of the same thing

    @property
    def paths(self) -> tuple[Path, ...]:
        """All that goes."""
        return (self.path, *self.beside)

    @property
    def key(self) -> str:
        """Whose lock keeps others from working on it; empty where there is none, as of weights."""
        name = self.group or self.path.name.removesuffix(".zarr")
        return name if is_key(name) else ""


class Listing:
    """What lies in a store when it is first asked: names and sums by folder, since there are ten files an item.

    Of a bucket one listing tells sizes and, by its clock, times of change; no object is read. Links are not followed.
    """

    def __init__(self, backend: Backend, root: Path) -> None:
        self.is_resumed = backend.renames  # a bucket gets items when they are whole: one that is not is of the dead
        self._backend, self._root = backend, root

    def inside(self, folder: Path) -> list[Path]:
        """What lies right in a folder, sorted."""
        return [folder / name for name in sorted(self._listed[0].get(self._place(folder), ()))]

    def size(self, path: Path) -> tuple[int, float]:
        """Bytes of a file, or of all below a folder, and seconds since the epoch of the last change."""
        return self._listed[1].get(self._place(path), (0, 0.0))

    def is_finished(self, item: Path) -> bool:
        """Whether what lies in a group is not the beginning of an item; True for what is no item at all."""
        inside = self._listed[0].get(self._place(item))
        is_named = not item.name.startswith(UNFINISHED)
        return is_named and (self.is_resumed or not is_key(item.name) or inside is None or "zarr.json" in inside)

    def _place(self, path: Path) -> str:
        place = path.relative_to(self._root).as_posix()
        return "" if place == "." else place

    @functools.cached_property
    def _listed(self) -> tuple[dict[str, set[str]], dict[str, tuple[int, float]]]:
        names: dict[str, set[str]] = defaultdict(set)
        sums: dict[str, tuple[int, float]] = {}
        for name, found in self._backend.entries(self._root):
            parts = name.split("/")
            for depth in range(min(len(parts), _DEPTH) + 1):
                place = "/".join(parts[:depth])
                size, changed = sums.get(place, (0, 0.0))
                sums[place] = (size + found.size, max(changed, found.changed))
                if depth < len(parts):
                    names[place].add(parts[depth])
        return names, sums


def find_garbage(store: Store, roots: Roots, listing: Listing | None = None) -> Iterator[Garbage]:
    """Everything in the store's own folders that the roots do not reach; ``listing`` is that of the store if not given.

    Of a store in a bucket, the listing of this machine's copy finds what the copy has.
    """
    found = _Finder(store, roots, listing or Listing(store.backend, store.root))
    for area in GROUPED:
        yield from found.groups(area)
    for area in _KEYED:
        yield from found.keyed(area)
    yield from found.weights()
    yield from found.frame_indexes()
    yield from found.leftovers()


def delete(store: Store, going: Iterable[Garbage]) -> list[Garbage]:
    """Remove garbage: records and ledgers first, so that what is half removed never looks finished.

    The locks of all its keys are held meanwhile. What somebody had the lock of is not garbage any more, and stays.
    Returns what went. Raises LostLockError where a lock was lost meanwhile.
    """
    backend, listed = store.backend, list(going)
    with contextlib.ExitStack() as stack:
        were_held = {
            key
            for key in sorted({garbage.key for garbage in listed} - {""})
            if stack.enter_context(exclusive(store.lock(key), report=_say_nothing, what="gc", is_kept=False))
        }
        backend.forget()
        gone = [garbage for garbage in listed if garbage.key not in were_held]
        free = [garbage for garbage in gone if not garbage.group]
        for is_record in (True, False):
            some = [garbage for garbage in free if (garbage.kind == "nodes") == is_record]
            backend.delete_trees([path for garbage in some for path in garbage.paths])
        groups: dict[str, list[Garbage]] = defaultdict(list)
        for garbage in gone:
            groups[garbage.group].append(garbage)
        groups.pop("", None)
        for key, members in groups.items():
            _forget_items(store, key, {garbage.ledger[1] for garbage in members if garbage.ledger is not None})
            still = [garbage for garbage in members if garbage.ledger is not None or not _has_come(store, garbage.path)]
            backend.delete_trees([path for garbage in still for path in garbage.paths])
        return gone


def _say_nothing(_: str) -> None:
    """Locks are held for seconds only, or by who keeps what the lock is of."""


def _has_come(store: Store, item: Path) -> bool:
    """Whether an item that was listed as unfinished is finished by now; where it is renamed it has another name."""
    return not store.backend.renames and store.backend.has(item / "zarr.json")


def _forget_items(store: Store, key: str, digests: set[str]) -> None:
    store.backend.pull(store.node(key))
    if digests and store.node(key).is_dir():
        ItemLedger(store.node(key)).drop(digests)


@dataclass(frozen=True)
class _Finder:
    """Looks through a listing for what the roots do not reach."""

    store: Store
    roots: Roots
    listing: Listing

    def groups(self, area: str) -> Iterator[Garbage]:
        """Frames or embeddings: whole groups, and items of those that stay."""
        for group in self.listing.inside(self.store.root / area):
            key = group.name.removesuffix(".zarr")
            yield from self._items(group, area, key) if key in self.roots.keys else self._unreached(group, area, key)

    def keyed(self, area: str) -> Iterator[Garbage]:
        """What lies in a folder for each key."""
        for folder in self.listing.inside(self.store.root / area):
            if folder.name not in self.roots.keys:
                yield from self._unreached(folder, area, folder.name)
            elif area in WITH_ITEMS and folder.name in self.roots.items:
                yield from self._scores(folder, area)

    def weights(self) -> Iterator[Garbage]:
        """Fetched weights that no node names; those whose content was never noted stay if there are other projects."""
        known = KnownFiles(self.store.files)
        for path in self.listing.inside(self.store.root / "weights"):
            entry = known.entries.get(str(path))
            is_used = path in self.roots.weights or (
                bool(self.roots.projects) and (entry is None or entry[2] in self.roots.weight_digests)
            )
            if _is_leftover(path):
                yield from self._left_behind(path)
            elif path.suffix == ".safetensors" and not is_used:
                yield self._garbage(path, "weights")

    def frame_indexes(self) -> Iterator[Garbage]:
        """What was read of frames' times in videos that are in no manifest any more."""
        if self.roots.videos is None:
            return
        for folder in self.listing.inside(self.store.frame_index):
            for path in self.listing.inside(folder):
                if is_key(path.stem) and path.suffix == ".npz" and path.stem not in self.roots.videos:
                    yield self._garbage(path, self.store.frame_index.name)

    def leftovers(self) -> Iterator[Garbage]:
        """What belongs to no key; what does not even name one stays while anybody works in the store."""
        for path in self.listing.inside(self.store.root / "scratch"):
            yield from self._left_behind(path)
        if not self.roots.in_use:
            at_top = [path for path in self.listing.inside(self.store.root) if _is_leftover(path)]
            incoming = self.listing.inside(self.store.root / INCOMING)
            for path in (*(path for path in incoming if not _is_at_work(path.name)), *at_top):
                yield self._garbage(path, _LEFTOVERS)

    def _unreached(self, folder: Path, area: str, key: str) -> Iterator[Garbage]:
        """All of a key that no root has; what is not named like a key is not ours to remove."""
        if is_key(key):
            yield self._garbage(folder, area)
        elif _is_leftover(folder):
            yield from self._left_behind(folder)

    def _left_behind(self, path: Path) -> Iterator[Garbage]:
        if not self.roots.is_being_written(path):
            yield self._garbage(path, _LEFTOVERS)

    def _items(self, group: Path, area: str, key: str) -> Iterator[Garbage]:
        """Videos gone from the manifests; unfinished ones that are wanted stay where work goes on from them."""
        wanted = self.roots.items.get(key)
        if wanted is None:
            return
        for path in self.listing.inside(group):
            digest, is_finished = path.name.removeprefix(PARTIAL).partition("-")[0], self.listing.is_finished(path)
            if digest in wanted and (is_finished or self.listing.is_resumed):
                continue
            if not is_finished:
                yield self._garbage(path, _LEFTOVERS, group=key)
            elif is_key(path.name):
                yield self._garbage(path, area, group=key, ledger=(key, digest))

    def _scores(self, folder: Path, area: str) -> Iterator[Garbage]:
        files: dict[str, list[Path]] = defaultdict(list)
        for path in self.listing.inside(folder):
            digest = path.name.partition(".")[0]
            if _is_leftover(path):
                yield self._garbage(path, _LEFTOVERS, group=folder.name)
            elif is_key(digest) and digest not in self.roots.items[folder.name]:
                files[digest].append(path)
        for digest, (first, *rest) in files.items():
            ledger = (folder.name, digest)
            yield self._garbage(first, area, group=folder.name, ledger=ledger, beside=tuple(rest))

    def _garbage(
        self,
        path: Path,
        kind: str,
        *,
        group: str = "",
        ledger: tuple[str, str] | None = None,
        beside: tuple[Path, ...] = (),
    ) -> Garbage:
        found = [self.listing.size(part) for part in (path, *beside)]
        return Garbage(
            path=path,
            kind=kind,
            num_bytes=sum(size for size, _ in found),
            changed=max(changed for _, changed in found),
            group=group,
            ledger=ledger,
            beside=beside,
        )


def _is_leftover(path: Path) -> bool:
    return path.name.startswith(UNFINISHED)


def _is_at_work(incoming: str) -> bool:
    """Whether what is being brought is of a process of this machine that runs: PROCESS-START-NUMBER."""
    process, _, rest = incoming.partition("-")
    return process.isdigit() and started(int(process)) == rest.rpartition("-")[0]
