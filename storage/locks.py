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
LostLockError instead of a second writer's mess. In a bucket signs of life are conditional writes besides
(storage/remote_locks.py).
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from reelwright.storage import folder_locks
from reelwright.storage.mirror import mirror_of
from reelwright.storage.owners import STALE_SECONDS, Holding, Owner

_USES, _COLLECTING = "uses", "collecting"


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

    ``tell`` is called with who has it before waiting. Raises OSError where nothing can be written, UnusableStoreError
    where a bucket does not answer, and LostLockError when the lock was lost meanwhile: the store was removed, or
    another process took the lock over since this one was stopped, or could not reach the store, for longer than
    ``stale_seconds``. That is raised in the block too, by whatever is about to change the store (`check_held`). Without
    ``is_kept`` the folder is removed where nobody waits: for locks of which there are very many.
    """
    url, owner, root = _url_of(folder), Owner(what=what), _root_of(folder)
    if url is None:
        held = folder_locks.exclusive_in(
            folder, root=root, owner=owner, tell=tell, stale_seconds=stale_seconds, is_kept=is_kept
        )
    else:
        from reelwright.storage import remote_locks

        held = remote_locks.exclusive_in(
            url, root=root, owner=owner, tell=tell, stale_seconds=stale_seconds, is_kept=is_kept
        )
    with held as was_held:
        yield was_held


@contextlib.contextmanager
def collecting(locks: Path, *, tell: Callable[[str], None], what: str) -> Iterator[bool]:
    """While the block runs, nobody begins to use anything of the store: `using` waits. As `exclusive`."""
    with exclusive(locks / _COLLECTING, tell=tell, what=what) as waited:
        yield waited


@contextlib.contextmanager
def using(
    locks: Path, *, what: str, tell: Callable[[str], None] = lambda _: None
) -> Iterator[Callable[[Collection[str]], None]]:
    """While the block runs, others are told what this process uses: call what is yielded with keys.

    What was there before the call may be gone after it, since `collecting` is waited for (``tell`` says so): look
    again. Raises as `exclusive` where others cannot be told.
    """
    path = locks / _USES / f"{uuid.uuid4().hex}.json"
    told: set[str] = set()

    def note_of() -> Owner | None:
        return Owner(what=what, keys=tuple(sorted(told))) if told else None

    url = _url_of(path)
    if url is None:
        noting = folder_locks.using_in(path, note_of=note_of)
    else:
        from reelwright.storage import remote_locks

        noting = remote_locks.using_in(url, note_of=note_of)
    with noting as write:

        def note(keys: Collection[str]) -> None:
            if not told.issuperset(keys):
                before = set(told)
                with collecting(locks, tell=tell, what=what):
                    told.update(keys)
                    try:
                        write()
                    except BaseException:
                        told.intersection_update(before)
                        raise

        yield note


def holdings(locks: Path) -> list[Holding]:
    """Locks of a store that are held now, and by whom; those whose owners are known to be gone are left out."""
    return [found for found in _holdings_and_uses(locks)[0] if not found.is_dead]


def uses(locks: Path) -> list[Holding]:
    """What is used by which process, those that are gone too."""
    return _holdings_and_uses(locks)[1]


def _holdings_and_uses(locks: Path) -> tuple[list[Holding], list[Holding]]:
    url = _url_of(locks)
    if url is None:
        return folder_locks.holdings_in(locks, uses=_USES)
    from reelwright.storage import remote_locks

    return remote_locks.holdings_in(url, uses=_USES)


def _root_of(lock: Path) -> Path:
    """The store that a lock is of: locks/ and claims/ lie right in it."""
    above = next((parent for parent in lock.parents if parent.name in {"locks", "claims"}), lock)
    return above.parent


def _url_of(folder: Path) -> str | None:
    """Where a lock of a store in a bucket lies."""
    mirror = mirror_of(folder)
    return None if mirror is None else mirror.url_of(folder)
