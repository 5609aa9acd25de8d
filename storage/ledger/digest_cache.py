"""What is known of files already: content digests by path and stat, and probes of videos by content digest.

Reading a digest back costs one stat, so that 100,000 unchanged videos are not read again. Of objects in buckets, the
version (ETag) takes the place of the stat; where the store itself is in a bucket, theirs are a table of its own, since
paths mean nothing to other machines.
"""

from __future__ import annotations

import contextlib
import functools
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from reelwright.storage.constants import URLS
from reelwright.storage.digests import file_digest, read_sealed, readable
from reelwright.storage.errors import ItemError, StoreError
from reelwright.storage.files import write_sealed
from reelwright.storage.locks.locks import exclusive
from reelwright.storage.store import backend_of, is_url

# Size in bytes, mtime in ns, inode; of a folder: of all its files; of an object: size, 0, the number of its version.
Stamp = tuple[int, int, int]
Columns = dict[str, list[Any]]

_FILE_FIELDS = ("path", "size", "mtime_ns", "inode", "quick", "digest")


_OF_IMAGES = frozenset({"jpeg", "png", "bmp", "webp", "tiff"})  # Pillow's names, as probes of folders have them


class VideoProbe(NamedTuple):
    """What a video's container says; ``status`` other than ok says why it cannot be used.

    A named tuple, as all that there is one of for every video: 100,000 are made in a tenth of a second.
    """

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
    attempts: int = 1  # so often it was tried, where it cannot be used
    is_exact: bool = True  # false: only decoding tells frames and times, and what stands here is about right
    pixel_aspect: float = 1.0  # width of a pixel over its height, upright

    @property
    def is_of_images(self) -> bool:
        """Whether it is a folder of images, whose duration is a guess: decode.image_fps says it."""
        return self.codec in _OF_IMAGES


def stamp(path: str | Path) -> Stamp:
    """Size, time of change and inode. Raises OSError when the path is not there."""
    status = os.stat(path)  # noqa: PTH116 - 100,000 calls a run; Path.stat costs a third more
    if not stat.S_ISDIR(status.st_mode):
        return status.st_size, status.st_mtime_ns, status.st_ino
    files = [entry.stat() for entry in os.scandir(path) if entry.is_file()]
    return (
        sum(file.st_size for file in files),
        max([status.st_mtime_ns, *(file.st_mtime_ns for file in files)]),
        status.st_ino,
    )


class Snapshot(NamedTuple):
    """State of a file, or of a folder of files, when it was looked at: what is read must be what its digest is of.

    snapshot = Snapshot.of(path)    before it is opened; `stamp` is to be that which the digest was made of
    ...                             read
    snapshot.check()                after the last read, before what was read is kept
    """

    path: Path
    stamp: Stamp  # size, mtime_ns, inode
    changed_ns: int  # ctime: it changes too where a file is moved away and back, or gets an older mtime again

    @classmethod
    def of(cls, path: Path | str) -> Snapshot:
        """The state now. Raises OSError when the path is not there."""
        return cls(Path(path), stamp(path), os.stat(path).st_ctime_ns)  # noqa: PTH116 - as in `stamp`

    def is_same(self) -> bool:
        """Whether the path still names the same file with the same state."""
        try:
            return Snapshot.of(self.path) == self
        except OSError:
            return False

    def check(self) -> None:
        """Raise ItemError (``changed``) when the file was written, replaced, moved or removed since."""
        if not self.is_same():
            raise ItemError("changed", self.changed_message)

    @property
    def changed_message(self) -> str:
        """What to say when it is not the same any more."""
        return f"{self.path} changed while it was read, so nothing of it was kept; run again."

    def digest(self, *, quick: bool = False) -> str:
        """The content digest of this state, read once a process. Raises ItemError where it changed since, OSError."""
        return _digest(self, quick)


@functools.lru_cache(maxsize=1024)
def _digest(snapshot: Snapshot, quick: bool) -> str:
    found = file_digest(snapshot.path, quick=quick)
    snapshot.check()
    return found


class KnownFiles:
    """The table of file digests in a store (``files.json``); `save` keeps what was added."""

    def __init__(self, table: Path) -> None:
        self._path = table
        self._entries: dict[str, tuple[Stamp, bool, str]] = {}
        self._changed: set[str] = set()
        self._looked: dict[str, Stamp | None] = {}  # of objects, as they are now
        self._urls = table.with_name(URLS) if backend_of(table).url else table
        self.notes: list[str] = []  # what was damaged, for people
        self._entries = _files_of(_read_columns(table, self.notes))
        if self._urls != table:
            backend_of(table).pull_file(self._urls)
            self._entries |= _files_of(_read_columns(self._urls, self.notes))

    @property
    def entries(self) -> Mapping[str, tuple[Stamp, bool, str]]:
        """Stamp, whether quick, and digest by path."""
        return self._entries

    def get(self, path: str | Path, *, quick: bool = False) -> str | None:
        """The digest of a file that is as it was when it was read; None when it is new, changed or gone."""
        entry = self._entries.get(str(path))
        if entry is None or entry[1] != quick:
            return None
        if str(path) in self._looked:
            return entry[2] if self._looked[str(path)] == entry[0] else None
        try:
            return entry[2] if stamp(path) == entry[0] else None
        except OSError:
            return None

    def get_all(self, paths: Iterable[str], *, quick: bool = False) -> list[str | None]:
        """`get` of many: of 100,000 in two thirds of the time."""
        entries, looked, look = self._entries, self._looked, os.stat
        found: list[str | None] = []
        for path in paths:
            entry = entries.get(path)
            if entry is None or entry[1] != quick or path in looked:
                found.append(None if entry is None else self.get(path, quick=quick))
                continue
            try:
                status = look(path)
            except OSError:
                found.append(None)
                continue
            if stat.S_ISREG(status.st_mode):
                is_same = entry[0] == (status.st_size, status.st_mtime_ns, status.st_ino)
                found.append(entry[2] if is_same else None)
            else:
                found.append(self.get(path, quick=quick))
        return found

    def look(self, urls: Sequence[str]) -> None:
        """See what objects are like now, with few requests; `get` and `is_missing` answer by it."""
        if urls:
            from reelwright.storage.bucket.download_cache import stamps

            self._looked |= stamps(urls)

    def is_missing(self, path: str) -> bool:
        """Whether there is no such file, or no such object when it was looked at."""
        return self._looked[path] is None if path in self._looked else not os.path.exists(path)  # noqa: PTH110

    def digest(self, path: Path, *, quick: bool = False) -> str:
        """The digest, read from the file when it is not known. Raises OSError when the file cannot be read."""
        known = self.get(path, quick=quick)
        if known is None:
            before = stamp(path)
            known = file_digest(path, quick=quick)
            self.add(path, known, before, quick=quick)
        return known

    def add(self, path: Path | str, file_digest: str, file_stamp: Stamp, *, quick: bool = False) -> None:
        """Note a digest read from a file that had ``file_stamp`` before reading."""
        self._entries[str(path)] = (file_stamp, quick, file_digest)
        self._changed.add(str(path))

    def save(self) -> None:
        """Write what was added; what other processes added to the table in between is kept."""
        if not self._changed:
            return
        with _merging(self._path):
            for table in dict.fromkeys((self._path, self._urls)):
                changed = {path for path in self._changed if (self._urls if is_url(path) else self._path) == table}
                if changed:
                    if table != self._path:
                        backend_of(table).pull_file(table)
                    entries = ((path, self._entries[path]) for path in sorted(changed))
                    added = [(path, *stamped, quick, known) for path, (stamped, quick, known) in entries]
                    _write_merged(table, dict(zip(_FILE_FIELDS, zip(*added, strict=True), strict=True)))
        self._changed.clear()
        self.notes.clear()  # what was damaged is written anew


class KnownProbes:
    """The table of video probes in a store (``videos.json``), by content digest."""

    def __init__(self, table: Path) -> None:
        self._path = table
        self.notes: list[str] = []

    def load(self) -> dict[str, VideoProbe]:
        """Probes by digest; `notes` says what was damaged."""
        backend_of(self._path).pull_file(self._path)
        self.notes = []
        columns = _read_columns(self._path, self.notes)
        if not columns:
            return {}
        count, defaults = len(columns["digest"]), VideoProbe._field_defaults
        # A table of an earlier version lacks columns: what they hold by default; of a later one, more are left out.
        rows = zip(*(columns.get(name) or [defaults.get(name)] * count for name in VideoProbe._fields), strict=True)
        return dict(zip(columns["digest"], map(VideoProbe._make, rows), strict=True))

    def add(self, probes: Mapping[str, VideoProbe]) -> None:
        """Add probes, or replace those of the same content."""
        if not probes:
            return
        with _merging(self._path):
            backend_of(self._path).pull_file(self._path)
            added = {digest: probe._replace(digest=digest) for digest, probe in sorted(probes.items())}
            _write_merged(self._path, dict(zip(VideoProbe._fields, zip(*added.values(), strict=True), strict=True)))


@contextlib.contextmanager
def _merging(table: Path) -> Iterator[None]:
    """Let no other process read, merge and write a table of this store meanwhile; held for a second at most."""
    with exclusive(table.parent / "locks" / "files", report=lambda _: None, what=f"writing {table.name}"):
        yield


def _files_of(columns: Columns) -> dict[str, tuple[Stamp, bool, str]]:
    if not columns:
        return {}
    stamps = zip(columns["size"], columns["mtime_ns"], columns["inode"], strict=True)
    return dict(zip(columns["path"], zip(stamps, columns["quick"], columns["digest"], strict=True), strict=True))


def _read_columns(path: Path, notes: list[str]) -> Columns:
    """Columns by name, all of one length; none where there is no table.

    None either where it is damaged, which goes to ``notes``: it is a cache. JSON and not Parquet: 100,000 rows read as
    fast, and nothing heavy is imported for them.
    """
    try:
        with readable(path):
            columns: Columns = read_sealed(path)["columns"]
            if len({len(column) for column in columns.values()}) > 1:
                raise ValueError("its columns differ in length")
            return columns if any(columns.values()) else {}
    except FileNotFoundError:
        return {}
    except StoreError:
        notes.append(f"{path} was damaged: what it knew of files is read again")
        return {}


def _write_merged(path: Path, added: Mapping[str, Sequence[Any]]) -> None:
    """Add rows to a table, or replace those with the same entry in the first column; others and their columns stay."""
    before = _read_columns(path, [])
    (name, names), *_ = added.items()
    new = dict.fromkeys(names)
    kept = [place for place, known in enumerate(before.get(name, ())) if known not in new]
    num_rows = len(before.get(name, ()))
    columns = {}
    for column in dict.fromkeys((*added, *before)):
        old = before.get(column) or [_DEFAULTS.get(column)] * num_rows
        columns[column] = [*(old[place] for place in kept), *(added.get(column) or [None] * len(names))]
    order = sorted(range(len(columns[name])), key=columns[name].__getitem__)
    rows = {column: [values[place] for place in order] for column, values in columns.items()}
    write_sealed(path, {"columns": rows}, indent=None)


_DEFAULTS = VideoProbe._field_defaults  # of columns that a table of an earlier release lacks
