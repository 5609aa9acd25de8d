"""Local copies of objects that are read: videos, manifests and label tables, each fetched once.

    <cache>/files/<digest of URL and version>/<name>      used last when it was touched last

A copy is used as long as the object has the version it had; where the server tells none, by the process that fetched
it alone. When all copies together exceed the budget, those that were used longest ago go. One that any process of this
machine has open stays, however long it is read, and so does one that was asked for within the last minutes. Where the
system cannot say who has it open, a day takes the place of minutes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from reelwright.storage.backend import Found
from reelwright.storage.bucket import remote
from reelwright.storage.constants import TEMPORARY
from reelwright.storage.digests import digest
from reelwright.storage.errors import ConfigError, InputError
from reelwright.storage.lock_holder import machine, own_start
from reelwright.storage.store import cache_folder, is_url, url_name

BUDGET_VARIABLE = "REELWRIGHT_CACHE_GB"
BUDGET_GB = 50.0
IN_USE_SECONDS = 600.0  # after it was asked for last
_TRIES = 5  # when the object changes while it is fetched
UNKNOWN_SECONDS = 86_400.0  # the same, where the system cannot say whether it is open


def local_file(place: str | Path) -> Path:
    """A path as it is; of a URL the path of a local copy of what the object is now.

    Raises InputError when there is no such object, ConfigError and UnusableStoreError as storage/bucket/remote.py does.
    """
    if not is_url(place):
        return Path(place)
    url = str(place)
    for _ in range(_TRIES):
        found = remote.look(url)
        if found is None:
            raise InputError(f"{url}: no such object")
        folder = cache_folder() / "files" / digest({"url": url, "size": found.size, "version": _version(found)})
        path = folder / url_name(url)
        try:
            os.utime(path)
        except FileNotFoundError:
            _make_room(found.size)
            if not _fetch(url, path, found):
                continue
        return path
    raise InputError(f"{url} changed each time while it was fetched. Run again when nothing writes to it any more")


def exists(place: str) -> bool:
    """Whether there is such a file or object."""
    return remote.look(place) is not None if is_url(place) else Path(place).exists()


def stamps(urls: Sequence[str]) -> dict[str, tuple[int, int, int] | None]:
    """Size, 0 and the version's number of objects; None for those that are not there."""
    found = remote.look_at(urls)
    return {
        url: None if entry is None else (entry.size, 0, remote.version_number(_version(entry)))
        for url, entry in found.items()
    }


def _version(found: Found) -> str:
    """The version of an object; where the server tells none, it is another one for each process, so read again."""
    return found.version or f"as process {machine()} {os.getpid()} {own_start()} found it"


def _fetch(url: str, path: Path, found: Found) -> bool:
    """Make a local copy of an object; whether it was the one that was ``found`` to the end."""
    temporary = path.parent.with_name(f"{TEMPORARY}{uuid.uuid4().hex[:12]}")
    try:
        try:
            remote.download({url: temporary / path.name})
        except FileNotFoundError:
            raise InputError(f"{url}: no such object") from None
        now = remote.look(url)
        if now is None or (now.size, now.version) != (found.size, found.version):
            return False
        try:
            temporary.rename(path.parent)
        except OSError as error:
            if error.errno not in {errno.EEXIST, errno.ENOTEMPTY} or not path.is_file():
                raise
            # another process has fetched it meanwhile
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return True


def _make_room(num_bytes: int) -> None:
    """Remove the copies used longest ago until ``num_bytes`` more are within the budget; and what was cut off."""
    folder = cache_folder() / "files"
    copies = sorted((_used(entry), entry) for entry in folder.iterdir()) if folder.is_dir() else []
    total, now = num_bytes + sum(size for (_, size), _ in copies), time.time()
    for (used, size), entry in copies:
        is_left = entry.name.startswith(TEMPORARY)
        if now - used > IN_USE_SECONDS and (is_left or total > _budget_bytes()) and not _is_open(entry, now - used):
            shutil.rmtree(entry, ignore_errors=True)  # what stays, since it is another user's, is counted on
            total -= 0 if entry.exists() else size


def _is_open(entry: Path, idle_seconds: float) -> bool:
    """Whether a process has a file of a copy open; such a copy counts as asked for now, since it may be opened again.

    The system grants a lease for writing on a file only where nobody else has it open.
    """
    is_open = False
    for file in _files_in(entry):
        try:
            handle = os.open(file, os.O_RDONLY)
        except FileNotFoundError:
            continue
        try:
            fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        except (OSError, AttributeError) as error:
            is_known = isinstance(error, OSError) and error.errno in {errno.EAGAIN, errno.EWOULDBLOCK}
            if is_known:
                os.utime(file)
            is_open = is_open or is_known or idle_seconds < UNKNOWN_SECONDS
        finally:
            os.close(handle)
    return is_open


def _files_in(entry: Path) -> list[Path]:
    try:
        return sorted(entry.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _used(entry: Path) -> tuple[float, int]:
    """When a copy was used last, and its bytes."""
    files = []
    with contextlib.suppress(FileNotFoundError):
        files = [file.stat() for file in _files_in(entry)]
    return max((file.st_mtime for file in files), default=time.time()), sum(file.st_size for file in files)


def _budget_bytes() -> float:
    written = os.environ.get(BUDGET_VARIABLE) or str(BUDGET_GB)
    try:
        return float(written) * 1e9
    except ValueError:
        raise ConfigError(f"{BUDGET_VARIABLE}={written}: give gigabytes, such as 50") from None
