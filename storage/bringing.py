"""Bringing what is read from a bucket into the working copy of its store.

nodes/<key>/, projects/<name>/   small and changing: made equal to the bucket by `refresh`
frames, embeddings: items        brought when they are read; what is here is used if the bucket has the very same
runs, predictions, steps, ...    brought as wholes by `refresh`; what changed only

That something lies here says nothing: the bucket may have come back empty, or another machine may have made it anew.
So the bucket is asked, once a process for everything until `look_again`.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from reelwright.storage import remote
from reelwright.storage.errors import StoreError
from reelwright.storage.mirror import LAST, Mirror, files_below, is_unfinished, load_seen, mirror_of, save_seen
from reelwright.storage.remote import Found
from reelwright.storage.reserved import INCOMING

_ADDED_TO = frozenset({"runs", "logs"})  # nothing is removed: these files are sent later than they are written
_BATCH = 64  # items that are brought at once
_TAKEN = frozenset({errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY})
_TRIES = 5  # when what was listed is gone, since another machine replaces or removes it just then
Skip = Callable[[str], bool]
_fresh: set[tuple[Path, Skip]] = set()  # folders that this process has refreshed, and what was left out
_same: set[Path] = set()  # files and items that the bucket has just as they are here, as this process has seen


def nothing(_: str) -> bool:
    """Leave nothing out."""
    return False


def refresh(folder: Path, *, skip: Skip = nothing, anew: bool = False) -> None:
    """Bring the files of a folder that are new or changed in the bucket, and remove those that are gone there.

    Once a process and ``skip``, until `look_again`; always with ``anew``. ``skip``, a function of a module, says of
    names what is left out.
    """
    mirror = mirror_of(folder)
    if mirror is None or ((folder, skip) in _fresh and not anew):
        return
    _persist(lambda: _refresh(mirror, folder, skip))
    _fresh.add((folder, skip))


def _refresh(mirror: Mirror, folder: Path, skip: Skip) -> None:
    found = {name: entry for name, entry in remote.list_objects(mirror.url_of(folder)).items() if not skip(name)}
    seen = load_seen(mirror, folder)
    lacking = [name for name, entry in found.items() if not _is_same(folder / name, entry, seen.get(name))]
    _bring(mirror, folder, sorted(lacking, key=lambda name: (name in LAST, name)))
    if folder.relative_to(mirror.root).parts[0] not in _ADDED_TO:
        for file in files_below(folder):
            name = file.relative_to(folder).as_posix()
            if name not in found and not skip(name) and not is_unfinished(file, folder):
                file.unlink(missing_ok=True)
    if lacking or any(not skip(name) for name in seen.keys() - found.keys()):
        left_out = {name: version for name, version in seen.items() if skip(name)}
        save_seen(mirror, folder, left_out | {name: entry.version for name, entry in found.items()})


def _is_same(path: Path, found: Found, seen: str | None) -> bool:
    """Whether a file here is what the bucket has: it had this version when it was brought, or the same checksum."""
    return path.is_file() and (seen == found.version or remote.holds(found, path) is True)


def refresh_file(path: Path) -> None:
    """Bring a single file when it is new or changed; remove it when it is gone."""
    mirror = mirror_of(path)
    if mirror is not None:
        _persist(lambda: _refresh_file(mirror, path))


def _refresh_file(mirror: Mirror, path: Path) -> None:
    if not _bring_file(mirror, path):
        path.unlink(missing_ok=True)


def _bring_file(mirror: Mirror, path: Path) -> bool:
    """Bring a file that is new or changed; False where the bucket has none."""
    found = remote.look(mirror.url_of(path))
    if found is None:
        return False
    if not _is_same(path, found, load_seen(mirror, path).get("")):
        _bring(mirror, path.parent, [path.name])
        save_seen(mirror, path, {"": found.version})
    return True


def _bring_and_note(mirror: Mirror, path: Path) -> None:
    if _bring_file(mirror, path):
        _same.add(path)


def look_again(root: Path) -> None:
    """Others may have written to the store: what was refreshed counts no longer."""
    for entry in [entry for entry in _fresh if entry[0].is_relative_to(root)]:
        _fresh.discard(entry)
    for path in [path for path in _same if path.is_relative_to(root)]:
        _same.discard(path)


def at_hand(*paths: Path) -> bool:
    """Whether files are in their store, and here as they are there; brings those that are not. They seldom change.

    A file that only this machine has is not at hand.
    """
    mirror = mirror_of(paths[0])
    if mirror is None:
        return all(path.is_file() for path in paths)
    for path in paths:
        if path not in _same and (path.parent, nothing) not in _fresh:
            _persist(functools.partial(_bring_and_note, mirror, path))
    return all(path.is_file() and (path in _same or (path.parent, nothing) in _fresh) for path in paths)


def items_at_hand(group: Path, names: Sequence[str]) -> set[str]:
    """Which of the items ``names`` of a group are complete in the store; brings those that are not here as they are.

    Raises StoreError for one that is not as its list of files says.
    """
    mirror, wanted = mirror_of(group), dict.fromkeys(names)
    if mirror is None:
        return {name for name in wanted if (group / name / "zarr.json").exists()}
    unsure = [name for name in wanted if group / name not in _same]
    for start in range(0, len(unsure), _BATCH):
        markers = {mirror.url_of(group / name / "zarr.json"): name for name in unsure[start : start + _BATCH]}
        found = {markers[url]: content for url, content in remote.read_objects(list(markers)).items()}
        lacking = {name: content for name, content in found.items() if not _holds(group / name / "zarr.json", content)}
        _bring_items(mirror, group, lacking)
        _same.update(group / name for name in found)
    return {name for name in wanted if group / name in _same}


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() == content
    except (FileNotFoundError, NotADirectoryError):
        return False


def names_in(folder: Path) -> set[str]:
    """Names of what lies right in a folder of a store: in the bucket, where it is one."""
    mirror = mirror_of(folder)
    if mirror is not None:
        return remote.list_names(mirror.url_of(folder))
    return set(os.listdir(folder)) if folder.is_dir() else set()  # noqa: PTH208 - names only


def items_in(group: Path) -> set[str] | None:
    """Names of the items of a group that are complete in the bucket; None for a store in a folder."""
    mirror = mirror_of(group)
    if mirror is None:
        return None
    names = (name.partition("/") for name in remote.list_objects(mirror.url_of(group)))
    return {item for item, _, rest in names if rest == "zarr.json"}


def sizes_below(folder: Path) -> dict[str, int] | None:
    """Bytes of every object below a folder of a store, by its name in it; None for a store in a folder."""
    mirror = mirror_of(folder)
    if mirror is None:
        return None
    return {name: found.size for name, found in remote.list_objects(mirror.url_of(folder)).items()}


def is_there(path: Path) -> bool:
    """Whether a file is in its store: in the bucket, where it is one."""
    mirror = mirror_of(path)
    return path.is_file() if mirror is None else remote.look(mirror.url_of(path)) is not None


class _GoneError(StoreError):
    """What was there a moment ago is not any more."""


def _persist(bring: Callable[[], None]) -> None:
    """Look again when something goes while it is brought. Raises StoreError when it goes on like that."""
    for left in reversed(range(_TRIES)):
        try:
            bring()
        except _GoneError:
            if not left:
                raise
        else:
            return


def _bring(mirror: Mirror, folder: Path, names: Sequence[str]) -> None:
    """Files under other names first; each gets its own in one step."""
    if not names:
        return
    with _incoming(mirror) as place:
        try:
            remote.download({f"{mirror.url_of(folder)}/{name}": place / name for name in names})
        except FileNotFoundError as error:
            raise _GoneError(
                f"{mirror.url_of(folder)}: {error} was there and is gone: another machine replaces it. Run again"
            ) from error
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(place / name, folder / name)  # noqa: PTH105 - named as the system call it is


def _bring_items(mirror: Mirror, group: Path, markers: dict[str, bytes]) -> None:
    if not markers:
        return
    files = {name: _listed(mirror.url_of(group / name), content) for name, content in markers.items()}
    with _incoming(mirror) as place:
        wanted = [(name, file) for name, listed in files.items() for file in listed]
        try:
            remote.download({mirror.url_of(group / name / file): place / name / file for name, file in wanted})
        except FileNotFoundError as error:
            raise StoreError(
                f"{mirror.url_of(group)}: {error} is gone. If another machine replaces it, run again; else run the "
                "node that makes it with --force"
            ) from error
        group.mkdir(parents=True, exist_ok=True)
        for name, content in markers.items():
            _check_sizes(mirror.url_of(group / name), place / name, files[name])
            (place / name).mkdir(exist_ok=True)
            (place / name / "zarr.json").write_bytes(content)
            _put_in_place(place / name, group / name, aside=place / f"before-{name}", content=content)


def _put_in_place(new: Path, path: Path, *, aside: Path, content: bytes) -> None:
    """Let the item ``new`` take the place of what is at ``path``, unless another process of this machine did so."""
    try:
        if path.exists():
            os.rename(path, aside)  # noqa: PTH104
        os.rename(new, path)  # noqa: PTH104
    except OSError as error:
        if error.errno not in _TAKEN or not _holds(path / "zarr.json", content):
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
def _incoming(mirror: Mirror) -> Iterator[Path]:
    """A folder of the working copy that is removed again."""
    place = mirror.root / INCOMING / uuid.uuid4().hex[:12]
    place.mkdir(parents=True)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
