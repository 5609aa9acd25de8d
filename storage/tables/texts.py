"""Texts and names that people write: how a text is encoded, file names for ids, and which files are no inputs.

The encoding is UTF-8 or what a byte-order mark says, and is never guessed.
"""

from __future__ import annotations

import codecs
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

from reelwright.storage.digests import digest
from reelwright.storage.errors import InputError
from reelwright.storage.ledger.digest_cache import Snapshot

_MARKS = {  # UTF-32 first: its mark begins with that of UTF-16
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def read_text(path: Path) -> str:
    """A text that people wrote: UTF-8, or UTF-16 or UTF-32 where a byte-order mark says so; without the mark.

    Raises InputError for a missing file, and for bytes of another encoding, which are not guessed, with their place.
    """
    data = read_bytes(path)
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8")
    if b"\0" in data and encoding.startswith("utf-8"):
        row = data[: data.index(b"\0")].count(b"\n") + 1
        raise InputError(f"{path}:{row}: {_NUL}")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError(_not_text(path, data, error)) from None
    for sign, what in (("\0", _NUL), ("\ufeff", _JOINED)):
        if sign in text:
            row = text[: text.index(sign)].count("\n") + 1
            raise InputError(f"{path}:{row}: {what}")
    return text


def read_bytes(path: Path) -> bytes:
    """All of a file, in one state. Raises InputError."""
    try:
        snapshot = Snapshot.of(path)
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise InputError(f"{path}: no such file. Give a .csv, .tsv or .parquet table") from None
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}. Look at its mode and owner, or at the disk"
        ) from None
    if not snapshot.is_same():
        raise InputError(snapshot.changed_message)
    return data


def _not_text(path: Path, data: bytes, error: UnicodeDecodeError) -> str:
    start = data.rfind(b"\n", 0, error.start) + 1
    row = data.count(b"\n", 0, error.start) + 1
    if error.encoding != "utf-8":
        return f"{path}:{row}: begins as {error.encoding} but is not: {error.reason}. Save it as UTF-8"
    byte = data[error.start : error.start + 1]
    guess = byte.decode("cp1252", errors="replace")
    return (
        f"{path}:{row}: byte {error.start - start + 1} of the row (0x{byte.hex().upper()}) is not UTF-8; in "
        f"Windows-1252 it would be {guess!r}. Save the file as UTF-8, or: "
        f"iconv -f WINDOWS-1252 -t UTF-8 {path.name} > utf8-{path.name}"
    )


_NUL = (
    "holds a NUL, which no text has. Is it UTF-16 without its mark? Save it as UTF-8; else it is damaged, or no table"
)
_JOINED = "a byte-order mark stands inside the text: files were joined? Remove it, and a second header"

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
