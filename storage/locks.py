"""Locks: two runs on one store never do the same node at the same time; the second waits, then finds the work done.

The operating system holds the lock (flock), so a process that dies, however, lets it go: no lock ever needs a person.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path


@contextlib.contextmanager
def exclusive(path: Path, *, tell: Callable[[str], None]) -> Iterator[bool]:
    """Hold the lock file at ``path`` while the block runs; yields whether another process had it first.

    ``tell`` is called with who has it before waiting. Raises OSError where the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        waited = False
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waited = True
            file.seek(0)
            tell(f"waits for {file.read().strip() or 'another process'}, which works on the same")
            fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        file.truncate()
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield waited
