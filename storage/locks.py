"""Locks on a shared folder that never need a person, and who works in a store now.

A lock is a folder with one file a generation:

    locks/<key>/000007.free     the last holder has let it go
    locks/<key>/000008.json     its holder now: process, host, since when; touched every few seconds

Taking it means creating the next generation, which the file system lets only one process do. A holder that died is
passed over the same way: at once when it ran on this machine, since its process can be looked for; from elsewhere when
its file was not touched for STALE_SECONDS by the clock of the one who waits, so that clocks need not agree. flock would
not do: several network file systems keep it to one machine.
"""

from __future__ import annotations

import _thread
import contextlib
import datetime as dt
import json
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from reelwright.storage.errors import StoreError, UnusableStoreError
from reelwright.storage.files import write_json
from reelwright.storage.mirror import mirror_of
from reelwright.storage.processes import machine, own_start, started, user
from reelwright.storage.unusable import named

BEAT_SECONDS = 5.0  # between two signs of life
STALE_SECONDS = 60.0  # without one: the holder on another machine is dead
FORGOTTEN_SECONDS = 86_400.0  # without one: what a process on another machine once used may go
_LOOK_SECONDS = 0.2  # between two looks at a lock that is held
_USES = "uses"


@dataclass(frozen=True, kw_only=True)
class Owner:
    """Who holds a lock, or uses something."""

    process: int = field(default_factory=os.getpid)
    started: str = field(default_factory=own_start)  # a process number is used again
    host: str = field(default_factory=socket.gethostname)
    machine: str = field(default_factory=machine)
    user: str = field(default_factory=user)
    since: str = field(default_factory=lambda: dt.datetime.now(dt.UTC).isoformat(timespec="seconds"))
    what: str = ""  # for people
    keys: tuple[str, ...] = ()  # of what is used; keys, and names of files of weights

    def __str__(self) -> str:
        return f"process {self.process} of {self.user} on {self.host}"

    @property
    def is_dead(self) -> bool | None:
        """Whether the process is gone; None when it ran where we cannot look."""
        return started(self.process) != self.started if self.machine == machine() else None


@dataclass(frozen=True, kw_only=True)
class Holding:
    """A lock that is held, or something that is used, as `status` tells of it."""

    key: str  # of the lock; empty for uses
    owner: Owner
    silent_seconds: float  # since its last sign of life, by this machine's clock
    path: Path

    @property
    def is_dead(self) -> bool:
        """Whether its owner is gone; where we cannot look, whether it was not heard of for a day."""
        is_gone = self.owner.is_dead
        return self.silent_seconds > FORGOTTEN_SECONDS if is_gone is None else is_gone


@contextlib.contextmanager
def exclusive(
    folder: Path,
    *,
    tell: Callable[[str], None],
    what: str = "",
    stale_seconds: float = STALE_SECONDS,
    is_kept: bool = True,
) -> Iterator[bool]:
    """Hold the lock ``folder`` while the block runs; yields whether another process had it first.

    ``tell`` is called with who has it before waiting. Raises OSError where nothing can be written, and StoreError after
    the block when the lock was lost meanwhile: the store was removed, or another process took the lock over since this
    one was stopped, or could not reach the store, for longer than ``stale_seconds``. It is then also asked to stop, as
    by SIGTERM. Without ``is_kept`` the folder is removed where nobody waits: for locks of which there are very many.
    """
    url = _url_of(folder)
    if url is not None:
        from reelwright.storage.remote_locks import exclusive_in

        owner = Owner(what=what)
        with exclusive_in(url, owner=owner, tell=tell, stale_seconds=stale_seconds, is_kept=is_kept) as was_held:
            yield was_held
        return
    path, waited = _take(folder, Owner(what=what), tell=tell, stale_seconds=stale_seconds)
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
def using(locks: Path, *, what: str) -> Iterator[Callable[[Collection[str]], None]]:
    """While the block runs, others are told what this process uses: call what is yielded with keys.

    Where nothing can be written nothing is told, since nobody can remove anything either.
    """
    path = locks / _USES / f"{uuid.uuid4().hex}.json"
    told: set[str] = set()
    url = _url_of(path)
    if url is not None:
        from reelwright.storage.remote_locks import using_in

        with using_in(url, note_of=lambda: Owner(what=what, keys=tuple(sorted(told))) if told else None) as write:

            def send(keys: Collection[str]) -> None:
                if not told.issuperset(keys):
                    told.update(keys)
                    write()

            yield send
        return

    def note(keys: Collection[str]) -> None:
        if told.issuperset(keys):
            return
        told.update(keys)
        with contextlib.suppress(OSError):
            write_json(path, asdict(Owner(what=what, keys=tuple(sorted(told)))))

    with _beating(path, _Beat(), is_ours=lambda: True):
        try:
            yield note
        finally:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def holdings(locks: Path) -> list[Holding]:
    """Locks of a store that are held now, and by whom; those whose owners are known to be gone are left out."""
    url = _url_of(locks)
    if url is not None:
        from reelwright.storage.remote_locks import holdings_in

        return [found for found in holdings_in(url, uses=_USES)[0] if not found.is_dead]
    folders = sorted(path for path in locks.iterdir() if path.name != _USES) if locks.is_dir() else []
    newest = [path for folder in folders if (path := _newest(folder)) is not None and path.suffix == ".json"]
    return [found for path in newest if (found := _holding(path, path.parent.name)) is not None and not found.is_dead]


def uses(locks: Path) -> list[Holding]:
    """What is used by which process, those that are gone too."""
    url = _url_of(locks)
    if url is not None:
        from reelwright.storage.remote_locks import holdings_in

        return holdings_in(url, uses=_USES)[1]
    folder = locks / _USES
    paths = sorted(folder.glob("*.json")) if folder.is_dir() else []
    return [found for path in paths if (found := _holding(path, "")) is not None]


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


def owner_from(values: Any) -> Owner | None:
    """The owner as it was written; None when it is not whole."""
    try:
        known = {name.name: values[name.name] for name in fields(Owner)}
        return Owner(**{**known, "keys": tuple(known["keys"])})
    except (KeyError, TypeError):
        return None


def _url_of(folder: Path) -> str | None:
    """Where a lock of a store in a bucket lies."""
    mirror = mirror_of(folder)
    return None if mirror is None else mirror.url_of(folder)


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
