"""Working copies of stores in buckets: whose they are, and what of the bucket they hold.

The bucket holds the same layout as a folder would, and it alone counts; each machine works on a local copy of what it
needs (storage/urls.py says where). All of our code goes on reading and writing local paths; paths in no working copy
cost nothing here.

    storage/sharing.py    what is written locally is sent to the bucket, completion last
    storage/bringing.py   what is read is brought from there first
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reelwright.storage import remote
from reelwright.storage.kinds import GROUPED, RECORDED
from reelwright.storage.reserved import PARTIAL, SCHEMA, TEMPORARY, URLS, VIDEOS
from reelwright.storage.urls import owner_of, working_copy

_SHARED = frozenset({*GROUPED, *RECORDED, "nodes", "weights", "projects", "logs", "synthetic"})
_TABLES = frozenset({VIDEOS, URLS, SCHEMA})
_UNFINISHED = (TEMPORARY, PARTIAL)
LAST = ("zarr.json", "record.json", "model.safetensors")  # what says that the rest is there
_SEEN = ".seen"
_connected: set[str] = set()


@dataclass(frozen=True)
class Mirror:
    """A working copy and the store that it is one of."""

    root: Path
    url: str

    def url_of(self, path: Path) -> str:
        """Where a path of the working copy lies in the bucket."""
        relative = path.relative_to(self.root).as_posix()
        return self.url.rstrip("/") if relative == "." else f"{self.url.rstrip('/')}/{relative}"

    def is_shared(self, path: Path) -> bool:
        """Whether others are to see it; what is unfinished or of this machine only is not."""
        parts = path.relative_to(self.root).parts
        if not parts or any(part.startswith(_UNFINISHED) for part in parts):
            return False
        return parts[0] in _SHARED or parts in {(name,) for name in _TABLES}


def mirror_of(path: Path) -> Mirror | None:
    """The working copy that ``path`` lies in; None for paths in no working copy, which cost nothing here."""
    found = owner_of(path)
    return None if found is None else Mirror(*found)


def to_plain(path: Path) -> list[str]:
    """A path as plain data that `of_plain` understands on every machine: of a working copy its store and the rest."""
    mirror = mirror_of(path)
    return ["", str(path)] if mirror is None else [mirror.url, path.relative_to(mirror.root).as_posix()]


def of_plain(written: Sequence[str]) -> Path:
    """The path on this machine that `to_plain` told of on another."""
    url, name = written
    return working_copy(url) / name if url else Path(name)


def connect(root: Path) -> None:
    """Raise ConfigError where a store's bucket is not there or may not be read."""
    mirror = mirror_of(root)
    if mirror is not None and mirror.url not in _connected:
        remote.check_bucket(mirror.url)
        _connected.add(mirror.url)


def check_writable(root: Path) -> None:
    """Raise ConfigError where a store's bucket may not be written, or takes no exclusive writes, which locks need."""
    mirror = mirror_of(root)
    if mirror is not None:
        remote.check_bucket(mirror.url)
        remote.check_creates_once(mirror.url)


def files_below(folder: Path) -> list[Path]:
    """All files below a folder, sorted."""
    return sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []


def is_unfinished(file: Path, folder: Path) -> bool:
    """Whether a file below ``folder`` has not got its own name yet."""
    return any(part.startswith(_UNFINISHED) for part in file.relative_to(folder).parts)


def _seen_file(mirror: Mirror, place: Path) -> Path:
    return mirror.root / _SEEN / f"{place.relative_to(mirror.root).as_posix().replace('/', '%')}.json"


def load_seen(mirror: Mirror, place: Path) -> dict[str, str]:
    """Versions in the bucket of what was brought."""
    try:
        seen: dict[str, str] = json.loads(_seen_file(mirror, place).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return seen if isinstance(seen, dict) else {}


def save_seen(mirror: Mirror, place: Path, seen: dict[str, str]) -> None:
    """Remember them."""
    path = _seen_file(mirror, place)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex[:12]}-{path.name}")
    temporary.write_text(json.dumps(seen), encoding="utf-8")
    temporary.replace(path)


def forget_seen(mirror: Mirror, path: Path) -> None:
    """A file was written here: what the bucket has of it is another version from now on."""
    with contextlib.suppress(FileNotFoundError):
        _seen_file(mirror, path).unlink()
