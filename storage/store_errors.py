"""Stores that cannot be used (full, read-only, gone) and damaged files in them: what the system says, what to do."""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

from reelwright.storage.errors import UnusableStoreError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_READ_ONLY = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ESTALE, errno.EIO, errno.ENOTCONN, errno.ENODEV})
_LITTLE_BYTES = 1 << 20  # less is full: what failed to be written was larger


@contextlib.contextmanager
def usable(root: Path) -> Iterator[None]:
    """Turn an OSError of the block that is due to the store at ``root`` as a whole into UnusableStoreError."""
    try:
        yield
    except OSError as error:
        message = why_unusable(error, root)
        if message is None:
            raise
        raise UnusableStoreError(message) from error


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    """Let an OSError of the block say which file it is about: the system does not when a disk is full.

    A name of unfinished work beside ``path`` gives way to that of ``path``.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None or Path(str(error.filename)).name.endswith(f"-{path.name}"):
            error.filename = str(path)
        raise


@contextlib.contextmanager
def best_effort() -> Iterator[None]:
    """Let go an OSError of the block that says that the store as a whole cannot be used: the work says so itself.

    For what is nice to have beside the work, such as notes of how far it is.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL | _READ_ONLY | _GONE:
            raise


def check_there(marker: Path) -> None:
    """Raise UnusableStoreError when a file is gone that was there when work began, and with it the store."""
    if not marker.exists():
        raise UnusableStoreError(f"{marker} is gone: the store was removed while this ran. {_ANEW}")


def why_unusable(error: OSError, root: Path) -> str | None:
    """What to tell of a system error; None when it says nothing about the store at ``root`` as a whole."""
    path = Path(str(error.filename)) if error.filename is not None else root
    what = f"{path} cannot be written: {error.strerror or error}"
    if error.errno in _FULL:
        return f"{what}. {room(path)}. {_MORE_ROOM}"
    if error.errno == errno.EFBIG:
        return f"{what}: files of this size are not allowed here (`ulimit -f`). Allow them, then run again"
    is_inside = path.is_relative_to(root)
    if error.errno in _READ_ONLY and is_inside:
        return (
            f"{what}. What is up to date can be read; to do more, make {root} writable or name another store (store:)"
        )
    if error.errno in _GONE and is_inside and not root.is_dir():
        return f"{path}: {error.strerror}: the store {root} is gone. {_ANEW}"
    return None


def why_broken(error: OSError) -> str | None:
    """What to say of a system error that no video can be blamed for, and what to do; None for all others.

    Such are a disk that is full or read-only, a file system whose server is away, and too many open files. An I/O error
    may be a bad sector of one file: whoever knows the file decides.
    """
    if type(error).__module__ != "builtins":  # PyAV's derive from OSError too, with numbers of FFmpeg's
        return None
    advice = _ADVICE.get(error.errno or 0)
    if advice is None:
        return None
    if error.filename is None:
        return f"{error.strerror or error}. {advice}"
    place = f" ({room(Path(str(error.filename)))})" if error.errno in _FULL else ""
    return f"{error.filename}: {error.strerror}{place}. {advice}"


def room(path: Path) -> str:
    """How much is free where ``path`` lies."""
    there = next((parent for parent in (path, *path.parents) if parent.exists()), Path("/"))
    usage = shutil.disk_usage(there)
    return f"{usage.free / 1e6:,.1f} MB of {usage.total / 1e6:,.1f} MB are free there"


def is_full(root: Path) -> bool:
    """Whether next to nothing is free on the disk of the store."""
    try:
        return shutil.disk_usage(root).free < _LITTLE_BYTES
    except OSError:
        return False


_MORE_ROOM = (
    "Make room (`reelwright gc` lists what nothing needs) or name a store on a larger disk (store:), then run again: "
    "what was done is kept, and work goes on from there"
)
_ANEW = "Mount it again if it was unmounted; else run again, which starts anew"
_ADVICE = {
    **dict.fromkeys(_FULL, "Make room, then run again: what was done is kept"),
    **dict.fromkeys(
        (
            errno.ENOTCONN, errno.ESTALE, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH,
            errno.ETIMEDOUT, errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED,
        ),
        "The disk or server does not answer: see that it does (mount it again), then run again",
    ),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "Raise the limit (`ulimit -n`) or use fewer workers, then run again"),
    errno.EFBIG: "Files of this size are not allowed here (`ulimit -f`): allow them, then run again",
    errno.EROFS: "Make the file system writable, then run again",
}  # fmt: skip
