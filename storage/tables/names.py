"""Names: files for ids, of one video only and safe; and which names below a folder are no inputs, and why."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable

from reelwright.storage.digests import digest

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
    return name.isascii() or not any("\ud800" <= sign <= "\udfff" for sign in name)


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
