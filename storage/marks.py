"""Marks: empty files that say that something happened, in a shared folder or as objects of a store in a bucket."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from reelwright.storage import remote
from reelwright.storage.bringing import names_in
from reelwright.storage.mirror import mirror_of


def set_mark(path: Path) -> bool:
    """Set a mark; False where it was set before. Of several processes only one is told True."""
    mirror = mirror_of(path)
    if mirror is not None:
        return remote.create_object(mirror.url_of(path), b"")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
    except FileExistsError:
        return False
    return True


def move_mark(path: Path, new: Path) -> None:
    """Set the mark ``new`` in place of ``path``."""
    mirror = mirror_of(path)
    if mirror is None:
        path.rename(new)
        return
    remote.write_object(mirror.url_of(new), b"")
    remote.remove_objects([mirror.url_of(path)])


def unset(paths: Iterable[Path]) -> None:
    """Take marks away; those that are not set are none the worse."""
    wanted = list(paths)
    mirror = mirror_of(wanted[0]) if wanted else None
    if mirror is not None:
        remote.remove_objects([mirror.url_of(path) for path in wanted])
        return
    for path in wanted:
        path.unlink(missing_ok=True)


def marks_in(folder: Path) -> list[Path]:
    """Everything that lies right in a folder of marks."""
    return [folder / name for name in sorted(names_in(folder))]
