"""The locks of storage/locks.py where the store is a folder: each generation is a file that only one can create."""

from __future__ import annotations

import _thread
import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from reelwright.storage.errors import StoreError, UnusableStoreError
from reelwright.storage.files import write_json
from reelwright.storage.owners import BEAT_SECONDS, Holding, Owner, owner_from
from reelwright.storage.unusable import named

_LOOK_SECONDS = 0.2  # between two looks at a lock that is held


@contextlib.contextmanager
def exclusive_in(
    folder: Path, *, owner: Owner, tell: Callable[[str], None], stale_seconds: float, is_kept: bool
) -> Iterator[bool]:
    """`locks.exclusive` for the lock in ``folder``: same meaning, same errors."""
    path, waited = _take(folder, owner, tell=tell, stale_seconds=stale_seconds)
    beat = _Beat()
    try:
        with _beating(path, beat, is_ours=lambda: _is_newest(path)):
            yield waited
    except BaseException as error:
        is_there = folder.is_dir()
        _let_go(path)
        if beat.is_lost or not is_there:  # what was raised follows from it
            raise _lost(path, is_there=is_there, stale_seconds=stale_seconds) from error
        _tidy(folder, is_kept=is_kept)
        raise
    is_there = folder.is_dir()
    if not _let_go(path) or beat.is_lost:
        raise _lost(path, is_there=is_there, stale_seconds=stale_seconds)
    _tidy(folder, is_kept=is_kept)


@contextlib.contextmanager
def using_in(path: Path, *, note_of: Callable[[], Owner | None]) -> Iterator[Callable[[], None]]:
    """Keep the file ``path`` as `note_of` says, alive, and take it away in the end; call what is yielded on news."""

    def write() -> None:
        owner = note_of()
        if owner is not None:
            with contextlib.suppress(OSError):
                write_json(path, asdict(owner))

    with _beating(path, _Beat(), is_ours=lambda: True):
        try:
            yield write
        finally:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def holdings_in(locks: Path, *, uses: str) -> tuple[list[Holding], list[Holding]]:
    """Locks below a folder that are held, and notes of what is used, those of the dead too."""
    folders = sorted(path for path in locks.iterdir() if path.name != uses) if locks.is_dir() else []
    newest = [path for folder in folders if (path := _newest(folder)) is not None and path.suffix == ".json"]
    noted = sorted((locks / uses).glob("*.json")) if (locks / uses).is_dir() else []
    held = [found for path in newest if (found := _holding(path, path.parent.name)) is not None]
    return held, [found for path in noted if (found := _holding(path, "")) is not None]


def _take(folder: Path, owner: Owner, *, tell: Callable[[str], None], stale_seconds: float) -> tuple[Path, bool]:
    """The file of our generation, and whether another process had the lock first."""
    waited, seen, since = False, (0, ""), time.monotonic()
    while True:
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


def _lost(path: Path, *, is_there: bool, stale_seconds: float) -> StoreError:
    if not is_there:
        return UnusableStoreError(
            f"{path} is gone: the store was removed while this ran. Mount it again if it was unmounted; else run "
            "again, which starts anew"
        )
    return StoreError(
        f"{path}: another process took this lock over, since this one gave no sign of life for "
        f"{stale_seconds:.0f} s (was it suspended?). Nothing is damaged; run again"
    )


def _is_newest(path: Path) -> bool:
    """Whether a lock is still ours; not so when its folder is gone."""
    try:
        return _newest(path.parent) == path
    except FileNotFoundError:
        return False


def _let_go(path: Path) -> bool:
    """Whether the lock was still ours."""
    try:
        path.rename(path.with_suffix(".free"))
    except OSError:
        return False
    return True


def _tidy(folder: Path, *, is_kept: bool) -> None:
    """Take a lock's folder away, unless another process has taken the lock meanwhile."""
    if is_kept:
        return
    with contextlib.suppress(OSError):
        for path in folder.glob("*.free"):
            path.unlink(missing_ok=True)
        folder.rmdir()


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
    owner = _read(path)
    if owner is None:
        return None
    silent_seconds = max(0.0, time.time() - _sign_of_life(path)[0] / 1e9)
    return Holding(key=key, owner=owner, silent_seconds=silent_seconds, path=path)


def _read(path: Path) -> Owner | None:
    """The owner; None while it is just being written, or when it is gone."""
    try:
        return owner_from(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


@dataclass
class _Beat:
    is_lost: bool = False
    stop: threading.Event = field(default_factory=threading.Event)


@contextlib.contextmanager
def _beating(path: Path, beat: _Beat, *, is_ours: Callable[[], bool]) -> Iterator[None]:
    """Touch ``path`` every BEAT_SECONDS from a thread while the block runs."""
    thread = threading.Thread(target=_beats, args=(beat, path, is_ours), daemon=True, name=f"lock {path.parent.name}")
    thread.start()
    try:
        yield
    finally:
        beat.stop.set()
        thread.join()


def _beats(beat: _Beat, path: Path, is_ours: Callable[[], bool]) -> None:
    while not beat.stop.wait(BEAT_SECONDS):
        with contextlib.suppress(OSError):  # the store cannot be reached: the work that needs it will tell
            if not is_ours():
                beat.is_lost = True
                _thread.interrupt_main(signal.SIGTERM)
                return
            if path.exists():
                os.utime(path)
