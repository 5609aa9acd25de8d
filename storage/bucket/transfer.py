"""Whole files, items and folders between this machine and a bucket: nothing that is cut off looks complete."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from reelwright.storage.bucket import remote
from reelwright.storage.constants import INCOMING
from reelwright.storage.errors import StoreError
from reelwright.storage.heartbeat import check_held
from reelwright.storage.lock_holder import own_start

_TAKEN = frozenset({errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY})


class GoneError(StoreError):
    """What was there a moment ago is not any more."""


def download_files(root: Path, files: Mapping[Path, str]) -> dict[Path, tuple[int, int]]:
    """Objects (URLs) under other names first; each gets its own in one step, in this order.

    Returns bytes and time of change (ns) of what was written. Raises GoneError.
    """
    if not files:
        return {}
    with _incoming(root) as place:
        places = {path: place / f"{number}-{path.name}" for number, path in enumerate(files)}
        try:
            remote.download({url: places[path] for path, url in files.items()})
        except FileNotFoundError as error:
            raise GoneError(
                f"{next(iter(files.values())).rpartition('/')[0]}: {error} was there and is gone: another machine "
                "replaces it. Run again"
            ) from error
        stamps = {}
        for path, new in places.items():
            status = new.stat()
            stamps[path] = (status.st_size, status.st_mtime_ns)
            path.parent.mkdir(parents=True, exist_ok=True)
            os.replace(new, path)  # noqa: PTH105 - named as the system call it is
        return stamps


def download_items(root: Path, group: Path, url: str, markers: Mapping[str, bytes]) -> None:
    """Items of a group, given the contents of their own zarr.json, which list their files. Raises StoreError."""
    if not markers:
        return
    files = {name: _listed(f"{url}/{name}", content) for name, content in markers.items()}
    with _incoming(root) as place:
        wanted = [(name, file) for name, listed in files.items() for file in listed]
        try:
            remote.download({f"{url}/{name}/{file}": place / name / file for name, file in wanted})
        except FileNotFoundError as error:
            raise StoreError(
                f"{url}: {error} is gone. If another machine replaces it, run again; else run the node that makes it "
                "with --force"
            ) from error
        group.mkdir(parents=True, exist_ok=True)
        for name, content in markers.items():
            _check_sizes(f"{url}/{name}", place / name, files[name])
            (place / name).mkdir(exist_ok=True)
            (place / name / "zarr.json").write_bytes(content)
            _put_in_place(place / name, group / name, aside=place / f"before-{name}", content=content)


def has_content(path: Path, content: bytes) -> bool:
    """Whether a small file is there and holds just this."""
    try:
        return path.read_bytes() == content
    except (FileNotFoundError, NotADirectoryError):
        return False


@contextlib.contextmanager
def replacing_at(url: str, *, last: str) -> Iterator[Path]:
    """An empty local folder; when the block ends well its files take the place of what is below ``url``.

    The file ``last``, which says that the others are whole, is taken away first and sent last.
    """
    with tempfile.TemporaryDirectory(prefix="reelwright-") as name:
        folder = Path(name)
        yield folder
        replace_below(url.rstrip("/"), folder, last=last)


def replace_below(url: str, folder: Path, *, last: str = "", withdraw: Callable[[], None] | None = None) -> None:
    """Let the files of a folder take the place of what is below ``url``.

    The file ``last``, which says that the others are whole, is taken away first, after ``withdraw``, and sent last.
    Raises LostLockError.
    """
    files = {f"{url}/{file.relative_to(folder).as_posix()}": file for file in files_below(folder)}
    before = {f"{url}/{name}" for name in remote.list_objects(url)}
    complete = {f"{url}/{last}"} if last else set()
    if before & complete and withdraw is not None:
        withdraw()
    remote.remove_objects(sorted(before & complete))
    remote.upload({file: place for place, file in files.items() if place not in complete})
    remote.remove_objects(sorted(before - files.keys()))
    check_held(folder)  # sending takes its time
    remote.upload({files[place]: place for place in complete})


def files_below(folder: Path) -> list[Path]:
    """All files below a folder, sorted."""
    return sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []


def _put_in_place(new: Path, path: Path, *, aside: Path, content: bytes) -> None:
    """Let the item ``new`` take the place of what is at ``path``, unless another process of this machine did so."""
    try:
        if path.exists():
            os.rename(path, aside)  # noqa: PTH104
        os.rename(new, path)  # noqa: PTH104
    except OSError as error:
        if error.errno not in _TAKEN or not has_content(path / "zarr.json", content):
            raise


def _listed(url: str, marker: bytes) -> dict[str, Sequence[object]]:
    """The files of an item by its own zarr.json. Raises StoreError where that is damaged."""
    try:
        listed: dict[str, Sequence[object]] = json.loads(marker)["attributes"]["reelwright"]["files"]
        return dict(listed)
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{url}/zarr.json is damaged ({type(error).__name__}: {error}). Run `reelwright verify --repair`"
        ) from error


def _check_sizes(url: str, folder: Path, listed: dict[str, Sequence[object]]) -> None:
    for name, (size, *_) in listed.items():
        found = (folder / name).stat().st_size
        if found != size:
            raise StoreError(
                f"{url}/{name} has {found:,} bytes, not the {size:,} of its list: damaged, or being replaced by "
                "another machine. Run again, or the node that makes it with --force"
            )


@contextlib.contextmanager
def _incoming(root: Path) -> Iterator[Path]:
    """A folder of the working copy that is removed again, named after its process: `gc` leaves that of a living one."""
    place = root / INCOMING / f"{os.getpid()}-{own_start()}-{uuid.uuid4().hex[:12]}"
    place.mkdir(parents=True)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
