"""What is known of files already: content digests by path and stat, and probes of videos by content digest.

Reading a digest back costs one stat, so that 100,000 unchanged videos are not read again.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa

from reelwright.storage.digests import file_digest
from reelwright.storage.files import read_table, write_table

Stamp = tuple[int, int, int]  # size in bytes, mtime in ns, inode; of a folder: of all its files together

_FILES_SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("size", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("inode", pa.uint64()),
        ("quick", pa.bool_()),
        ("digest", pa.string()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class VideoProbe:
    """What a video's container says; ``status`` other than ok says why it cannot be used."""

    digest: str
    status: str = "ok"
    cause: str = ""
    message: str = ""
    duration_seconds: float = 0.0  # of the video stream, from its first frame to the end of its last
    num_frames: int = 0  # counted, not taken from the header
    fps: float = 0.0  # average
    height: int = 0  # pixels, upright
    width: int = 0
    codec: str = ""
    rotation: int = 0  # degrees clockwise that were applied to make it upright
    start_seconds: float = 0.0  # presentation time of the first frame
    variable_frame_rate: bool = False


_PROBES_SCHEMA = pa.schema(
    [
        ("digest", pa.string()),
        ("status", pa.string()),
        ("cause", pa.string()),
        ("message", pa.string()),
        ("duration_seconds", pa.float64()),
        ("num_frames", pa.int64()),
        ("fps", pa.float64()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("codec", pa.string()),
        ("rotation", pa.int32()),
        ("start_seconds", pa.float64()),
        ("variable_frame_rate", pa.bool_()),
    ]
)


def stamp(path: Path) -> Stamp:
    """Size, time of change and inode. Raises OSError when the path is not there."""
    status = os.stat(path)  # noqa: PTH116 - 100,000 calls a run; Path.stat costs a third more
    if not path.is_dir():
        return status.st_size, status.st_mtime_ns, status.st_ino
    files = [entry.stat() for entry in os.scandir(path) if entry.is_file()]
    return (
        sum(file.st_size for file in files),
        max([status.st_mtime_ns, *(file.st_mtime_ns for file in files)]),
        status.st_ino,
    )


class KnownFiles:
    """The table of file digests in a store (``files.parquet``); `save` keeps what was added."""

    def __init__(self, table: Path) -> None:
        self._path = table
        self._entries: dict[str, tuple[Stamp, bool, str]] = {}
        self._changed: set[str] = set()
        if table.exists():
            columns = read_table(table).to_pydict()
            stamps = zip(columns["size"], columns["mtime_ns"], columns["inode"], strict=True)
            self._entries = dict(
                zip(columns["path"], zip(stamps, columns["quick"], columns["digest"], strict=True), strict=True)
            )

    @property
    def entries(self) -> Mapping[str, tuple[Stamp, bool, str]]:
        """Stamp, whether quick, and digest by path."""
        return self._entries

    def get(self, path: Path, *, quick: bool = False) -> str | None:
        """The digest of a file that is as it was when it was read; None when it is new, changed or gone."""
        entry = self._entries.get(str(path))
        if entry is None or entry[1] != quick:
            return None
        try:
            return entry[2] if stamp(path) == entry[0] else None
        except OSError:
            return None

    def digest(self, path: Path, *, quick: bool = False) -> str:
        """The digest, read from the file when it is not known. Raises OSError when the file cannot be read."""
        known = self.get(path, quick=quick)
        if known is None:
            before = stamp(path)
            known = file_digest(path, quick=quick)
            self.add(path, known, before, quick=quick)
        return known

    def add(self, path: Path, file_digest: str, file_stamp: Stamp, *, quick: bool = False) -> None:
        """Note a digest read from a file that had ``file_stamp`` before reading."""
        self._entries[str(path)] = (file_stamp, quick, file_digest)
        self._changed.add(str(path))

    def save(self) -> None:
        """Write what was added; what others added to the table in between is kept."""
        if not self._changed:
            return
        merged = dict(KnownFiles(self._path).entries)
        merged.update({path: self._entries[path] for path in self._changed})
        rows = [
            {"path": path, "size": size, "mtime_ns": mtime, "inode": inode, "quick": quick, "digest": known}
            for path, ((size, mtime, inode), quick, known) in sorted(merged.items())
        ]
        write_table(self._path, pa.Table.from_pylist(rows, schema=_FILES_SCHEMA))
        self._changed.clear()


class KnownProbes:
    """The table of video probes in a store (``videos.parquet``), by content digest."""

    def __init__(self, table: Path) -> None:
        self._path = table

    def load(self, columns: Iterable[str] | None = None) -> dict[str, dict[str, object]]:
        """Probe fields by digest; only ``columns`` (and the digest) when given."""
        if not self._path.exists():
            return {}
        names = None if columns is None else ["digest", *columns]
        table = read_table(self._path, names).to_pydict()
        fields = list(table)
        return {
            values[0]: dict(zip(fields, values, strict=True))
            for values in zip(*(table[name] for name in fields), strict=True)
        }

    def add(self, probes: Mapping[str, VideoProbe]) -> None:
        """Add probes, or replace those of the same content."""
        if probes:
            merged = self.load()
            merged.update({name: asdict(probe) for name, probe in probes.items()})
            rows = [merged[name] for name in sorted(merged)]
            write_table(self._path, pa.Table.from_pylist(rows, schema=_PROBES_SCHEMA))
