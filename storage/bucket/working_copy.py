"""A store in a bucket, and this machine's working copy of what it needs of it.

The bucket holds the same layout as a folder would, and it alone counts: it may have come back empty, or another machine
may have made it anew. So it is asked before anything here is used, once a process for everything until `forget`.

    nodes/<key>/, projects/<name>/   small and changing: made equal to the bucket by `pull`
    frames, embeddings: items        pulled when they are read; what is here is used if the bucket has the very same
    runs, predictions, steps, ...    pulled as wholes; what changed only

Whoever makes a file appear here pushes it, in the order in which things are finished. So what is complete in the bucket
is whole, though nothing there can be renamed.

    item      its files, then its own zarr.json
    run       logs and checkpoints as they come, then the weights
    node      tables, then record.json
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from reelwright.storage.backend import Backend, Found, Skip, is_unfinished, nothing
from reelwright.storage.bucket import remote
from reelwright.storage.bucket.transfer import (
    GoneError,
    download_files,
    download_items,
    files_below,
    has_content,
    replace_below,
)
from reelwright.storage.constants import SCHEMA, URLS, VIDEOS
from reelwright.storage.heartbeat import check_held
from reelwright.storage.kinds import GROUPED, RECORDED

_SHARED = frozenset({*GROUPED, *RECORDED, "nodes", "weights", "projects", "logs"})
_TABLES = frozenset({VIDEOS, URLS, SCHEMA})
_LAST = ("zarr.json", "record.json", "model.safetensors")  # what says that the rest is there
_DEPTH = 3  # area, group, item: below, a zarr.json is that of an array, and completes nothing
_ADDED_TO = frozenset({"runs", "logs"})  # nothing is removed here: these files are pushed later than they are written
_SEEN = ".seen"
_BATCH = 64  # items that are pulled at once
_LISTED_AT_ONCE = 16
_TRIES = 5  # when what was listed is gone, since another machine replaces or removes it just then
_Seen = dict[str, Any]  # name -> version in the bucket, then bytes and time of change (ns) of the file here
_Result = TypeVar("_Result")


def open_bucket(root: Path, url: str) -> Backend:
    """What the store at ``url`` is kept in, as this process knows it; ``root`` is the folder on this machine."""
    return _Bucket(root, url)


class _Bucket(Backend):
    """Each verb does what `Backend` says; what is removed goes from this machine too."""

    look_seconds = 1.0  # each look is a request
    renames = False

    def __init__(self, root: Path, url: str) -> None:
        self._root = root
        self._base = self.url = url.rstrip("/")
        self._pulled: set[tuple[Path, Skip]] = set()  # folders that this process has pulled, and what was left out
        self._same: set[Path] = set()  # files and items that the bucket has just as they are here
        self._is_readable = False

    def name_of(self, path: Path) -> str:
        relative = path.relative_to(self._root).as_posix()
        return self._base if relative == "." else f"{self._base}/{relative}"

    def pull(self, folder: Path, *, skip: Skip = nothing, anew: bool = False) -> None:
        if anew or (folder, skip) not in self._pulled:
            _persist(lambda: self._pull(folder, skip))
            self._pulled.add((folder, skip))

    def pull_file(self, path: Path) -> None:
        if not _persist(lambda: self._pull_file(path)):
            path.unlink(missing_ok=True)

    def forget(self) -> None:
        self._pulled.clear()
        self._same.clear()

    def ensure_local(self, *paths: Path) -> bool:
        for path in paths:
            if not self._is_known(path) and _persist(functools.partial(self._pull_file, path)):
                self._same.add(path)
        return all(path.is_file() and self._is_known(path) for path in paths)

    def ensure_items(self, group: Path, names: Sequence[str]) -> set[str]:
        wanted = dict.fromkeys(names)
        unsure = [name for name in wanted if group / name not in self._same]
        for start in range(0, len(unsure), _BATCH):
            markers = self.read(group / name / "zarr.json" for name in unsure[start : start + _BATCH])
            found = {path.parent.name: content for path, content in markers.items()}
            lacking = {name: text for name, text in found.items() if not has_content(group / name / "zarr.json", text)}
            download_items(self._root, group, self.name_of(group), lacking)
            self._same.update(group / name for name in found)
        return {name for name in wanted if group / name in self._same}

    def items(self, group: Path) -> list[str]:
        names = (name.partition("/") for name in remote.list_objects(self.name_of(group)))
        return sorted(item for item, _, rest in names if rest == "zarr.json")

    def has(self, path: Path) -> bool:
        return remote.look(self.name_of(path)) is not None

    def names(self, folder: Path) -> set[str]:
        return remote.list_names(self.name_of(folder))

    def entries(self, folder: Path, *, signs: str = "") -> Iterator[tuple[str, Found]]:  # noqa: ARG002 - of folders
        yield from remote.list_objects(self.name_of(folder)).items()

    def read(self, paths: Iterable[Path]) -> dict[Path, bytes]:
        urls = {self.name_of(path): path for path in paths}
        return {urls[url]: content for url, content in remote.read_objects(list(urls)).items()}

    def create(self, path: Path, content: bytes = b"") -> bool:
        url = self.name_of(path)  # where an answer was lost, the second try finds what the first one made
        return remote.create_object(url, content) or (bool(content) and remote.read_object(url) == content)

    def write(self, path: Path, content: bytes) -> None:
        remote.write_object(self.name_of(path), content)

    def touch(self, path: Path, content: bytes, version: str | None) -> str | None:
        if version is not None:
            return remote.rewrite_object(self.name_of(path), content, version=version)
        self.write(path, content)
        return ""

    def move(self, path: Path, new: Path) -> bool:
        self.write(new, b"")
        remote.remove_objects([self.name_of(path)])
        return True

    def push(self, path: Path, source: Path | None = None) -> None:
        source, parts = source or path, path.relative_to(self._root).parts
        if not self._is_shared(path):
            return
        if source.is_dir():  # tables or a report that replace others: the record that tells of the old ones goes first
            remote.remove_objects([self.name_of(self._root / "nodes" / path.name / "record.json")])
            replace_below(self.name_of(path), source)
            return
        if (parts[0] == "runs" and len(parts) == 3) or path.name == "state.pt":
            run = self._root.joinpath(*parts[:2])
            self._push_lacking(run, [file for file in run.iterdir() if file.is_file() and file.name not in _LAST])
        remote.upload({source: self.name_of(path)})

    def push_item(self, path: Path, withdraw: Callable[[], None]) -> None:
        replace_below(self.name_of(path), path, last="zarr.json", withdraw=withdraw)

    def push_changed(self, folder: Path) -> None:
        if folder.is_dir():
            self._push_lacking(folder, files_below(folder))

    def free(self, paths: Iterable[Path]) -> None:
        super().delete(path for path in paths if self._is_shared(path))

    def delete(self, paths: Iterable[Path]) -> None:
        wanted = list(paths)
        remote.remove_objects([self.name_of(path) for path in wanted])
        super().delete(wanted)

    def delete_trees(self, paths: Sequence[Path]) -> None:
        with ThreadPoolExecutor(_LISTED_AT_ONCE) as pool:
            urls = [url for found in pool.map(_objects, map(self.name_of, paths)) for url in found]
        first = [url for url in urls if self._completes(url)]
        for path in paths:
            check_held(path)
        remote.remove_objects(first)
        remote.remove_objects(sorted(set(urls).difference(first)))
        super().delete_trees(paths)

    def check_readable(self) -> None:
        if not self._is_readable:
            remote.check_bucket(self._base)
            self._is_readable = True

    def check_writable(self) -> None:
        remote.check_bucket(self._base)
        remote.check_creates_once(self._base)

    def _is_shared(self, path: Path) -> bool:
        """Whether others are to see it; what is unfinished or of this machine only is not."""
        area, *rest = path.relative_to(self._root).parts or ("",)
        return not is_unfinished(path, self._root) and (area in _SHARED or (area in _TABLES and not rest))

    def _completes(self, url: str) -> bool:
        """Whether an item, run or node is complete by this object."""
        *folders, name = url.removeprefix(f"{self._base}/").split("/")
        return name in _LAST and len(folders) <= _DEPTH

    def _is_known(self, path: Path) -> bool:
        return path in self._same or (path.parent, nothing) in self._pulled

    def _pull(self, folder: Path, skip: Skip) -> None:
        found = {name: entry for name, entry in remote.list_objects(self.name_of(folder)).items() if not skip(name)}
        seen = self._load_seen(folder)
        here = {name: _as_seen(folder / name, entry, seen.get(name)) for name, entry in found.items()}
        lacking = sorted(
            (name for name, entry in here.items() if entry is None), key=lambda name: (name in _LAST, name)
        )
        stamps = download_files(self._root, {folder / name: self.name_of(folder / name) for name in lacking})
        if folder.relative_to(self._root).parts[0] not in _ADDED_TO:
            for file in files_below(folder):
                name = file.relative_to(folder).as_posix()
                if name not in found and not skip(name) and not is_unfinished(file, folder):
                    file.unlink(missing_ok=True)
        pulled = {name: [found[name].version, *stamps[folder / name]] for name in lacking}
        now = {name: entry for name, entry in seen.items() if skip(name)} | here | pulled
        if now != seen:
            self._save_seen(folder, now)

    def _pull_file(self, path: Path) -> bool:
        """Pull a file that is new or changed; False where the bucket has none."""
        found = remote.look(self.name_of(path))
        if found is None:
            return False
        if _as_seen(path, found, self._load_seen(path).get("")) is None:
            stamps = download_files(self._root, {path: self.name_of(path)})
            self._save_seen(path, {"": [found.version, *stamps[path]]})
        return True

    def _push_lacking(self, folder: Path, files: Iterable[Path]) -> None:
        there = remote.list_objects(self.name_of(folder))
        lacking = {}
        for file in files:
            entry = there.get(file.relative_to(folder).as_posix())
            if not is_unfinished(file, folder) and (entry is None or remote.holds(entry, file) is False):
                lacking[file] = self.name_of(file)
        remote.upload(lacking)

    def _seen_file(self, place: Path) -> Path:
        return self._root / _SEEN / f"{place.relative_to(self._root).as_posix().replace('/', '%')}.json"

    def _load_seen(self, place: Path) -> _Seen:
        """What was pulled of a folder or file."""
        try:
            seen = json.loads(self._seen_file(place).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        return seen if isinstance(seen, dict) else {}

    def _save_seen(self, place: Path, seen: _Seen) -> None:
        super().write(self._seen_file(place), json.dumps(seen).encode())


def _persist(pull: Callable[[], _Result]) -> _Result:
    """Look again when something goes while it is pulled. Raises StoreError when it goes on like that."""
    for left in reversed(range(_TRIES)):
        try:
            return pull()
        except GoneError:
            if not left:
                raise
    raise AssertionError("unreachable")


def _as_seen(path: Path, found: Found, seen: object) -> list[Any] | None:
    """What to remember of a file that is here what it is in the bucket; None for one that is not.

    It was pulled with this version and not written since, or it has the same checksum.
    """
    try:
        status = path.stat()
        now = [found.version, status.st_size, status.st_mtime_ns]
        return now if seen == now or remote.holds(found, path) is True else None
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None


def _objects(url: str) -> list[str]:
    """All objects below a URL; the URL itself where it is one."""
    return [f"{url}/{name}" for name in remote.list_objects(url)] or ([url] if remote.look(url) is not None else [])
