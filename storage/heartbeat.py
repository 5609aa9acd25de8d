"""The heartbeat of a process: one thread keeps all its locks and notes alive and learns which of them were lost.

    storage/locks/locks.py, places.py           say how a sign of life is given, and whether the lock is still ours
    storage/files.py, backend.py, zarrs.py ... ask `check_held` before they change anything in a store

A lock that was lost raises LostLockError in the work, at the next write or shard, whoever called it and in whatever
thread: no signal handler is needed. What made one lock be lost (a process that was stopped, a store out of reach) holds
for all that the process has in that store, so nothing is written there until the lock that was lost is left.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from reelwright.storage.errors import ReelwrightError, UnusableStoreError
from reelwright.storage.lock_holder import BEAT_SECONDS

_CLOCK = getattr(time, "CLOCK_BOOTTIME", None)  # goes on while the machine sleeps; others may take over meanwhile


def _now() -> float:
    return time.monotonic() if _CLOCK is None else time.clock_gettime(_CLOCK)


@dataclass(eq=False, kw_only=True)
class Claim:
    """A lock that is held, or a note of what is used, as the heartbeat keeps it.

    ``beat`` gives a sign of life and says whether it is still ours; it raises OSError or ReelwrightError where that
    cannot be known. ``lost`` makes the error to raise when it is not.
    """

    beat: Callable[[], bool]
    lost: Callable[[], UnusableStoreError]
    stale_seconds: float  # without a sign of life others take it over
    root: Path | None = None  # of the store where nothing may be written once it is lost; None: guards nothing
    is_lost: bool = False
    _seen: float = field(default_factory=_now)  # when it was surely ours
    _is_left: bool = False
    _turn: threading.Lock = field(default_factory=threading.Lock)

    @functools.cached_property
    def guarded(self) -> str:
        """How paths begin that it guards; empty: it guards none."""
        return "" if self.root is None else f"{self.root}{os.sep}"

    def give_sign(self) -> None:
        """Give a sign of life, or learn that it was lost. Raises OSError, ReelwrightError where nobody answers."""
        with self._turn:
            if not self._is_left and not self.is_lost:
                before = _now()
                self.is_lost = not self.beat()
                self._seen = before

    def leave(self) -> None:
        """Give no sign from now on; one that is being given is waited for."""
        with self._turn:
            self._is_left = True

    def check(self) -> None:
        """Raise what `lost` makes when it was lost.

        The heartbeat's word counts for half of the time after which others take over; a process that was stopped for
        longer looks for itself before it writes. Raises OSError, ReelwrightError where it then cannot be known.
        """
        if not self.is_lost and _now() - self._seen > self.stale_seconds / 2:
            self.give_sign()
        if self.is_lost:
            raise self.lost()


class _Heart:
    """The thread, which lives as long as there are claims."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """As in a process that was just forked: it has no claims of its own, nor the thread."""
        self.claims: dict[int, Claim] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def add(self, claim: Claim) -> None:
        with self._changed:
            self.claims[id(claim)] = claim
            if self._thread is None:
                self._thread = threading.Thread(target=self._beat, daemon=True, name="heartbeat of locks")
                self._thread.start()

    def remove(self, claim: Claim) -> None:
        claim.leave()
        with self._changed:
            self.claims.pop(id(claim), None)
            self._changed.notify()

    def _beat(self) -> None:
        while True:
            with self._changed:
                if self._changed.wait_for(lambda: not self.claims, timeout=BEAT_SECONDS):
                    self._thread = None
                    return
                claims = list(self.claims.values())
            for claim in claims:
                with contextlib.suppress(OSError, ReelwrightError):  # `check` asks again, and raises
                    claim.give_sign()


_heart = _Heart()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_heart.reset)


@contextlib.contextmanager
def alive(claim: Claim) -> Iterator[None]:
    """Keep a claim alive while the block runs."""
    _heart.add(claim)
    try:
        yield
    finally:
        _heart.remove(claim)


def check_held(path: Path) -> None:
    """Raise LostLockError where this process lost a lock of the store that ``path`` lies in; costs microseconds.

    Called before anything is changed in a store, and where long work has a good place to end. Raises UnusableStoreError
    or OSError where it cannot be known, since the store does not answer.
    """
    if not _heart.claims:
        return
    text = f"{path}{os.sep}"
    for claim in list(_heart.claims.values()):
        if claim.guarded and text.startswith(claim.guarded):
            claim.check()
