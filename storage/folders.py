"""Replacing a whole folder, so that readers see the old one or the new one and never a mixture."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from reelwright.storage.backend import remove_local
from reelwright.storage.constants import TEMPORARY
from reelwright.storage.heartbeat import check_held
from reelwright.storage.store import backend_of
from reelwright.storage.store_errors import named


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """An empty temporary folder beside ``path``; when the block ends well it takes the place of ``path``.

    A folder that is there already is moved aside first, because no portable call swaps two folders; when the block
    fails it stays as it was. The moment between the two renames leaves nothing at ``path``, never half of something.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    mark = uuid.uuid4().hex[:12]
    temporary = path.with_name(f"{TEMPORARY}{mark}-{path.name}")
    aside = path.with_name(f"{TEMPORARY}{mark}-old-{path.name}")
    with named(path):
        temporary.mkdir()
        try:
            yield temporary
            check_held(path)
            backend_of(path).push(path, temporary)
            if path.exists():
                os.replace(path, aside)  # noqa: PTH105 - named as the system call it is
            os.replace(temporary, path)  # noqa: PTH105
        finally:
            remove_local(temporary)
            remove_local(aside)
