"""Texts that people write: the encoding is UTF-8 or what a byte-order mark says, and is never guessed."""

from __future__ import annotations

import codecs
from pathlib import Path

from reelwright.storage.errors import InputError
from reelwright.storage.ledger.snapshots import Snapshot

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
