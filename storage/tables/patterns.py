"""Patterns such as ``clips/**/*.mp4`` over names of objects, with the meaning that `glob.glob` has for files."""

from __future__ import annotations

import fnmatch
import functools
import glob
import re
from collections.abc import Iterable

from reelwright.storage.errors import ConfigError

_Parts = tuple[re.Pattern[str] | None, ...]  # None: `**`, any number of folders


def is_pattern(text: str) -> bool:
    """Whether a text may fit several names, as ``*.mp4`` does."""
    return glob.has_magic(text)


def split_pattern(url: str) -> tuple[str, str]:
    """The folder below which all matches of a URL lie, and the pattern from there on.

    Raises ConfigError where the bucket itself is a pattern.
    """
    scheme, _, rest = url.partition("://")
    parts = rest.split("/")
    fixed = next((number for number, part in enumerate(parts) if is_pattern(part)), len(parts) - 1)
    if not fixed:
        raise ConfigError(f"{url}: name the bucket; only what comes after it may be a pattern")
    return f"{scheme}://{'/'.join(parts[:fixed])}", "/".join(parts[fixed:])


def matching(names: Iterable[str], pattern: str) -> list[str]:
    """Those names that fit, sorted folder by folder as paths are.

    ``*`` and ``?`` stay within a folder, ``**`` goes down, and what begins with a dot must be named with it.
    """
    wanted = tuple(_compiled(part) for part in pattern.split("/"))
    return sorted((name for name in names if _fits(name.split("/"), wanted)), key=in_folders)


def in_folders(name: str) -> list[str]:
    """What names are sorted by, so that objects come in the order of paths: ``a/b`` before ``a-b``."""
    return name.split("/")


def folders_of(names: Iterable[str]) -> set[str]:
    """All folders that names lie in."""
    found: set[str] = set()
    for name in names:
        folder = name.rpartition("/")[0]
        while folder and folder not in found:
            found.add(folder)
            folder = folder.rpartition("/")[0]
    return found


@functools.lru_cache(maxsize=256)
def _compiled(part: str) -> re.Pattern[str] | None:
    if part == "**":
        return None
    hidden = "" if part.startswith(".") else r"(?!\.)"
    return re.compile(hidden + fnmatch.translate(part))


def _fits(parts: list[str], wanted: _Parts) -> bool:
    if not wanted:
        return not parts
    first, *rest = wanted
    if first is None:
        is_shown = bool(parts) and not parts[0].startswith(".")
        return _fits(parts, tuple(rest)) or (is_shown and _fits(parts[1:], wanted))
    return bool(parts) and first.match(parts[0]) is not None and _fits(parts[1:], tuple(rest))
