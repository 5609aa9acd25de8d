"""Names of files and objects that people give: patterns, which are no inputs, and names for ids.

Patterns such as ``clips/**/*.mp4`` mean over names of objects what they mean to `glob.glob` for files.
"""

from __future__ import annotations

import fnmatch
import functools
import glob
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable

from reelwright.storage.digests import digest
from reelwright.storage.errors import ConfigError

_Parts = tuple[re.Pattern[str] | None, ...]  # None: `**`, any number of folders
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")
_LONGEST = 80
_PARTIAL = frozenset(
    [".aria2", ".crdownload", ".download", ".filepart", ".opdownload", ".part", ".partial", ".tmp", ".ytdl"]
)
_OF_THE_SYSTEM = frozenset(["thumbs.db", "desktop.ini", "ehthumbs.db"])  # of Windows; those of others are hidden
_OWN = ".reelwright"
_SHOWN = 3


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


def is_text(name: str) -> bool:
    """Whether a name can be written as UTF-8; one of a file with other bytes has them as lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(name: str) -> str:
    r"""A name for people, bytes that are not UTF-8 as ``\xe9``."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def inputs_among(
    names: Iterable[str], *, folder: str, is_wanted: Callable[[str], bool], left_out: list[str]
) -> list[str]:
    """Those names below ``folder`` that are inputs; a line for each reason why others are not goes to ``left_out``.

    ``is_wanted`` says by the name whether something is an input: what is hidden or not whole is told of only then.
    """
    kept: list[str] = []
    others: dict[str, list[str]] = defaultdict(list)
    is_folder_text = is_text(folder)
    for name in names:
        reason = _reason(name) if is_folder_text and is_text(name) else _NOT_UTF8
        if reason is None:
            kept += [name] if is_wanted(name) else []
        elif is_wanted(name.rpartition(".")[0] if reason == _NOT_WHOLE else name) and _OWN not in name.split("/"):
            others[reason].append(name)
    for reason, found in others.items():
        first = ", ".join(shown(name if is_folder_text else f"{folder}/{name}") for name in found[:_SHOWN])
        more = f" and {len(found) - _SHOWN:,} more" if len(found) > _SHOWN else ""
        left_out.append(f"left out: {first}{more}: {reason}")
    return kept


def _reason(name: str) -> str | None:
    """Why something of this name is no input, whatever it holds; None: it may be one."""
    parts = name.split("/")
    if any(part.startswith(".") or part == "__MACOSX" for part in parts):
        return _HIDDEN
    if parts[-1].lower() in _OF_THE_SYSTEM:
        return _SYSTEM
    return _NOT_WHOLE if any(parts[-1].lower().endswith(ending) for ending in _PARTIAL) else None


_NOT_UTF8 = "not UTF-8, so no table can hold the name. Rename, as `convmv -f latin1 -t utf-8 --notest` does"
_HIDDEN = "hidden, as what macOS writes beside files (._NAME). Rename what is meant to be used"
_SYSTEM = "written by the system"
_NOT_WHOLE = "named as a download that has not ended. Finish it, or remove it"


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
