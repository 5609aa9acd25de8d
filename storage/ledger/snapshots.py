"""A file as it was when it was looked at: what is read must be what its digest was made of."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import NamedTuple

from reelwright.storage.digests import file_digest
from reelwright.storage.errors import ItemError
from reelwright.storage.ledger.digest_cache import Stamp, stamp


class Snapshot(NamedTuple):
    """State of a file, or of a folder of files, as the file system tells it.

    snapshot = Snapshot.of(path)    before it is opened; `stamp` is to be that which the digest was made of
    ...                             read
    snapshot.check()                after the last read, before what was read is kept
    """

    path: Path
    stamp: Stamp  # size, mtime_ns, inode
    changed_ns: int  # ctime: it changes too where a file is moved away and back, or gets an older mtime again

    @classmethod
    def of(cls, path: Path | str) -> Snapshot:
        """The state now. Raises OSError when the path is not there."""
        return cls(Path(path), stamp(path), os.stat(path).st_ctime_ns)  # noqa: PTH116 - as in `stamp`

    def is_same(self) -> bool:
        """Whether the path still names the same file with the same state."""
        try:
            return Snapshot.of(self.path) == self
        except OSError:
            return False

    def check(self) -> None:
        """Raise ItemError (``changed``) when the file was written, replaced, moved or removed since."""
        if not self.is_same():
            raise ItemError("changed", self.changed_message)

    @property
    def changed_message(self) -> str:
        """What to say when it is not the same any more."""
        return f"{self.path} changed while it was read, so nothing of it was kept; run again."

    def digest(self, *, quick: bool = False) -> str:
        """The content digest of this state, read once a process. Raises ItemError where it changed since, OSError."""
        return _digest(self, quick)


@functools.lru_cache(maxsize=1024)
def _digest(snapshot: Snapshot, quick: bool) -> str:
    found = file_digest(snapshot.path, quick=quick)
    snapshot.check()
    return found
