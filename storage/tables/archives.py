"""Unpack archives that somebody else made: nothing leads out of the folder, no links, and limits that are kept.

What an archive says of itself is checked before the first byte is written, what it really holds while it is written.
"""

from __future__ import annotations

import shutil
import stat
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Self, cast

from reelwright.storage.errors import InputError
from reelwright.storage.files import replacing_folder

ZIP_SUFFIXES = (".zip",)
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
FOREIGN_SUFFIXES = (".rar", ".7z")  # need programs of their own
_ENTRY = b"PK\x01\x02"  # begins each entry of the directory of a zip
_ZIP64_BYTES = 76  # two records of zip64 that may lie between the directory and the end record
_COPIED_BYTES = 1 << 20
_DIRECTORY_BYTES = 512  # of the directory of a zip, for each entry that is allowed
_END_BYTES = 22 + (1 << 16)  # the end record of a zip, and the longest comment behind it
# The end of a tar is a block of zeros; a file that just stops was cut.
_TarHeaderError, _TarReadError = tarfile.HeaderError, tarfile.ReadError
_EndOfTar: type[Exception] = tarfile.EOFHeaderError  # type: ignore[attr-defined]
_NAME_TYPES = frozenset({b"L", b"K", b"x", b"g", b"X"})  # long names and extended headers
_NAME_BYTES = 1 << 16
_BLOCK_BYTES = 512
_WITH_CONTENT = _NAME_TYPES | {b"0", b"\0", b"7"}  # links, devices and folders have none
_BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError, ValueError, NotImplementedError)


@dataclass(frozen=True, kw_only=True)
class ArchiveLimits:
    """What one archive may hold."""

    max_entries: int = 500_000
    max_bytes: int = 500 << 30  # of all files together, unpacked


def is_archive(path: Path) -> bool:
    """Whether `extract` knows this kind."""
    return path.name.lower().endswith(ZIP_SUFFIXES + TAR_SUFFIXES)


def extract(path: Path, folder: Path, limits: ArchiveLimits) -> int:
    """Unpack into ``folder``, which appears when all is written; returns the number of files.

    Raises InputError for names that lead out, links, devices, encrypted or doubled entries, more entries or bytes than
    allowed, sizes that are not what was claimed, and damaged archives; then nothing stays behind.
    """
    unpack = _unzip if path.name.lower().endswith(ZIP_SUFFIXES) else _untar
    try:
        with replacing_folder(folder) as temporary:
            return unpack(path, temporary, limits)
    except InputError:
        raise
    except _BROKEN as error:
        raise InputError(
            f"{path}: cannot be unpacked: {error or type(error).__name__}. Fetch the archive again."
        ) from error


def safe_name(name: str, *, archive: Path) -> PurePosixPath:
    """The path of an entry below the folder. Raises InputError for one that could lead anywhere else."""
    path = PurePosixPath(name)
    parts = [part for part in path.parts if part != "."]
    is_wrong = path.is_absolute() or ".." in parts or "\\" in name or ":" in name or "\0" in name
    if is_wrong or not parts:
        raise InputError(f"{archive}: entry {name!r} leads out of the folder; this archive is not to be trusted.")
    return PurePosixPath(*parts)


def _unzip(path: Path, folder: Path, limits: ArchiveLimits) -> int:
    _check_directory(path, limits)
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        names = [safe_name(entry.filename, archive=path) for entry in entries]
        for entry in entries:
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
                raise InputError(f"{path}: entry {entry.filename!r} is a link or a device; only files are unpacked.")
            if entry.flag_bits & 1:
                raise InputError(f"{path}: entry {entry.filename!r} is encrypted; unpack the archive yourself.")
        _check_claims(path, len(entries), sum(entry.file_size for entry in entries), names, limits)
        files = [(entry, name) for entry, name in zip(entries, names, strict=True) if not entry.is_dir()]
        for entry, name in files:
            with archive.open(entry) as source:
                _copy(source, folder / name, size=entry.file_size, archive=path)
    return len(files)


def _untar(path: Path, folder: Path, limits: ArchiveLimits) -> int:
    """A tar has no directory, so it is read twice: once to check every entry, then to unpack."""
    sizes: dict[PurePosixPath, int] = {}
    with tarfile.open(path, "r:*", tarinfo=_StrictInfo) as archive:
        count = _count_headers(cast("IO[bytes]", archive.fileobj), limits.max_entries)
    _check_claims(path, count, 0, [], limits)
    with tarfile.open(path, "r:*", tarinfo=_StrictInfo) as archive:
        num_bytes = 0
        for number, (entry, name) in enumerate(_entries(archive, path), start=1):
            num_bytes += entry.size
            if number > limits.max_entries or num_bytes > limits.max_bytes or name in sizes:
                _check_claims(path, number, num_bytes, [name, *sizes], limits)
            if not entry.isdir():
                sizes[name] = entry.size
    _check_claims(path, len(sizes), num_bytes, [], limits)
    with tarfile.open(path, "r:*", tarinfo=_StrictInfo) as archive:
        for entry, name in _entries(archive, path):
            source = None if entry.isdir() else archive.extractfile(entry)
            if source is not None:
                with source:
                    _copy(source, folder / name, size=sizes[name], archive=path)
    return len(sizes)


def _count_headers(file: IO[bytes], limit: int) -> int:
    """Entries of a tar up to one more than ``limit``: tarfile needs a minute for what takes seconds here.

    The count ends at the first header that is not plain; whether the archive is right is not told here.
    """
    file.seek(0)
    count = 0
    while count <= limit and len(header := file.read(_BLOCK_BYTES)) == _BLOCK_BYTES:
        content_bytes = _content_bytes(header)
        if content_bytes is None:
            break
        padded = -(-content_bytes // _BLOCK_BYTES) * _BLOCK_BYTES
        if header[156:157] in _NAME_TYPES:
            if content_bytes > _NAME_BYTES or b"size=" in file.read(padded):  # one that replaces the next header's
                break
        else:
            count += 1
            file.seek(padded, 1)
    return count


def _content_bytes(header: bytes) -> int | None:
    """What follows a header of a tar; None where it is no plain one."""
    try:
        size, checksum = (int(header[start:stop].strip(b" \0"), 8) for start, stop in ((124, 136), (148, 156)))
    except ValueError:
        return None
    if checksum != sum(header) - sum(header[148:156]) + 8 * ord(" "):  # its own eight bytes count as spaces
        return None
    return size if header[156:157] in _WITH_CONTENT else 0


def _entries(archive: tarfile.TarFile, path: Path) -> Iterator[tuple[tarfile.TarInfo, PurePosixPath]]:
    """Files and folders one by one, each with the name it gets. Raises InputError for anything else."""
    for entry in _members(archive):
        if entry.isdir() and entry.name in {".", "./"}:
            continue
        if not (entry.isdir() or entry.isreg()) or entry.issparse():
            raise InputError(f"{path}: entry {entry.name!r} is a link, a device or sparse; only files are unpacked.")
        yield entry, safe_name(entry.name, archive=path)


class _StrictInfo(tarfile.TarInfo):
    """tarfile takes a damaged or cut header behind the first entry for the end of the archive; here it is an error."""

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tarfile)
        except _EndOfTar:
            raise
        except _TarHeaderError as error:
            raise _TarReadError(f"the header of an entry is damaged or cut off ({error})") from error

    def _proc_member(self, tarfile: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type[:1] in _NAME_TYPES and self.size > _NAME_BYTES:  # is read into memory whole
            raise _TarReadError(f"a name or header of {self.size:,} bytes")
        member: Any = super()._proc_member(tarfile)  # type: ignore[misc]
        return cast("_StrictInfo", member)


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Entries one by one; tarfile would remember them all."""
    while (entry := archive.next()) is not None:
        archive.members = []  # type: ignore[attr-defined]
        yield entry


def _check_directory(path: Path, limits: ArchiveLimits) -> None:
    """Refuse a zip by its end record, before its directory is read: zipfile reads that whole into memory."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        start = max(0, size - _END_BYTES)
        file.seek(start)
        tail = file.read()
        found = tail.rfind(b"PK\x05\x06")
        if found < 0:
            raise InputError(f"{path}: is no zip archive, or its end is missing. Fetch it again.")
        count, directory_bytes = (
            int.from_bytes(tail[found + at : found + to], "little") for at, to in ((10, 12), (12, 16))
        )
        locator = tail.rfind(b"PK\x06\x07", 0, found)
        if locator >= 0:  # zip64: the true numbers stand elsewhere
            file.seek(int.from_bytes(tail[locator + 8 : locator + 16], "little"))
            record = file.read(56)
            count, directory_bytes = (int.from_bytes(record[at : at + 8], "little") for at in (32, 40))
        if directory_bytes <= limits.max_entries * _DIRECTORY_BYTES:
            file.seek(max(0, size - len(tail) + found - directory_bytes - _ZIP64_BYTES))
            count = max(count, _count(file, _ENTRY))  # the end record may claim fewer than there are
    if count > limits.max_entries or directory_bytes > limits.max_entries * _DIRECTORY_BYTES:
        raise InputError(
            f"{path}: {count:,} entries in a directory of {directory_bytes:,} bytes; at most {limits.max_entries:,} "
            "are unpacked (--max-entries)."
        )


def _count(file: IO[bytes], wanted: bytes) -> int:
    """How often ``wanted`` occurs from here to the end, a block in memory at a time."""
    total, rest = 0, b""
    while block := file.read(_COPIED_BYTES):
        total += (rest + block).count(wanted)
        rest = block[-(len(wanted) - 1) :]
    return total


def _check_claims(
    path: Path, num_entries: int, total: int, names: Sequence[PurePosixPath], limits: ArchiveLimits
) -> None:
    if num_entries > limits.max_entries:
        raise InputError(
            f"{path}: more than {limits.max_entries:,} entries ({num_entries:,}); allow more with --max-entries if you "
            "trust it."
        )
    free = shutil.disk_usage(path.parent).free
    if total > limits.max_bytes:
        raise InputError(
            f"{path}: {total:,} bytes unpacked, more than the {limits.max_bytes:,} allowed; allow more with "
            "--max-gigabytes if you trust it."
        )
    if total > free:
        raise InputError(f"{path}: {total:,} bytes unpacked, but only {free:,} are free on the disk.")
    if len(set(names)) != len(names):
        doubled = Counter(names).most_common(1)[0][0]
        raise InputError(f"{path}: entry {str(doubled)!r} is there twice; one would replace the other.")


def _copy(source: IO[bytes], target: Path, *, size: int, archive: Path) -> None:
    """Write a file of exactly ``size`` bytes, owned and readable as any new file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with target.open("xb") as file:
        while block := source.read(_COPIED_BYTES):
            written += len(block)
            if written > size:
                break
            file.write(block)
    if written != size:
        raise InputError(
            f"{archive}: {target.name!r} claims {size:,} bytes and holds {'more' if written > size else written}."
        )
