"""Where locks lie: a folder of a store, with the names and contents that storage/locks/locks.py gives to files there.

Signs of life are times of files; in a bucket new versions of objects. Where the store can (S3), they are written on
condition that the object is as it was seen last, and so is the last word of who passes a silent holder over: of a
holder that wakes up and one that takes over at that moment only one goes on. `status` tells when a holder was heard of
last: by the time of its file, in a bucket by its own clock.
"""

from __future__ import annotations

import contextlib
import errno
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from reelwright.storage.backend import Found
from reelwright.storage.errors import ConfigError, UnusableStoreError
from reelwright.storage.lock_holder import Owner
from reelwright.storage.store import backend_of

HELD, FREE = ".json", ".free"
_TAKEN = frozenset({errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT, errno.EBUSY})


class Place:
    """A lock's folder, or the folder of all locks. Names are relative to it; `Found.version` is a sign of life."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._backend = folder, backend_of(folder)
        self.base = self._backend.name_of(folder)  # path or URL
        self.look_seconds = self._backend.look_seconds

    @property
    def is_gone(self) -> bool:
        """Whether even the folder of a lock that was taken is not there any more; there are none in a bucket."""
        return self._backend.url is None and not self._folder.is_dir()

    def list(self) -> dict[str, Found]:
        """What lies here, at any depth; empty where there is nothing."""
        return dict(self._backend.entries(self._folder, signs=HELD))

    def read(self, names: Sequence[str]) -> dict[str, bytes]:
        """Contents; those that are not there are left out."""
        found = self._backend.read(self._folder / name for name in names)
        return {path.relative_to(self._folder).as_posix(): content for path, content in found.items()}

    def create(self, name: str, owner: Owner) -> bool:
        """Write what is not there yet; whether this call made it. Of several processes only one does."""
        return self._backend.create(self._folder / name, self._content(owner))

    def write(self, name: str, owner: Owner) -> None:
        """Write it whether or not it is there."""
        self._backend.write(self._folder / name, self._content(owner))

    def touch(self, name: str, owner: Owner, version: str | None = None) -> str | None:
        """Give a sign of life, given a version only where it is this one; the new version, None where it is not so."""
        return self._backend.touch(self._folder / name, self._content(owner), version)

    def pass_over(self, name: str, version: str) -> bool:
        """Tell a silent holder that it lost the lock; not so where it gave a sign of life since ``version``."""
        return self._backend.touch(self._folder / name, b"{}\n", version) is not None

    def release(self, name: str, *, is_kept: bool) -> bool:
        """Let a lock go, and remember its number if ``is_kept``; whether it was still there.

        What cannot be let go in a bucket, since nobody answers, is passed over by others when it was silent for long.
        """
        path = self._folder / name
        with contextlib.suppress(UnusableStoreError, ConfigError):
            if is_kept:
                return self._backend.move(path, path.with_suffix(FREE))
            self._backend.delete([path])
            if self._backend.url is None:
                try:
                    self._folder.rmdir()
                except OSError as error:  # another process has taken the lock meanwhile
                    if error.errno not in _TAKEN:
                        raise
        return True

    def delete(self, names: Sequence[str]) -> None:
        """Remove; those that are not there are none the worse."""
        self._backend.delete([self._folder / name for name in names])

    def _content(self, owner: Owner) -> bytes:
        """The time makes every version another one."""
        at = {} if self._backend.url is None else {"at": time.time()}
        return (json.dumps({**asdict(owner), **at}) + "\n").encode()


def parsed(content: bytes) -> Mapping[str, Any]:
    """What stands in a lock or note; empty while it is just being written, or when it is damaged."""
    try:
        values = json.loads(content)
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}
