"""Take a file apart that holds many videos, an array each: one .npy a video, so that each is keyed by its content."""

from __future__ import annotations

import fnmatch
import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from reelwright.stages.features.files import Array, open_arrays
from reelwright.storage.errors import InputError
from reelwright.storage.files import replacing

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


def take_apart(path: Path, folder: Path, *, pattern: str = "*") -> tuple[int, int]:
    """Write each array of ``path`` whose name fits ``pattern`` to ``folder``/NAME.npy; (arrays, files written).

    A file that has the same content already is left alone. Names lose what is not a letter, digit, dot, - or _, so
    that none leads out of the folder. Raises InputError when two names become one or none fits, ItemError when the
    file cannot be read.
    """
    named: dict[str, str] = {}
    written = 0
    for name, array in _members(path, pattern):
        safe = _UNSAFE.sub("_", name).lstrip(".") or path.stem
        if safe in named:
            raise InputError(f"{path}: arrays {named[safe]!r} and {name!r} would both be written to {safe}.npy")
        named[safe] = name
        written += _write(folder / f"{safe}.npy", array)
    if not named:
        raise InputError(f"{path}: no array is named like {pattern!r}. It has: {_first_names(path)}")
    return len(named), written


def _members(path: Path, pattern: str) -> Iterator[tuple[str, Array]]:
    """Read one by one; what goes wrong where they are written is not taken for the file's fault."""
    with open_arrays(path) as arrays:
        for name in (name for name in arrays if fnmatch.fnmatchcase(name, pattern)):
            yield name, np.asarray(arrays[name]())


def _first_names(path: Path) -> str:
    with open_arrays(path) as arrays:
        return ", ".join(list(arrays)[:12]) or "none"


def _write(target: Path, array: Array) -> bool:
    content = io.BytesIO()
    np.lib.format.write_array(content, array, allow_pickle=False)
    if target.is_file() and target.read_bytes() == content.getvalue():
        return False
    with replacing(target) as temporary:
        temporary.write_bytes(content.getvalue())
    return True
