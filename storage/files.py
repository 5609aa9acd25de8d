"""Writing files and folders so that a killed run leaves nothing that looks finished: temporary name, then replace.

Seals: a file that carries the digest of its own bytes, so that one flipped bit anywhere in it is noticed.

The file holds the text `reelwright-seal:` and 32 hexadecimal digits, somewhere: a field of a JSON object, an entry of a
Parquet file's or a safetensors file's metadata. The digits are the blake3 of the whole file with 32 zeros in their
place. Every program reads such a file as before, and it is written in one step, which a second file of digests is not.
"""

from __future__ import annotations

import contextlib
import io
import json
import mmap
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from blake3 import blake3

from reelwright.storage.backend import remove_local
from reelwright.storage.constants import PARTIAL, TEMPORARY
from reelwright.storage.heartbeat import check_held
from reelwright.storage.store import backend_of
from reelwright.storage.store_errors import damaged, named, readable

if TYPE_CHECKING:
    import pyarrow as pa


_MARK = "reelwright-seal:"
_DIGITS = 32
UNSEALED = _MARK + "0" * _DIGITS  # what is written before `seal` fills in the digits
SEAL = "seal"  # the usual name of the field
_TAILS = {".parquet": (b"PAR1",), ".json": (b"}", b"}\n")}  # how a file that is whole ends


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path``; when the block ends well it takes the place of ``path`` in one step.

    Works for a file and, where nothing is there yet, for a folder. Raises LostLockError where this process must not
    write to the store of ``path`` any more.
    """
    with named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex[:12]}-{path.name}")
    with named(path):
        try:
            yield temporary
            check_held(path)
            backend_of(path).push(path, temporary)
            os.replace(temporary, path)  # noqa: PTH105 - the one atomic step, named as the system call it is
        finally:
            remove_local(temporary)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text in one step."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_if_other(path: Path, text: str) -> None:
    """The same, but an equal file stays untouched, so that its times do not change either."""
    backend_of(path).pull_file(path)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)


def write_json(path: Path, value: object) -> None:
    """Write indented JSON, keys as given, in one step."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_sealed(path: Path, value: Mapping[str, object], *, indent: int | None = 2) -> None:
    """Write an object as JSON with a field `seal`, in one step, so that `verify` sees every changed byte."""
    with replacing(path) as temporary:
        text = json.dumps({**value, SEAL: UNSEALED}, indent=indent, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")
        seal(temporary)


def read_sealed(path: Path) -> dict[str, Any]:
    """The object that `write_sealed` wrote, without its seal. Raises FileNotFoundError, or StoreError when damaged."""
    with readable(path):
        values: dict[str, Any] = json.loads(_intact(path))
        values.pop(SEAL)
        return values


def read_sealed_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """The table that `write_table` wrote, or some of its columns. Raises as `read_sealed`."""
    content = io.BytesIO(_intact(path))
    with readable(path):
        return read_table(content, columns).replace_schema_metadata(None)


def _intact(path: Path) -> bytes:
    content = path.read_bytes()
    if not is_sealed(content):
        raise damaged(path, "its bytes are not those that were written")
    return content


def read_table(path: Path | BinaryIO, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a Parquet file, or some of its columns.

    Raises StoreError for a damaged file; of bytes in memory, which people gave, what pyarrow raises.

    By the file reader: `pyarrow.parquet.read_table` imports pyarrow.dataset, and that pandas. pyarrow is imported
    here: `status` can do without it as long as everything is up to date.
    """
    import pyarrow.parquet as pq

    with readable(path) if isinstance(path, Path) else contextlib.nullcontext(), pq.ParquetFile(path) as file:
        return file.read(columns=None if columns is None else list(columns))


def write_table(path: Path, table: pa.Table) -> None:
    """Write a Parquet file (zstd) in one step; its metadata has an entry `seal`."""
    import pyarrow.parquet as pq

    with replacing(path) as temporary:
        # Page checksums of Parquet leave out the footer; the seal covers every byte.
        sealed = table.replace_schema_metadata({**(table.schema.metadata or {}), SEAL: UNSEALED})
        content = io.BytesIO()  # a writer to a file that cannot be closed complains once more when it is collected
        pq.write_table(sealed, content, compression="zstd")
        temporary.write_bytes(content.getbuffer())
        seal(temporary)


def remove(path: Path) -> None:
    """Remove a file or a folder with all in it, from a store in a bucket too; nothing happens when it is not there."""
    if path.name.startswith(TEMPORARY):
        remove_local(path)
        return
    check_held(path)
    if any(part.startswith(PARTIAL) for part in path.parts):
        remove_local(path)  # of an item that is not whole: on this machine only
    else:
        backend_of(path).delete_trees([path])


def remove_files(paths: Sequence[Path]) -> None:
    """Remove many files at once; nothing happens for those that are not there."""
    if paths:
        check_held(paths[0])
        backend_of(paths[0]).delete(paths)


def folder_bytes(path: Path) -> int:
    """The size of a file, or of all files below a folder, in bytes."""
    if path.is_file():
        return path.stat().st_size
    return sum(entry.stat().st_size for entry in path.rglob("*") if entry.is_file())


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
