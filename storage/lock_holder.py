"""Which process this is, whether another one still runs, who holds a lock and what silence of it means."""

from __future__ import annotations

import contextlib
import datetime as dt
import getpass
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

from reelwright.storage.errors import StoreError


@cache
def machine() -> str:
    """What process numbers are of: this boot of this machine, and this container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:  # not Linux
        return socket.gethostname()


def user() -> str:
    """The name of who runs this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a number without a name, as in many containers
        return str(os.getuid())


def started(process: int) -> str | None:
    """When a process started, in units of the system; None when it does not run any more."""
    try:
        values = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return None if values[0] in {"Z", "X"} else values[19]  # Z: dead, its parent has not looked yet
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
    except ProcessLookupError:
        return None
    import psutil  # where there is no /proc

    with contextlib.suppress(psutil.NoSuchProcess):
        return str(psutil.Process(process).create_time())
    return None


def own_start() -> str:
    """When this process started."""
    return started(os.getpid()) or ""


BEAT_SECONDS = 5.0  # between two signs of life
STALE_SECONDS = 60.0  # without one: the holder on another machine is dead
FORGOTTEN_SECONDS = 86_400.0  # without one: what a process on another machine once used may go


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


def owner_from(values: Any) -> Owner | None:
    """The owner as it was written, by a newer or an older release too; None when it is not whole."""
    try:
        known = {name.name: values[name.name] for name in fields(Owner) if name.name in values}
        essential = {name: known[name] for name in ("process", "started", "machine")}
        unknown = {"host": "", "user": "", "since": ""}  # never those of this process
        return Owner(**{**unknown, **known, **essential, "keys": tuple(known.get("keys", ()))})
    except (KeyError, TypeError):
        return None


def unknown_owner() -> Owner:
    """Of a lock or a note that cannot be read: somebody on another machine, as far as can be known."""
    return Owner(process=0, started="", host="a machine unknown", machine="", user="somebody", since="")


def check_readable(used: Sequence[Holding]) -> None:
    """Raise StoreError for a note that does not say what is used: it may be anything."""
    for found in used:
        if not found.owner.machine and not found.is_dead:
            raise StoreError(
                f"{found.path} says that something in this store is used, and cannot be read. Remove it when no "
                "command works on the store"
            )


def taken_over(lock: str, stale_seconds: float) -> str:
    """What to tell of a lock that was lost."""
    return (
        f"{lock}: another process took this lock over, since this one gave no sign of life for {stale_seconds:.0f} s "
        "(was it suspended, or the store out of reach?). Nothing is damaged; run again"
    )
