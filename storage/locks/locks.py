"""Locks on a shared folder that never need a person, and who works in a store now.

A lock is a folder with one file a generation:

    locks/<key>/000007.free     the last holder has let it go
    locks/<key>/000008.json     its holder now: process, host, since when; touched every few seconds

Taking it means creating the next generation, which the file system lets only one process do. A holder that died is
passed over the same way: at once when it ran on this machine, since its process can be looked for; from elsewhere when
its file was not touched for STALE_SECONDS by the clock of the one who waits, so that clocks need not agree. flock would
not do: several network file systems keep it to one machine.

The number of the generation is the holder's token: as long as it is the highest one, the lock is held. The heartbeat
(storage/heartbeat.py) looks every few seconds, and whatever changes the store asks it first; who lost a lock gets
LostLockError instead of a second writer's mess. In a bucket the files are objects, and signs of life new versions of
them instead of times (storage/locks/places.py).
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from reelwright.storage.backend import Found
from reelwright.storage.constants import TEMPORARY
from reelwright.storage.errors import ConfigError, LostLockError, UnusableStoreError
from reelwright.storage.heartbeat import Claim, alive, check_held
from reelwright.storage.lock_holder import (
    STALE_SECONDS,
    Holding,
    Owner,
    check_readable,
    owner_from,
    taken_over,
    unknown_owner,
)
from reelwright.storage.locks.places import FREE, HELD, Place, parsed
from reelwright.storage.store_errors import best_effort

_USES, COLLECTING = "uses", "collecting"
_DECIDING_SECONDS = (0.05, 0.5, 2.0)  # between looks at a generation beside ours


@dataclass(kw_only=True)
class _Lock:
    """A lock that this process holds, or did."""

    place: Place
    name: str  # of its generation
    owner: Owner
    version: str  # as it was written last
    stale_seconds: float

    def give_sign(self) -> bool:
        """Give a sign of life if it is still ours: the newest generation, and as it was written last.

        Who takes a lock over creates a newer generation and then removes this one, or, having looked long ago, its own
        again: while both are there it is not decided which, and one who died in between is believed.
        """
        found = self.place.list()
        for seconds in _DECIDING_SECONDS:
            if self.name not in found or _newest(found) == self.name:
                break
            time.sleep(seconds)
            found = self.place.list()
        if _newest(found) != self.name:
            return False
        version = self.place.touch(self.name, self.owner, self.version)
        self.version = version or ""
        return version is not None

    def is_ours_still(self) -> bool:
        """At its end; where nobody answers, what was written before was written while it was."""
        try:
            return self.give_sign()
        except UnusableStoreError:
            return True

    def lost(self) -> LostLockError:
        """What to raise when it is ours no more."""
        where = f"{self.place.base}/{self.name}"
        if self.place.is_gone:
            return LostLockError(
                f"{where} is gone: the store was removed while this ran. Mount it again if it was unmounted; else run "
                "again, which starts anew"
            )
        return LostLockError(taken_over(where, self.stale_seconds))


@contextlib.contextmanager
def exclusive(
    folder: Path,
    *,
    report: Callable[[str], None],
    what: str = "",
    stale_seconds: float = STALE_SECONDS,
    is_kept: bool = True,
) -> Iterator[bool]:
    """Hold the lock ``folder`` while the block runs; yields whether another process had it first.

    ``report`` is called with who has it before waiting. Raises OSError where nothing can be written, UnusableStoreError
    where a bucket does not answer, and LostLockError when the lock was lost meanwhile: the store was removed, or
    another process took the lock over since this one was stopped, or could not reach the store, for longer than
    ``stale_seconds``. That is raised in the block too, by whatever is about to change the store (`check_held`). Without
    ``is_kept`` the folder is removed where nobody waits: for locks of which there are very many.
    """
    root = next((above for above in folder.parents if above.name in {"locks", "claims"}), folder).parent  # the store
    lock, waited = _take(Place(folder), Owner(what=what), root=root, report=report, stale_seconds=stale_seconds)
    claim = Claim(beat=lock.give_sign, lost=lock.lost, stale_seconds=stale_seconds, root=root)
    try:
        with alive(claim):
            yield waited
    except BaseException as error:
        if not claim.is_lost and not lock.place.is_gone:
            try:
                lock.place.release(lock.name, is_kept=is_kept)
            except OSError as other:
                error.add_note(f"nor could the lock be let go: {other}")
        elif not isinstance(error, LostLockError):  # what was raised follows from it
            raise lock.lost() from error
        raise
    if claim.is_lost or not lock.is_ours_still() or not lock.place.release(lock.name, is_kept=is_kept):
        raise lock.lost()


def collecting(locks: Path, *, report: Callable[[str], None], what: str) -> contextlib.AbstractContextManager[bool]:
    """While the block runs, nobody begins to use anything of the store: `using` waits. As `exclusive`."""
    return exclusive(locks / COLLECTING, report=report, what=what)


@contextlib.contextmanager
def using(
    locks: Path, *, what: str, report: Callable[[str], None] = lambda _: None
) -> Iterator[Callable[[Collection[str]], None]]:
    """While the block runs, others are told what this process uses: call what is yielded with keys.

    What was there before the call may be gone after it, since `collecting` is waited for (``report`` says so): look
    again. Raises as `exclusive` where others cannot be told.
    """
    place, name = Place(locks), f"{_USES}/{uuid.uuid4().hex}{HELD}"
    used: set[str] = set()
    written: tuple[str, ...] = ()

    def beat() -> bool:
        nonlocal written
        keys = tuple(sorted(used))
        if keys:
            keep = place.touch if keys == written else place.write
            keep(name, Owner(what=what, keys=keys))
            written = keys
        return True

    def lost() -> LostLockError:
        return LostLockError(taken_over(f"{place.base}/{name}", STALE_SECONDS))

    claim = Claim(beat=beat, lost=lost, stale_seconds=STALE_SECONDS)

    def note(keys: Collection[str]) -> None:
        if not used.issuperset(keys):
            before = set(used)
            with collecting(locks, report=report, what=what):
                used.update(keys)
                try:
                    claim.give_sign()
                except BaseException:
                    used.intersection_update(before)
                    raise

    with alive(claim):
        try:
            yield note
        finally:
            claim.leave()
            with contextlib.suppress(UnusableStoreError, ConfigError), best_effort():  # it is of a dead process now
                place.delete([name])


def holdings(locks: Path) -> list[Holding]:
    """Locks of a store that are held now, and by whom; those whose owners are known to be gone are left out."""
    return [found for found in _holdings_and_uses(locks)[0] if not found.is_dead]


def uses(locks: Path) -> list[Holding]:
    """What is used by which process, those that are gone too."""
    return _holdings_and_uses(locks)[1]


def _holdings_and_uses(locks: Path) -> tuple[list[Holding], list[Holding]]:
    place = Place(locks)
    found = place.list()
    generations: dict[str, list[str]] = {}
    notes = {}
    for name in found:
        folder, _, last = name.rpartition("/")
        if folder == _USES and last.endswith(HELD) and not last.startswith(TEMPORARY):
            notes[name] = ""
        elif folder != _USES and _is_generation(last):
            generations.setdefault(folder, []).append(last)
    newest = {f"{folder}/{_newest(names)}": folder for folder, names in generations.items()}
    held = _read_all(place, found, {name: folder for name, folder in newest.items() if name.endswith(HELD)})
    used = _read_all(place, found, notes)
    check_readable(used)
    return held, used


def _read_all(place: Place, found: Mapping[str, Found], keys: Mapping[str, str]) -> list[Holding]:
    """Who holds or uses what, by name and key; those that are gone by now are left out.

    What cannot be read is held by someone unknown, never by nobody: it may be just being written.
    """
    held = []
    for name, content in sorted(place.read(list(keys)).items()):
        values = parsed(content)
        silent = max(0.0, time.time() - values.get("at", found[name].changed))
        owner = owner_from(values) or unknown_owner()
        held.append(Holding(key=keys[name], owner=owner, silent_seconds=silent, path=Path(f"{place.base}/{name}")))
    return held


def _take(
    place: Place, owner: Owner, *, root: Path, report: Callable[[str], None], stale_seconds: float
) -> tuple[_Lock, bool]:
    """The lock, and whether another process had it first."""
    waited, seen, since = False, ("", ""), time.monotonic()
    while True:
        check_held(root)  # others that are held may be lost while this one is waited for
        found = place.list()
        newest = _newest(found)
        holder = _owner(place, newest) if newest is not None and newest.endswith(HELD) else None
        if newest is None or newest.endswith(FREE) or (holder is not None and holder.is_dead is True):
            lock = _claim(place, newest, owner, stale_seconds)
            if lock is not None:
                return lock, waited
            continue
        sign = (newest, found[newest].version)
        if sign != seen:
            seen, since = sign, time.monotonic()
        elif time.monotonic() - since > stale_seconds:
            lock = _claim(place, newest, owner, stale_seconds) if place.pass_over(*sign) else None
            if lock is not None:
                return lock, True
        if not waited:
            waited = True
            report(f"waits for {holder or 'another process'}, which works on the same")
        time.sleep(min(place.look_seconds, stale_seconds / 4))


def _claim(place: Place, newest: str | None, owner: Owner, stale_seconds: float) -> _Lock | None:
    """Create the generation after ``newest``; None when another process was faster, or took the folder away."""
    number = 1 + (_number(newest) if newest is not None else 0)
    name = f"{number:06d}{HELD}"
    if not place.create(name, owner):
        return None
    later = {other: found for other, found in place.list().items() if _is_generation(other)}
    others = [other for other in later if other != name]
    is_late = any(number <= _number(other) for other in others)
    if is_late or name not in later or (newest is not None and newest not in later):
        place.delete([name])  # we looked long ago: others took this very number, let it go, cleared it away
        return None
    place.delete(others)
    return _Lock(place=place, name=name, owner=owner, version=later[name].version, stale_seconds=stale_seconds)


def _newest(names: Iterable[str]) -> str | None:
    """The name of the highest generation; of a number that is free and taken, the one that says taken."""
    generations = [name for name in names if _is_generation(name)]
    return max(generations, key=lambda name: (_number(name), name.endswith(HELD)), default=None)


def _is_generation(name: str) -> bool:
    stem, dot, ending = name.rpartition(".")
    return stem.isdecimal() and dot + ending in {HELD, FREE}


def _number(name: str) -> int:
    return int(name.partition(".")[0])


def _owner(place: Place, name: str) -> Owner | None:
    """Who holds a lock; None while it is just being written, or when it is gone."""
    return next((owner_from(parsed(content)) for content in place.read([name]).values()), None)
