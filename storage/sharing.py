"""Sending what was written in a working copy to its bucket: data first, completion last.

What makes a file appear locally (`replacing`, `publish`) calls `share`, in the order in which things were finished. So
what is complete in the bucket is whole, though nothing there can be renamed.

    item      its files, then its own zarr.json
    run       logs and checkpoints as they come, then the weights
    node      tables, then record.json
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from reelwright.storage import remote
from reelwright.storage.heartbeat import check_held
from reelwright.storage.mirror import LAST, Mirror, files_below, forget_seen, is_unfinished, mirror_of


def share(path: Path, source: Path | None = None) -> None:
    """Send a file or folder as ``path``; from ``source`` where it has not got its name here yet.

    Sent before it gets its name: another process of this machine removes from the working copy what the bucket lacks.
    """
    mirror = mirror_of(path)
    if mirror is None or not mirror.is_shared(path):
        return
    source = source or path
    if source.is_dir():
        _share_folder(mirror, path, source)
        return
    if path.parent.parent == mirror.root / "runs" or path.name == "state.pt":
        _share_beside(mirror, path)
    remote.upload({source: mirror.url_of(path)})
    forget_seen(mirror, path)


def share_item(path: Path) -> None:
    """Send a finished group: its own zarr.json, which makes it complete, last."""
    mirror = mirror_of(path)
    if mirror is None:
        return
    url, marker = mirror.url_of(path), path / "zarr.json"
    files = {file: mirror.url_of(file) for file in files_below(path) if file != marker}
    if remote.look(f"{url}/zarr.json") is not None:
        _withdraw(mirror, path, keep=set(files.values()))
    remote.upload(files)
    check_held(path)  # sending takes its time
    remote.upload({marker: f"{url}/zarr.json"})


def share_rest(folder: Path) -> None:
    """Send the files of a folder that the bucket lacks or has otherwise: those that were appended to."""
    mirror = mirror_of(folder)
    if mirror is not None and folder.is_dir():
        _share_lacking(mirror, folder, files_below(folder))


def hand_over(paths: Iterable[Path]) -> None:
    """Remove this machine's copies of files that were shared; nothing of a store in a folder."""
    for path in paths:
        mirror = mirror_of(path)
        if mirror is not None and mirror.is_shared(path):
            path.unlink(missing_ok=True)


def unshare(paths: Iterable[Path], *, is_folder: bool = False) -> None:
    """Remove from the bucket what was removed here."""
    wanted = list(paths)
    mirror = mirror_of(wanted[0]) if wanted else None
    if mirror is None:
        return
    shared = [path for path in wanted if mirror.is_shared(path)]
    urls = [mirror.url_of(path) for path in shared]
    if is_folder:
        for url in urls:
            _remove_folder(url)
    else:
        remote.remove_objects(urls)
    for path in shared:
        forget_seen(mirror, path)


@contextlib.contextmanager
def sending_folder(url: str, *, last: str) -> Iterator[Path]:
    """An empty local folder; when the block ends well its files take the place of what is below ``url``.

    The file ``last``, which says that the others are whole, is taken away first and sent last.
    """
    with tempfile.TemporaryDirectory(prefix="reelwright-") as name:
        folder = Path(name)
        yield folder
        files = {file: f"{url.rstrip('/')}/{file.relative_to(folder).as_posix()}" for file in files_below(folder)}
        before = {f"{url.rstrip('/')}/{found}" for found in remote.list_objects(url)}
        remote.remove_objects([f"{url.rstrip('/')}/{last}"] if before else [])
        remote.upload({file: place for file, place in files.items() if file != folder / last})
        remote.remove_objects(sorted(before - set(files.values())))
        remote.upload({folder / last: files[folder / last]})


def _share_folder(mirror: Mirror, folder: Path, source: Path) -> None:
    """Tables or a report that replace others: the record that tells of the old ones goes first."""
    record = mirror.root / "nodes" / folder.name / "record.json"
    remote.remove_objects([mirror.url_of(record)])
    before = remote.list_objects(mirror.url_of(folder))
    names = {file: file.relative_to(source).as_posix() for file in files_below(source)}
    remote.upload({file: f"{mirror.url_of(folder)}/{name}" for file, name in names.items()})
    gone = before.keys() - set(names.values())
    remote.remove_objects([f"{mirror.url_of(folder)}/{name}" for name in sorted(gone)])


def _share_beside(mirror: Mirror, path: Path) -> None:
    """What a run has logged so far, before the checkpoint or the weights that go with it."""
    run = mirror.root.joinpath(*path.relative_to(mirror.root).parts[:2])
    _share_lacking(mirror, run, [file for file in run.iterdir() if file.is_file() and file.name not in LAST])


def _share_lacking(mirror: Mirror, folder: Path, files: Iterable[Path]) -> None:
    there = remote.list_objects(mirror.url_of(folder))
    lacking = {}
    for file in files:
        entry = there.get(file.relative_to(folder).as_posix())
        if not is_unfinished(file, folder) and (entry is None or remote.holds(entry, file) is False):
            lacking[file] = mirror.url_of(file)
    remote.upload(lacking)


def _withdraw(mirror: Mirror, path: Path, *, keep: set[str]) -> None:
    """Take an item's completion away before its files are replaced: a run that dies meanwhile leaves it to be done."""
    from reelwright.storage.items import ItemLedger, ItemRow

    spec_key = path.parent.name.removesuffix(".zarr")
    ItemLedger(mirror.root / "nodes" / spec_key).commit(
        ItemRow(digest=path.name, status="failed", cause="replaced", message="its rows were being replaced")
    )
    url = mirror.url_of(path)
    remote.remove_objects([f"{url}/zarr.json"])
    there = {f"{url}/{name}" for name in remote.list_objects(url)}
    remote.remove_objects(sorted(there - keep))


def _remove_folder(url: str) -> None:
    """Completion marks first, so that what is half removed never looks complete."""
    names = list(remote.list_objects(url))
    first = [name for name in names if name.rpartition("/")[2] in LAST]
    for part in (first, [name for name in names if name not in first]):
        remote.remove_objects([f"{url}/{name}" for name in part])
