"""Seals: a file that carries the digest of its own bytes, so that one flipped bit anywhere in it is noticed.

The file holds the text `reelwright-seal:` and 32 hexadecimal digits, somewhere: a field of a JSON object, an entry of a
Parquet file's or a safetensors file's metadata. The digits are the blake3 of the whole file with 32 zeros in their
place. Every program reads such a file as before, and it is written in one step, which a second file of digests is not.
"""

from __future__ import annotations

import mmap
from pathlib import Path

from blake3 import blake3

_MARK = "reelwright-seal:"
_DIGITS = 32
UNSEALED = _MARK + "0" * _DIGITS  # what is written before `seal` fills in the digits
SEAL = "seal"  # the usual name of the field
_TAILS = {".parquet": (b"PAR1",), ".json": (b"}", b"}\n")}  # how a file that is whole ends


def seal(path: Path) -> None:
    """Fill in the digits of a file that holds UNSEALED. Raises ValueError when it does not."""
    found = _read(path)
    if found is None:
        raise ValueError(f"{path} holds no {UNSEALED!r} to fill in")
    start, _, digest = found
    with path.open("r+b") as file:
        file.seek(start)
        file.write(digest.encode())


def broken_seal(path: Path) -> str | None:
    """Why a file is not as it was sealed, as `Problem` kinds say it: missing, truncated, altered; None when it is."""
    if not path.is_file():
        return "missing"
    found = _read(path) if path.stat().st_size else None
    if found is not None and found[1] == found[2]:
        return None
    tails = _TAILS.get(path.suffix)
    return "truncated" if path.stat().st_size == 0 or (tails and not _tail(path).endswith(tails)) else "altered"


def is_sealed(content: bytes) -> bool:
    """Whether the bytes of a file are those that were sealed."""
    found = _read_bytes(content)
    return found is not None and found[1] == found[2]


def has_seal(path: Path) -> bool:
    """Whether the mark is there, whatever its digits."""
    return path.is_file() and path.stat().st_size > 0 and _read(path) is not None


def _read(path: Path) -> tuple[int, str, str] | None:
    """Where the digits begin, the digits, and what they should be; None without a mark."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return _read_bytes(content)


def _read_bytes(content: bytes | mmap.mmap) -> tuple[int, str, str] | None:
    mark = content.rfind(_MARK.encode())
    start = mark + len(_MARK)
    if mark < 0 or start + _DIGITS > len(content):
        return None
    with memoryview(content) as view:
        hasher = blake3(view[:start])
        hasher.update(b"0" * _DIGITS)
        hasher.update(view[start + _DIGITS :])
    return start, content[start : start + _DIGITS].decode(errors="replace"), hasher.hexdigest()[:_DIGITS]


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(-min(8, path.stat().st_size), 2)
        return file.read()
