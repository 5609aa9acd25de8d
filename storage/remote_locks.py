"""The locks of storage/locks.py where the store is a bucket: each generation is an object that only one can create.

    locks/<key>/000008.json   rewritten every few seconds; who waits sees by its version that its holder lives

No clocks are compared to take one over: a holder from elsewhere is passed over when its object did not change for
STALE_SECONDS by the clock of the one who waits. `status` tells when a holder was heard of last by the holder's clock.
"""

from __future__ import annotations

import _thread
import contextlib
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from reelwright.storage import remote
from reelwright.storage.errors import ReelwrightError, StoreError
from reelwright.storage.owners import BEAT_SECONDS, Holding, Owner, owner_from
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
class _Beat:
    """A lock that is held, or a note of what is used."""

    url: str
    owner: Owner
    count: int = 0
    is_lost: bool = False
    stop: threading.Event = field(default_factory=threading.Event)

    def content(self) -> bytes:
        """What stands in the object; the count makes every version another one."""
        self.count += 1
        return (json.dumps({**asdict(self.owner), "beat": self.count, "at": time.time()}) + "\n").encode()


@contextlib.contextmanager
def exclusive_in(
    url: str, *, owner: Owner, tell: Callable[[str], None], stale_seconds: float, is_kept: bool
) -> Iterator[bool]:
    """`locks.exclusive` for the lock at ``url``: same meaning, same errors."""
    beat, waited = _take(url, owner, tell=tell, stale_seconds=stale_seconds)
    thread = threading.Thread(target=_beats, args=(beat, url), daemon=True, name=f"lock {url}")
    thread.start()
    try:
        yield waited
    finally:
        beat.stop.set()
        thread.join()
        if beat.is_lost:
            raise StoreError(
                f"{beat.url}: another process took this lock over, since this one gave no sign of life for "
                f"{stale_seconds:.0f} s (was it suspended, or the network down?). Nothing is damaged; run again"
            )
        _let_go(beat, is_kept=is_kept)


@contextlib.contextmanager
def using_in(url: str, *, note_of: Callable[[], Owner | None]) -> Iterator[Callable[[], None]]:
    """Keep the object ``url`` as `note_of` says, alive, and take it away in the end; call what is yielded on news."""
    beat = _Beat(url, Owner())

    def write() -> None:
        owner = note_of()
        if owner is not None:
            beat.owner = owner
            with contextlib.suppress(ReelwrightError):
                remote.write_object(url, beat.content())

    thread = threading.Thread(target=_repeat, args=(beat, write), daemon=True, name=f"use {url}")
    thread.start()
    try:
        yield write
    finally:
        beat.stop.set()
        thread.join()
        with contextlib.suppress(ReelwrightError):
            remote.remove_objects([url])


def holdings_in(url: str, *, uses: str) -> tuple[list[Holding], list[Holding]]:
    """Locks below ``url`` that are held, and notes of what is used, those of the dead too."""
    folders: dict[str, dict[str, Found]] = {}
    for name, found in remote.list_objects(url).items():
        folder, _, last = name.rpartition("/")
        if folder == uses or _is_generation(last):
            folders.setdefault(folder, {})[last] = found
    noted = [f"{uses}/{name}" for name in folders.pop(uses, {})]
    newest = {folder: _Generation(names).newest or "" for folder, names in folders.items()}
    held = [f"{folder}/{name}" for folder, name in newest.items() if name.endswith(_HELD)]
    return _read_all(url, held), _read_all(url, noted, is_use=True)


def _read_all(url: str, names: list[str], *, is_use: bool = False) -> list[Holding]:
    contents = remote.read_objects([f"{url}/{name}" for name in names])
    found = []
    for place, content in sorted(contents.items()):
        owner = owner_from(_parsed(content))
        if owner is not None:
            key = "" if is_use else place.removeprefix(f"{url}/").rpartition("/")[0]
            silent = max(0.0, time.time() - _parsed(content).get("at", time.time()))
            found.append(Holding(key=key, owner=owner, silent_seconds=silent, path=Path(place)))
    return found


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        values = json.loads(content)
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}


def _take(url: str, owner: Owner, *, tell: Callable[[str], None], stale_seconds: float) -> tuple[_Beat, bool]:
    waited, seen, since = False, ("", ""), time.monotonic()
    while True:
        now = _generations(url)
        newest = now.newest
        if newest is None or not newest.endswith(_HELD) or _is_gone(f"{url}/{newest}"):
            beat = _claim(url, now, owner)
            if beat is not None:
                return beat, waited
            continue
        sign = (newest, now.names[newest].version)
        if sign != seen:
            seen, since = sign, time.monotonic()
        elif time.monotonic() - since > stale_seconds:
            beat = _claim(url, now, owner)
            if beat is not None:
                return beat, True
        if not waited:
            waited = True
            tell(f"waits for {_owner(f'{url}/{newest}') or 'another process'}, which works on the same")
        time.sleep(min(LOOK_SECONDS, stale_seconds / 4))


def _claim(url: str, now: _Generation, owner: Owner) -> _Beat | None:
    """Create the generation after the newest one; None when another process was faster."""
    number = 1 + (_number(now.newest) if now.newest is not None else 0)
    name = f"{number:06d}{_HELD}"
    beat = _Beat(f"{url}/{name}", owner)
    if not remote.create_object(beat.url, beat.content()):
        return None
    later = _generations(url)
    others = [other for other in later.names if other != name]
    is_late = any(number <= _number(other) for other in others)
    if is_late or (now.newest is not None and now.newest not in later.names):
        remote.remove_objects([beat.url])  # we looked long ago: others took this very number and let it go
        return None
    remote.remove_objects([f"{url}/{other}" for other in others])
    return beat


def _let_go(beat: _Beat, *, is_kept: bool) -> None:
    """What cannot be let go, since nobody answers, is passed over by others when it has been silent long enough."""
    with contextlib.suppress(ReelwrightError):
        if is_kept:
            remote.write_object(beat.url.removesuffix(_HELD) + _FREE, b"")
        remote.remove_objects([beat.url])


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


def _beats(beat: _Beat, url: str) -> None:
    """Rewrite the object as long as it is the newest; when it is not, this process is asked to stop."""

    def live() -> None:
        with contextlib.suppress(ReelwrightError):  # nobody answers: the work that needs the store will tell
            if f"{url}/{_generations(url).newest}" != beat.url:
                beat.is_lost = True
                beat.stop.set()
                _thread.interrupt_main(signal.SIGTERM)
                return
            remote.write_object(beat.url, beat.content())

    _repeat(beat, live)


def _repeat(beat: _Beat, act: Callable[[], None]) -> None:
    while not beat.stop.wait(BEAT_SECONDS):
        act()
