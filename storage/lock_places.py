"""Where locks lie: a folder with files, or a bucket with objects, behind the few verbs that storage/locks.py needs.

Where the store can (S3), signs of life in a bucket are written on condition that the object is as it was seen last, and
so is the last word of who passes a silent holder over: of a holder that wakes up and one that takes over at that moment
only one goes on. `status` tells when a holder was heard of last: by the time of its file, in a bucket by its own clock.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from reelwright.storage import remote
from reelwright.storage.backend import Found
from reelwright.storage.errors import ConfigError, UnusableStoreError
from reelwright.storage.files import write_json
from reelwright.storage.owners import Owner
from reelwright.storage.store import backend_of
from reelwright.storage.unusable import named

HELD, FREE = ".json", ".free"


class Place(Protocol):
    """A lock's folder, or the folder of all locks. Names are relative to it; `Found.version` is a sign of life."""

    base: str  # path or URL
    look_seconds: float  # between two looks at a lock that is held

    @property
    def is_gone(self) -> bool:
        """Whether even the folder of a lock that was taken is not there any more."""

    def list(self) -> dict[str, Found]:
        """What lies here, at any depth; empty where there is nothing."""

    def read(self, names: Sequence[str]) -> dict[str, bytes]:
        """Contents; those that are not there are left out."""

    def create(self, name: str, owner: Owner) -> bool:
        """Write what is not there yet; whether this call made it. Of several processes only one does."""

    def write(self, name: str, owner: Owner) -> None:
        """Write it whether or not it is there."""

    def touch(self, name: str, owner: Owner, version: str | None = None) -> str | None:
        """Give a sign of life, given a version only where it is this one; the new version, None where it is not so."""

    def pass_over(self, name: str, version: str) -> bool:
        """Tell a silent holder that it lost the lock; not so where it gave a sign of life since ``version``."""

    def release(self, name: str, *, is_kept: bool) -> bool:
        """Let a lock go, and remember its number if ``is_kept``; whether it was still there."""

    def delete(self, names: Sequence[str]) -> None:
        """Remove; those that are not there are none the worse."""


def place_of(folder: Path) -> Place:
    """The place of a lock, or of all locks, of a store in a folder or in a bucket."""
    backend = backend_of(folder)
    return _Folder(folder) if backend.url is None else _Bucket(backend.name_of(folder))


class _Folder:
    """Signs of life are times of files."""

    look_seconds = 0.2

    def __init__(self, folder: Path) -> None:
        self.base = str(folder)
        self._folder = folder

    @property
    def is_gone(self) -> bool:
        return not self._folder.is_dir()

    def list(self) -> dict[str, Found]:
        return {path.relative_to(self._folder).as_posix(): _look(path) for path in _files_below(self._folder)}

    def read(self, names: Sequence[str]) -> dict[str, bytes]:
        found = {}
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                found[name] = (self._folder / name).read_bytes()
        return found

    def create(self, name: str, owner: Owner) -> bool:
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except (FileExistsError, FileNotFoundError):  # whoever had it took the folder away with it
            return False
        try:
            with named(path), os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(json.dumps(asdict(owner)) + "\n")
        except OSError:
            path.unlink(missing_ok=True)  # the disk is full; without a name in it others would wait for nobody
            raise
        return True

    def write(self, name: str, owner: Owner) -> None:
        write_json(self._folder / name, asdict(owner))

    def touch(self, name: str, owner: Owner, version: str | None = None) -> str | None:
        del owner, version
        try:
            os.utime(self._folder / name)
        except FileNotFoundError:
            return None
        return ""

    def pass_over(self, name: str, version: str) -> bool:
        del name, version
        return True

    def release(self, name: str, *, is_kept: bool) -> bool:
        path = self._folder / name
        try:
            path.rename(path.with_suffix(FREE))
        except FileNotFoundError:
            return False
        if not is_kept:
            try:
                for free in self._folder.glob(f"*{FREE}"):
                    free.unlink(missing_ok=True)
                self._folder.rmdir()
            except OSError as error:  # another process has taken the lock meanwhile
                if error.errno not in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT, errno.EBUSY}:
                    raise
        return True

    def delete(self, names: Sequence[str]) -> None:
        for name in names:
            (self._folder / name).unlink(missing_ok=True)


class _Bucket:
    """Signs of life are new versions of objects."""

    look_seconds = 1.0  # each look is a request

    def __init__(self, url: str) -> None:
        self.base = url
        self.is_gone = False
        self._count = 0

    def _url(self, name: str) -> str:
        return f"{self.base}/{name}"

    def _content(self, owner: Owner) -> bytes:
        """The count makes every version another one."""
        self._count += 1
        return (json.dumps({**asdict(owner), "beat": self._count, "at": time.time()}) + "\n").encode()

    def list(self) -> dict[str, Found]:
        return remote.list_objects(self.base)

    def read(self, names: Sequence[str]) -> dict[str, bytes]:
        found = remote.read_objects([self._url(name) for name in names])
        return {url.removeprefix(f"{self.base}/"): content for url, content in found.items()}

    def create(self, name: str, owner: Owner) -> bool:
        content = self._content(owner)  # where an answer was lost, the second try finds what the first one made
        return remote.create_object(self._url(name), content) or remote.read_object(self._url(name)) == content

    def write(self, name: str, owner: Owner) -> None:
        remote.write_object(self._url(name), self._content(owner))

    def touch(self, name: str, owner: Owner, version: str | None = None) -> str | None:
        if version is not None:
            return remote.rewrite_object(self._url(name), self._content(owner), version=version)
        self.write(name, owner)
        return ""

    def pass_over(self, name: str, version: str) -> bool:
        return remote.rewrite_object(self._url(name), b"{}\n", version=version) is not None

    def release(self, name: str, *, is_kept: bool) -> bool:
        """What cannot be let go, since nobody answers, is passed over by others when it has been silent long enough."""
        with contextlib.suppress(UnusableStoreError, ConfigError):
            if is_kept:
                remote.write_object(self._url(name.removesuffix(HELD) + FREE), b"")
            self.delete([name])
        return True

    def delete(self, names: Sequence[str]) -> None:
        remote.remove_objects([self._url(name) for name in names])


def _files_below(folder: Path) -> Iterator[Path]:
    try:
        entries = sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):  # let go meanwhile
        return
    for path in entries:
        if path.is_dir():
            yield from _files_below(path)
        else:
            yield path


def _look(path: Path) -> Found:
    """What changes with every sign of life. The file is opened, which makes network file systems look again."""
    if path.suffix != HELD:
        return Found(0, "", 0.0)
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
    except FileNotFoundError:
        return Found(0, "", 0.0)
    return Found(status.st_size, str(status.st_mtime_ns), status.st_mtime)


def parsed(content: bytes) -> Mapping[str, Any]:
    """What stands in a lock or note; empty while it is just being written, or when it is damaged."""
    try:
        values = json.loads(content)
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}
