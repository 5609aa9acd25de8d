"""File names for ids: an id is any text, a file name must be safe, short and of one video only."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from reelwright.storage.digests import digest

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")
_LONGEST = 80


def file_names(ids: Iterable[str], *, dots: bool = True) -> dict[str, str]:
    """A file name without ending for each id, the same for the same ids: letters, digits, ``_ - .`` and no leading dot.

    Where two ids would have one name (also where only upper and lower case differ), or one is too long, the name ends
    with a part of the id's digest. Without ``dots`` a dot becomes ``_`` too.
    """
    plain = {name: _plain(name, dots=dots) for name in ids}
    taken = Counter(short.lower() for short in plain.values())
    return {
        name: short
        if taken[short.lower()] == 1 and short and len(short) <= _LONGEST
        else f"{short[:_LONGEST]}-{digest(name)[:8]}"
        for name, short in plain.items()
    }


def _plain(name: str, *, dots: bool) -> str:
    parts = [_UNSAFE.sub("_", part) for part in name.split(".")]
    return ("." if dots else "_").join(parts).lstrip(".")
