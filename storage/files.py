"""Writing files and folders so that a killed run leaves nothing that looks finished: temporary name, then replace."""

from __future__ import annotations

import contextlib
import io
import json
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reelwright.storage.backend import remove_local
from reelwright.storage.constants import PARTIAL, TEMPORARY
from reelwright.storage.digests import SEAL, UNSEALED, seal
from reelwright.storage.heartbeat import check_held
from reelwright.storage.store import backend_of
from reelwright.storage.store_errors import named

if TYPE_CHECKING:
    import pyarrow as pa


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
