"""The locks of storage/locks.py where the store is a folder: each generation is a file that only one can create."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from reelwright.storage.errors import LostLockError, UnusableStoreError
from reelwright.storage.files import write_json
from reelwright.storage.heartbeat import Claim, alive, check_held
from reelwright.storage.owners import (
    STALE_SECONDS,
    Holding,
    Owner,
    check_readable,
    owner_from,
    taken_over,
    unknown_owner,
)
from reelwright.storage.unusable import named, told_by_work

_LOOK_SECONDS = 0.2  # between two looks at a lock that is held


@contextlib.contextmanager
def exclusive_in(
    folder: Path, *, root: Path, owner: Owner, tell: Callable[[str], None], stale_seconds: float, is_kept: bool
) -> Iterator[bool]:
    """`locks.exclusive` for the lock in ``folder`` of the store at ``root``: same meaning, same errors."""
    path, waited = _take(folder, owner, root=root, tell=tell, stale_seconds=stale_seconds)
    claim = Claim(
        beat=lambda: _give_sign(path),
        lost=lambda: _lost(path, stale_seconds=stale_seconds),
        stale_seconds=stale_seconds,
        root=root,
    )
    try:
        with alive(claim):
            yield waited
    except BaseException as error:
        is_lost = claim.is_lost or not folder.is_dir()
        with _noted_on(error):
            _let_go(path)
            if not is_lost:
                _tidy(folder, is_kept=is_kept)
        if is_lost and not isinstance(error, LostLockError):  # what was raised follows from it
            raise _lost(path, stale_seconds=stale_seconds) from error
        raise
    if claim.is_lost or not _let_go(path):
        raise _lost(path, stale_seconds=stale_seconds)
    _tidy(folder, is_kept=is_kept)


@contextlib.contextmanager
def using_in(path: Path, *, note_of: Callable[[], Owner | None]) -> Iterator[Callable[[], None]]:
    """Keep the file ``path`` as `note_of` says, alive, and take it away in the end; call what is yielded on news."""

    def write() -> None:
        owner = note_of()
        if owner is not None:
            write_json(path, asdict(owner))

    def beat() -> bool:
        if path.exists():
            os.utime(path)
        return True

    claim = Claim(beat=beat, lost=lambda: _lost(path, stale_seconds=STALE_SECONDS), stale_seconds=STALE_SECONDS)
    with alive(claim):
        try:
            yield write
        finally:
            with told_by_work():  # the note of a dead process says nothing
                path.unlink(missing_ok=True)


@contextlib.contextmanager
def _noted_on(error: BaseException) -> Iterator[None]:
    """An OSError of the block is added to ``error``, which is raised already."""
    try:
        yield
    except OSError as other:
        error.add_note(f"nor could the lock be let go: {other}")


def holdings_in(locks: Path, *, uses: str) -> tuple[list[Holding], list[Holding]]:
    """Locks below a folder that are held, and notes of what is used, those of the dead too."""
    folders = sorted(path for path in locks.iterdir() if path.name != uses) if locks.is_dir() else []
    newest = [path for folder in folders if (path := _newest_in(folder)) is not None and path.suffix == ".json"]
    noted = sorted((locks / uses).glob("*.json")) if (locks / uses).is_dir() else []
    held = [found for path in newest if (found := _holding(path, path.parent.name)) is not None]
    used = [found for path in noted if (found := _holding(path, "")) is not None]
    check_readable(used)
    return held, used


def _take(
    folder: Path, owner: Owner, *, root: Path, tell: Callable[[str], None], stale_seconds: float
) -> tuple[Path, bool]:
    """The file of our generation, and whether another process had the lock first."""
    waited, seen, since = False, (0, ""), time.monotonic()
    while True:
        check_held(root)  # others that are held may be lost while this one is waited for
        folder.mkdir(parents=True, exist_ok=True)
        try:
            newest = _newest(folder)
        except FileNotFoundError:  # whoever had it took the folder away with it
            continue
        if newest is None or newest.suffix != ".json" or _is_gone(newest):
            path = _claim(folder, newest, owner)
            if path is not None:
                return path, waited
            continue
        sign = _sign_of_life(newest)
        if sign != seen:
            seen, since = sign, time.monotonic()
        elif time.monotonic() - since > stale_seconds:
            path = _claim(folder, newest, owner)
            if path is not None:
                return path, True
        if not waited:
            waited = True
            tell(f"waits for {_read(newest) or 'another process'}, which works on the same")
        time.sleep(_LOOK_SECONDS)


def _claim(folder: Path, newest: Path | None, owner: Owner) -> Path | None:
    """Create the generation after ``newest``; None when another process was faster, or took the folder away."""
    number = 1 + (int(newest.stem) if newest is not None else 0)
    path = folder / f"{number:06d}.json"
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except (FileExistsError, FileNotFoundError):
        return None
    try:
        with named(path), os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(json.dumps(asdict(owner)) + "\n")
    except OSError:
        path.unlink(missing_ok=True)  # the disk is full; without a name in it others would wait for nobody
        raise
    generations = _generations(folder)
    is_late = any(other != path and number <= int(other.stem) for other in generations)
    if is_late or (newest is not None and newest not in generations):
        path.unlink(missing_ok=True)  # we looked long ago: others took this very number, let it go, cleared it away
        return None
    for older in generations:
        if older != path:
            older.unlink(missing_ok=True)
    return path


def _lost(path: Path, *, stale_seconds: float) -> UnusableStoreError:
    if not path.parent.is_dir():
        return LostLockError(
            f"{path} is gone: the store was removed while this ran. Mount it again if it was unmounted; else run "
            "again, which starts anew"
        )
    return LostLockError(taken_over(str(path), stale_seconds))


def _give_sign(path: Path) -> bool:
    """Touch a lock that is still ours; not so when a newer one is there, or its folder is gone."""
    try:
        if _newest(path.parent) != path:
            return False
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


def _let_go(path: Path) -> bool:
    """Whether the lock was still ours."""
    try:
        path.rename(path.with_suffix(".free"))
    except FileNotFoundError:
        return False
    return True


def _tidy(folder: Path, *, is_kept: bool) -> None:
    """Take a lock's folder away, unless another process has taken the lock meanwhile."""
    if is_kept:
        return
    try:
        for path in folder.glob("*.free"):
            path.unlink(missing_ok=True)
        folder.rmdir()
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT, errno.EBUSY}:
            raise


def _newest_in(folder: Path) -> Path | None:
    try:
        return _newest(folder)
    except (FileNotFoundError, NotADirectoryError):  # let go meanwhile
        return None


def _newest(folder: Path) -> Path | None:
    """The file of the highest generation; of a number that is free and taken, the one that says taken."""
    return max(_generations(folder), key=lambda path: (int(path.stem), path.suffix == ".json"), default=None)


def _generations(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.stem.isdecimal() and path.suffix in {".json", ".free"}]


def _is_gone(path: Path) -> bool:
    owner = _read(path)
    return owner is not None and owner.is_dead is True


def _sign_of_life(path: Path) -> tuple[int, str]:
    """What changes with every sign of life. The file is opened, which makes network file systems look again."""
    try:
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_mtime_ns, path.name
    except FileNotFoundError:
        return 0, path.name


def _holding(path: Path, key: str) -> Holding | None:
    """Who holds a lock or uses something; None when the file is gone.

    What cannot be read is held by someone unknown, never by nobody: it may be just being written.
    """
    sign, _ = _sign_of_life(path)
    owner = _read(path)
    if owner is None and not path.exists():
        return None
    silent_seconds = max(0.0, time.time() - sign / 1e9)
    return Holding(key=key, owner=owner or unknown_owner(), silent_seconds=silent_seconds, path=path)


def _read(path: Path) -> Owner | None:
    """The owner; None while it is just being written, or when it is gone."""
    try:
        return owner_from(json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        return None
