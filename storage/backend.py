"""What a store is kept in, behind a few verbs: a folder here, a bucket in storage/bucket/working_copy.py.

All of our code reads and writes local paths. Of a store in a folder they are what counts, so that there is little to do
here; of one in a bucket they are this machine's working copy, which is pulled before it is read, and pushed.

    pull, pull_file, ensure_local, ensure_items     before reading
    push, push_item, push_changed, free             after writing, what is complete last
    has, names, items, entries, read                looking
    create, write, touch, move                      marks and locks, which go straight to the store
    delete, delete_trees                            taking out
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from reelwright.storage.constants import PARTIAL, TEMPORARY
from reelwright.storage.heartbeat import check_held
from reelwright.storage.store_errors import named

UNFINISHED = (TEMPORARY, PARTIAL)
Skip = Callable[[str], bool]
_TRIES = 5  # to remove a folder in which another process removes or writes


class Found(NamedTuple):
    """A file or an object."""

    size: int  # bytes
    version: str  # another whenever its content is: the ETag where there is one
    changed: float  # seconds since the epoch, by the clock of the server


def nothing(_: str) -> bool:
    """Leave nothing out."""
    return False


def is_unfinished(file: Path, folder: Path) -> bool:
    """Whether a file below ``folder`` has not got its own name yet, or has lost it."""
    return any(part.startswith(UNFINISHED) for part in file.relative_to(folder).parts)


class Backend:
    """A store in a folder: what is written is there, and what is there counts."""

    url: str | None = None  # of a store in a bucket
    look_seconds = 0.2  # between two looks at a lock that is held
    renames = True  # an item gets its name when it is whole; what is not goes on from there. Else it is named at once

    def name_of(self, path: Path) -> str:
        """What a path of the store is called: in a bucket its URL."""
        return str(path)

    def pull(self, folder: Path, *, skip: Skip = nothing, anew: bool = False) -> None:
        """Make a folder here what it is in the bucket; ``skip``, a function of a module, says what is left out.

        Once a process and ``skip``, until `forget`; always with ``anew``.
        """

    def pull_file(self, path: Path) -> None:
        """Make a single file here what it is in the bucket, or remove it; always asks."""

    def forget(self) -> None:
        """Others may have written to the store: what was pulled counts no longer."""

    def ensure_local(self, *paths: Path) -> bool:
        """Whether files are in their store, and here as they are there; pulls those that are not. They seldom change.

        A file that only this machine has is not.
        """
        return all(path.is_file() for path in paths)

    def ensure_items(self, group: Path, names: Sequence[str]) -> set[str]:
        """Which of the items ``names`` of a group are complete in the store; pulls those that are not here as they are.

        Raises StoreError for one that is not as its list of files says.
        """
        return {name for name in names if (group / name / "zarr.json").exists()}

    def items(self, group: Path) -> list[str]:
        """Names of the items of a group that are complete, sorted."""
        if not group.is_dir():
            return []
        return sorted(
            entry.name for entry in group.iterdir() if not entry.name.startswith(".") and (entry / "zarr.json").exists()
        )

    def has(self, path: Path) -> bool:
        """Whether a file is in its store."""
        return path.is_file()

    def names(self, folder: Path) -> set[str]:
        """Names of what lies right in a folder."""
        return set(os.listdir(folder)) if folder.is_dir() else set()  # noqa: PTH208 - names only

    def entries(self, folder: Path, *, signs: str = "") -> Iterator[tuple[str, Found]]:
        """Files below a folder by their names in it, here folders too. Links in it are left out, and what goes.

        Files whose names end with ``signs`` are opened, which makes network file systems look again.
        """
        waiting = [(folder, "")]
        while waiting:
            place, base = waiting.pop()
            try:
                listed = list(os.scandir(place))
            except (FileNotFoundError, NotADirectoryError):
                continue
            for entry in listed:
                if entry.is_symlink():
                    continue
                try:
                    if signs and entry.name.endswith(signs):
                        with open(entry.path, "rb") as file:  # noqa: PTH123
                            is_folder, status = False, os.fstat(file.fileno())
                    else:
                        is_folder, status = entry.is_dir(follow_symlinks=False), entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                size, version = (0 if is_folder else status.st_size), str(status.st_mtime_ns)
                yield f"{base}{entry.name}", Found(size, version, status.st_mtime)
                if is_folder:
                    waiting.append((Path(entry.path), f"{base}{entry.name}/"))

    def read(self, paths: Iterable[Path]) -> dict[Path, bytes]:
        """Contents of small files; those that are not there are left out."""
        found = {}
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                found[path] = path.read_bytes()
        return found

    def create(self, path: Path, content: bytes = b"") -> bool:
        """Write what is not there yet; whether this call made it. Of several processes only one is told True."""
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except (FileExistsError, FileNotFoundError):  # whoever had it took the folder away with it
            return False
        try:
            with named(path), os.fdopen(handle, "wb") as file:
                file.write(content)
        except OSError:
            path.unlink(missing_ok=True)  # the disk is full; without a name in it others would wait for nobody
            raise
        return True

    def write(self, path: Path, content: bytes) -> None:
        """Write a small file whether or not it is there, in one step."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex[:12]}-{path.name}")
        try:
            with named(path):
                temporary.write_bytes(content)
                os.replace(temporary, path)  # noqa: PTH105 - the one atomic step, named as the system call it is
        finally:
            temporary.unlink(missing_ok=True)

    def touch(self, path: Path, content: bytes, version: str | None) -> str | None:  # noqa: ARG002 - of buckets
        """Give a file another version, where it still is there; in a bucket by other ``content``.

        Given a version only where it is this one; the new version, where it is known, and None where it is not so.
        """
        try:
            os.utime(path)
        except FileNotFoundError:
            return None
        return ""

    def move(self, path: Path, new: Path) -> bool:
        """Let a mark or lock have another name, in a bucket without content; whether it was still there."""
        try:
            path.rename(new)
        except FileNotFoundError:
            return False
        return True

    def push(self, path: Path, source: Path | None = None) -> None:
        """Send a file or folder as ``path``; from ``source`` where it has not got its name here yet.

        Sent before it gets its name: another process of this machine removes from its copy what the bucket lacks.
        """

    def push_item(self, path: Path, withdraw: Callable[[], None]) -> None:
        """Send a finished group: its own zarr.json, which makes it complete, last.

        ``withdraw`` is called before one takes the place of another, which then is not complete until it does.
        """

    def push_changed(self, folder: Path) -> None:
        """Send the files of a folder that the bucket lacks or has otherwise: those that were appended to."""

    def free(self, paths: Iterable[Path]) -> None:
        """Remove this machine's copies of files that were pushed."""

    def delete(self, paths: Iterable[Path]) -> None:
        """Remove files or marks; those that are not there are none the worse."""
        for path in paths:
            path.unlink(missing_ok=True)

    def delete_trees(self, paths: Sequence[Path]) -> None:
        """Remove files, and folders with all in them; what makes them complete goes first, for all of them.

        Each folder loses its name in one step before it goes. What is not there is none the worse.
        """
        for path in paths:
            check_held(path)
            aside = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex[:12]}-gone")
            try:
                if path.is_dir() and not path.is_symlink():
                    os.replace(path, aside)  # noqa: PTH105 - named as the system call it is
            except FileNotFoundError:
                continue  # another process has removed it
            remove_local(aside)
            remove_local(path)

    def check_readable(self) -> None:
        """Raise ConfigError where the bucket is not there or may not be read."""

    def check_writable(self) -> None:
        """Raise ConfigError where the bucket may not be written, or takes no exclusive writes, which locks need."""


def remove_local(path: Path) -> None:
    """Remove a file or a folder with all in it from this machine; nothing happens when it is not there."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    for left in reversed(range(_TRIES)):
        try:
            shutil.rmtree(path)
        except OSError as error:  # what another process removes or adds meanwhile is no trouble
            if error.errno not in {errno.ENOENT, errno.ENOTEMPTY} or not left:
                raise
        if not path.exists():
            return
