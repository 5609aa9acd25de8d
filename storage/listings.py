"""What lies in a store, folder by folder, and how it goes: of a store in a folder, and of one in a bucket.

`garbage.py` asks for no more than this. Paths are those of `Store` in both; what is listed of a bucket need not be in
this machine's working copy. A bucket is listed once, with sizes and times of change by its clock; no object is read.
"""

from __future__ import annotations

import functools
import os
import stat
import uuid
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar, Protocol

from reelwright.storage import remote
from reelwright.storage.checking import is_key
from reelwright.storage.files import remove
from reelwright.storage.heartbeat import check_held
from reelwright.storage.mirror import LAST, Mirror, forget_seen, mirror_of
from reelwright.storage.reserved import PARTIAL, TEMPORARY

_DEPTH = 3  # area, group, item: nothing below is asked for by name
_LISTED_AT_ONCE = 16
Sizes = Iterator[tuple[int, float]]  # (bytes, seconds since the epoch of the last change)


class Listing(Protocol):
    """What lies in a store."""

    is_resumed: ClassVar[bool]  # whether the next run goes on from an item that was not finished

    def inside(self, folder: Path) -> list[Path]:
        """What lies right in a folder, sorted, without links."""

    def sizes(self, path: Path) -> Sizes:
        """Parts of a file, or of a folder with all below it: their sum is its size, the last change is its own."""

    def is_finished(self, item: Path) -> bool:
        """Whether what lies in a group is not the beginning of an item; True for what is no item at all."""

    def has_come(self, item: Path) -> bool:
        """Whether an item that was listed as unfinished is finished by now."""

    def remove(self, paths: Sequence[Path]) -> None:
        """Take them out of the store; what makes them complete goes first, for all of them."""


def listing_of(root: Path) -> Listing:
    """That of the store with the root ``root``."""
    mirror = mirror_of(root)
    return FolderListing() if mirror is None else BucketListing(mirror)


class FolderListing:
    """What lies in a folder, or in this machine's copy of a bucket. Links are not followed."""

    is_resumed: ClassVar[bool] = True

    def inside(self, folder: Path) -> list[Path]:
        """As `Listing.inside`; nothing where the folder is a link itself."""
        if folder.is_symlink() or not folder.is_dir():
            return []
        try:
            names = os.listdir(folder)  # noqa: PTH208 - names only
        except FileNotFoundError:  # removed meanwhile
            return []
        return sorted(path for path in (folder / name for name in names) if not path.is_symlink())

    def sizes(self, path: Path) -> Sizes:
        """As `Listing.sizes`; folders have changed too. What goes meanwhile, by another process, counts nothing."""
        try:
            status = path.lstat()
            is_folder = stat.S_ISDIR(status.st_mode)
            entries = os.listdir(path) if is_folder else []  # noqa: PTH208 - names only
        except FileNotFoundError:
            return
        yield (0 if is_folder else status.st_size), status.st_mtime
        for name in entries:
            yield from self.sizes(path / name)

    def is_finished(self, item: Path) -> bool:
        """As `Listing.is_finished`: it has got its name."""
        return not item.name.startswith((TEMPORARY, PARTIAL))

    def has_come(self, item: Path) -> bool:
        """Never: it would have another name."""
        del item
        return False

    def remove(self, paths: Sequence[Path]) -> None:
        """As `Listing.remove`: each loses its name in one step before it goes."""
        for path in paths:
            check_held(path)
            aside = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex[:12]}-gone")
            try:
                os.replace(path, aside)  # noqa: PTH105 - named as the system call it is
            except FileNotFoundError:
                continue  # another process has removed it
            remove(aside)


class BucketListing:
    """What lies in a bucket. It is listed when it is first asked; only `has_come` and `remove` look again."""

    is_resumed: ClassVar[bool] = False  # items are sent when finished: a machine that died left what is there of others

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror

    def inside(self, folder: Path) -> list[Path]:
        """As `Listing.inside`."""
        return [folder / name for name in sorted(self._listed.names.get(self._place(folder), ()))]

    def sizes(self, path: Path) -> Sizes:
        """As `Listing.sizes`."""
        yield self._listed.sums.get(self._place(path), (0, 0.0))

    def is_finished(self, item: Path) -> bool:
        """As `Listing.is_finished`: its own zarr.json, which is sent last, is there."""
        place = self._place(item)
        is_item = is_key(item.name) and place in self._listed.names
        return not is_item or "zarr.json" in self._listed.names[place]

    def has_come(self, item: Path) -> bool:
        """As `Listing.has_come`."""
        return remote.look(f"{self._mirror.url_of(item)}/zarr.json") is not None

    def remove(self, paths: Sequence[Path]) -> None:
        """As `Listing.remove`; this machine's copies go too."""
        with ThreadPoolExecutor(_LISTED_AT_ONCE) as pool:
            urls = [url for found in pool.map(_objects, map(self._mirror.url_of, paths)) for url in found]
        first = [url for url in urls if self._completes(url)]
        for path in paths:
            check_held(path)
        remote.remove_objects(first)
        remote.remove_objects(sorted(set(urls).difference(first)))
        for path in paths:
            forget_seen(self._mirror, path)
        FolderListing().remove([path for path in paths if path.exists()])

    def _completes(self, url: str) -> bool:
        """Whether an item, run or node is complete by this object; arrays have a zarr.json too, but lie deeper."""
        *folders, name = url.removeprefix(f"{self._mirror.url}/").split("/")
        return name in LAST and len(folders) <= _DEPTH

    def _place(self, path: Path) -> str:
        place = path.relative_to(self._mirror.root).as_posix()
        return "" if place == "." else place

    @functools.cached_property
    def _listed(self) -> _Listed:
        return _Listed(remote.list_objects(self._mirror.url))


class _Listed:
    """Names and sums by folder: of a million items there are ten million objects."""

    def __init__(self, objects: dict[str, remote.Found]) -> None:
        self.names: dict[str, set[str]] = defaultdict(set)  # folder -> what lies right in it
        self.sums: dict[str, tuple[int, float]] = {}  # file or folder -> bytes and newest change
        for name, found in objects.items():
            parts = name.split("/")
            for depth in range(min(len(parts), _DEPTH) + 1):
                place = "/".join(parts[:depth])
                size, changed = self.sums.get(place, (0, 0.0))
                self.sums[place] = (size + found.size, max(changed, found.changed))
                if depth < len(parts):
                    self.names[place].add(parts[depth])


def _objects(url: str) -> list[str]:
    """All objects below a URL; the URL itself where it is one."""
    return [f"{url}/{name}" for name in remote.list_objects(url)] or [url]
