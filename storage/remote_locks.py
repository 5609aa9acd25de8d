"""The locks of storage/locks.py where the store is a bucket: each generation is an object that only one can create.

    locks/<key>/000008.json   rewritten every few seconds; who waits sees by its version that its holder lives

No clocks are compared to take one over: a holder from elsewhere is passed over when its object did not change for
STALE_SECONDS by the clock of the one who waits. Where the store can (S3), both write on condition that the object is as
they saw it last: the holder its signs of life, who passes it over a last word on its object. So of a holder that wakes
up and one that takes over at that moment only one goes on. `status` tells when a holder was heard of last by the
holder's clock.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reelwright.storage import remote
from reelwright.storage.errors import ConfigError, LostLockError, UnusableStoreError
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
from reelwright.storage.remote import Found

LOOK_SECONDS = 1.0  # between two looks at a lock that is held: each is a request
_HELD, _FREE = ".json", ".free"


@dataclass
class _Generation:
    """What a lock's folder holds now."""

    names: dict[str, Found]

    @property
    def newest(self) -> str | None:
        """The name of the highest generation; of a number that is free and taken, the one that says taken."""
        return max(self.names, key=lambda name: (_number(name), name.endswith(_HELD)), default=None)


@dataclass
class _Lock:
    """A lock that is held."""

    folder: str  # URL
    name: str
    owner: Owner
    version: str = ""  # of its object, as it was written last
    count: int = 0

    @property
    def url(self) -> str:
        """Its object."""
        return f"{self.folder}/{self.name}"

    def content(self) -> bytes:
        """What stands in the object; the count makes every version another one."""
        self.count += 1
        return _content(self.owner, self.count)

    def give_sign(self) -> bool:
        """Rewrite the object if it is the newest one and as it was written last; whether it was."""
        if _generations(self.folder).newest != self.name:
            return False
        version = remote.rewrite_object(self.url, self.content(), version=self.version)
        self.version = version or ""
        return version is not None


@contextlib.contextmanager
def exclusive_in(
    url: str, *, root: Path, owner: Owner, tell: Callable[[str], None], stale_seconds: float, is_kept: bool
) -> Iterator[bool]:
    """`locks.exclusive` for the lock at ``url`` of the store with the working copy ``root``: same meaning."""
    lock, waited = _take(url, owner, root=root, tell=tell, stale_seconds=stale_seconds)

    def lost() -> LostLockError:
        return LostLockError(taken_over(lock.url, stale_seconds))

    claim = Claim(beat=lock.give_sign, lost=lost, stale_seconds=stale_seconds, root=root)
    try:
        with alive(claim):
            yield waited
    except BaseException as error:
        if not claim.is_lost:
            _let_go(lock, is_kept=is_kept)
        elif not isinstance(error, LostLockError):
            raise lost() from error
        raise
    if claim.is_lost or not _is_ours_still(lock):
        raise lost()
    _let_go(lock, is_kept=is_kept)


@contextlib.contextmanager
def using_in(url: str, *, note_of: Callable[[], Owner | None]) -> Iterator[Callable[[], None]]:
    """Keep the object ``url`` as `note_of` says, alive, and take it away in the end; call what is yielded on news.

    What is yielded raises UnusableStoreError or ConfigError where others cannot be told.
    """
    count = 0

    def write() -> bool:
        nonlocal count
        owner, count = note_of(), count + 1
        if owner is not None:
            remote.write_object(url, _content(owner, count))
        return True

    def lost() -> LostLockError:
        return LostLockError(taken_over(url, STALE_SECONDS))

    claim = Claim(beat=write, lost=lost, stale_seconds=STALE_SECONDS)
    with alive(claim):
        try:
            yield claim.give_sign
        finally:
            claim.leave()
            with contextlib.suppress(UnusableStoreError, ConfigError):  # of a dead process it says nothing
                remote.remove_objects([url])


def _content(owner: Owner, count: int) -> bytes:
    return (json.dumps({**asdict(owner), "beat": count, "at": time.time()}) + "\n").encode()


def holdings_in(url: str, *, uses: str) -> tuple[list[Holding], list[Holding]]:
    """Locks below ``url`` that are held, and notes of what is used, those of the dead too."""
    folders: dict[str, dict[str, Found]] = {}
    for name, found in remote.list_objects(url).items():
        folder, _, last = name.rpartition("/")
        if folder == uses or _is_generation(last):
            folders.setdefault(folder, {})[last] = found
    noted = [f"{uses}/{name}" for name in folders.pop(uses, {})]
    newest = {folder: _Generation(names).newest or "" for folder, names in folders.items()}
    held = _read_all(url, [f"{folder}/{name}" for folder, name in newest.items() if name.endswith(_HELD)])
    used = _read_all(url, noted, is_use=True)
    check_readable(used)
    return held, used


def _read_all(url: str, names: list[str], *, is_use: bool = False) -> list[Holding]:
    """Those that are gone by now are left out; what cannot be read is held by someone unknown."""
    contents = remote.read_objects([f"{url}/{name}" for name in names])
    found = []
    for place, content in sorted(contents.items()):
        values = _parsed(content)
        key = "" if is_use else place.removeprefix(f"{url}/").rpartition("/")[0]
        silent = max(0.0, time.time() - values.get("at", time.time()))
        owner = owner_from(values) or unknown_owner()
        found.append(Holding(key=key, owner=owner, silent_seconds=silent, path=Path(place)))
    return found


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        values = json.loads(content)
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}


def _take(
    url: str, owner: Owner, *, root: Path, tell: Callable[[str], None], stale_seconds: float
) -> tuple[_Lock, bool]:
    waited, seen, since = False, ("", ""), time.monotonic()
    while True:
        check_held(root)  # others that are held may be lost while this one is waited for
        now = _generations(url)
        newest = now.newest
        if newest is None or not newest.endswith(_HELD) or _is_gone(f"{url}/{newest}"):
            lock = _claim(url, now, owner)
            if lock is not None:
                return lock, waited
            continue
        sign = (newest, now.names[newest].version)
        if sign != seen:
            seen, since = sign, time.monotonic()
        elif time.monotonic() - since > stale_seconds:
            lock = _claim(url, now, owner) if _pass_over(f"{url}/{newest}", sign[1]) else None
            if lock is not None:
                return lock, True
        if not waited:
            waited = True
            tell(f"waits for {_owner(f'{url}/{newest}') or 'another process'}, which works on the same")
        time.sleep(min(LOOK_SECONDS, stale_seconds / 4))


def _pass_over(url: str, version: str) -> bool:
    """Write into the object of a silent holder, which then knows; not so where it gave a sign at this moment."""
    return remote.rewrite_object(url, b"{}\n", version=version) is not None


def _claim(url: str, now: _Generation, owner: Owner) -> _Lock | None:
    """Create the generation after the newest one; None when another process was faster."""
    number = 1 + (_number(now.newest) if now.newest is not None else 0)
    lock = _Lock(url, f"{number:06d}{_HELD}", owner)
    content = lock.content()
    if not remote.create_object(lock.url, content) and remote.read_object(lock.url) != content:
        return None  # where an answer was lost, the second try finds what the first one made
    later = _generations(url)
    others = [other for other in later.names if other != lock.name]
    is_late = any(number <= _number(other) for other in others)
    if is_late or lock.name not in later.names or (now.newest is not None and now.newest not in later.names):
        remote.remove_objects([lock.url])  # we looked long ago: others took this very number and let it go
        return None
    lock.version = later.names[lock.name].version
    remote.remove_objects([f"{url}/{other}" for other in others])
    return lock


def _is_ours_still(lock: _Lock) -> bool:
    """At its end; where nobody answers, what was written before was written while it was."""
    try:
        return lock.give_sign()
    except UnusableStoreError:
        return True


def _let_go(lock: _Lock, *, is_kept: bool) -> None:
    """What cannot be let go, since nobody answers, is passed over by others when it has been silent long enough."""
    with contextlib.suppress(UnusableStoreError, ConfigError):
        if is_kept:
            remote.write_object(lock.url.removesuffix(_HELD) + _FREE, b"")
        remote.remove_objects([lock.url])


def _generations(url: str) -> _Generation:
    return _Generation({name: found for name, found in remote.list_objects(url).items() if _is_generation(name)})


def _is_generation(name: str) -> bool:
    stem, dot, ending = name.rpartition(".")
    return stem.isdecimal() and dot + ending in {_HELD, _FREE}


def _number(name: str) -> int:
    return int(name.partition(".")[0])


def _owner(url: str) -> Owner | None:
    content = remote.read_object(url)
    return None if content is None else owner_from(_parsed(content))


def _is_gone(url: str) -> bool:
    owner = _owner(url)
    return owner is not None and owner.is_dead is True
