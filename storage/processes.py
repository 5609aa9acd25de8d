"""Which process this is, whether another one still runs, and how a scheduler ends this one."""

from __future__ import annotations

import contextlib
import getpass
import os
import signal
import socket
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import FrameType

from reelwright.storage.errors import Interrupted


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


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """While the block runs, the scheduler's signals end it as `Interrupted`."""
    previous = {number: signal.signal(number, _interrupt) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    del frame
    raise Interrupted(f"stopped by {signal.Signals(number).name}; what was done is kept, run again to go on")
