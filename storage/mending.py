"""Taking what is broken out of a store, and putting back what another file of the store still tells.

Nothing is computed here. What cannot be put back is removed, together with the mark that says that it is done, so that
the runner does it again; `Removed` says what that is.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from reelwright.storage.checking import check_item, check_item_scores, is_key, item_rows, ledger_is_whole, scored_rows
from reelwright.storage.files import folder_bytes, remove, replacing, write_sealed
from reelwright.storage.items import ItemLedger, ItemRow
from reelwright.storage.records import Record, load_record
from reelwright.storage.reserved import URLS
from reelwright.storage.seals import broken_seal
from reelwright.storage.store import Store

_NEEDED_ONLY_WHILE_TRAINING = ("checkpoints/", "events.out.tfevents")


@dataclass
class Removed:
    """What is to be done again."""

    items: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))  # spec key -> digests of videos
    groups: set[str] = field(default_factory=set)  # spec keys whose group lost its attributes, but no video
    nodes: set[str] = field(default_factory=set)  # keys of runs, reports and published tables
    weights: set[Path] = field(default_factory=set)
    told: list[str] = field(default_factory=list)  # what was done, for people


def mend_tables(store: Store) -> list[str]:
    """Mend what planning reads: records, ledgers, lists of samples, what is known of files. Says what it did."""
    told = []
    for path in (store.files, store.videos, store.root / URLS):
        if path.exists() and broken_seal(path):
            remove(path)
            told.append(f"{path.name}: removed; the videos are read again")
    for folder in _folders(store, "nodes"):
        told += _mend_record(store, folder)
        if not ledger_is_whole(folder):
            told.append(_mend_ledger(store, folder))
        samples = folder / "samples.json"
        if samples.exists() and broken_seal(samples):
            remove(samples)
            told.append(f"nodes/{folder.name}/samples.json: written again from the labels")
    for folder in _folders(store, "projects"):
        for path in sorted(folder.glob("*.json")):
            if broken_seal(path):
                remove(path)
                told.append(f"projects/{folder.name}/{path.name}: copied from the node's record where there is one")
    return told


def remove_broken(store: Store, paths: Iterable[Path]) -> Removed:
    """Take broken data out of the store: whole items, runs, reports, tables, as far as they have to be done again."""
    removed = Removed()
    runs: dict[str, set[str]] = defaultdict(set)
    for path in paths:
        area, *rest = path.relative_to(store.root).parts
        if area in {"frames", "embeddings"}:
            _remove_item(store.root / area / rest[0], rest[1:], removed)
        elif area == "predictions" and _has_ledger(store, rest[0]):
            digest = rest[1].partition(".")[0]
            for name in (f"{digest}.parquet", f"{digest}.rows.parquet"):
                remove(store.predictions(rest[0]) / name)
            removed.items[rest[0]].add(digest)
        elif area in {"predictions", "steps", "reports"}:
            remove(store.root / area / rest[0])
            removed.nodes.add(rest[0])
        elif area == "runs":
            runs[rest[0]].add("/".join(rest[1:]))
        elif area in {"weights", "synthetic"}:
            remove(path)  # what is made for the pipeline is made again where videos are read
            removed.weights.update([path] if area == "weights" else [])
    for key, names in runs.items():
        _mend_run(store, key, names, removed)
    for key, digests in removed.items.items():
        ItemLedger(store.node(key)).drop(digests)
        removed.told.append(f"nodes/{key}: {len(digests)} videos are to be done again")
    return removed


def _remove_item(group: Path, rest: list[str], removed: Removed) -> None:
    if rest == ["zarr.json"]:
        remove(group / "zarr.json")
        removed.groups.add(group.stem)
    else:
        remove(group / rest[0])
        removed.items[group.stem].add(rest[0])


def _mend_run(store: Store, key: str, names: set[str], removed: Removed) -> None:
    """Copy what another file of the run still holds; drop what only training needs; else let training end again."""
    record = load_record(store.node(key) / "record.json")
    folder = store.run(key)
    listed = {} if record is None else _of_run(record)
    for name in sorted(names):
        twin = next(
            (other for other in listed.keys() - names if name in listed and listed[other] == listed[name]), None
        )
        if twin is not None:
            with replacing(folder / name) as temporary:
                shutil.copyfile(folder / twin, temporary)
            names = names - {name}
            removed.told.append(f"runs/{key}/{name}: copied from {twin}, which has the same digest")
    if not names:
        return
    gone = {other for other in listed for name in names if other == name or _same_checkpoint(other, name)}
    for name in names | gone:
        remove(folder / name)
    if record is not None and all(name.startswith(_NEEDED_ONLY_WHILE_TRAINING) for name in names):
        kept = {path: entry for path, entry in record.files.items() if path.removeprefix(f"runs/{key}/") not in gone}
        _rewrite(store, replace(record, files=kept))
        removed.told.append(f"runs/{key}: {', '.join(sorted(gone))} removed; a finished run does not need them")
        return
    remove(folder / "model.safetensors")  # makes the run unfinished; it goes on from its last checkpoint
    if any(name.startswith("checkpoints/") for name in names):
        remove(folder)
    removed.nodes.add(key)


def _same_checkpoint(one: str, other: str) -> bool:
    """The files of checkpoints/last are of use together only."""
    return one.startswith("checkpoints/last/") and other.startswith("checkpoints/last/")


def _of_run(record: Record) -> dict[str, list[Any]]:
    start = f"runs/{record.key}/"
    return {name.removeprefix(start): entry for name, entry in record.files.items() if name.startswith(start)}


def _mend_record(store: Store, folder: Path) -> list[str]:
    """Put a damaged record back from the copy that its pipeline file has."""
    path = folder / "record.json"
    if not path.exists() or broken_seal(path) is None:
        return []
    for copy in _copies(store):
        record = load_record(copy)
        if record is not None and record.key == folder.name:
            write_sealed(path, asdict(record))
            return [f"nodes/{folder.name}/record.json: copied from projects/{copy.parent.name}/{copy.name}"]
    remove(path)
    return [f"nodes/{folder.name}/record.json: removed, since no copy is left; the next run writes it again"]


def _rewrite(store: Store, record: Record) -> None:
    """Change a record and its copies."""
    paths = [copy for copy in _copies(store) if (found := load_record(copy)) is not None and found.key == record.key]
    for path in [store.node(record.key) / "record.json", *paths]:
        write_sealed(path, asdict(record))


def _copies(store: Store) -> list[Path]:
    paths = [path for folder in _folders(store, "projects") for path in sorted(folder.glob("*.json"))]
    return [path for path in paths if broken_seal(path) is None]


def _mend_ledger(store: Store, folder: Path) -> str:
    """Keep the intact part of a ledger, and list again the items whose data is intact.

    What only the ledger knew of them (seconds, backend, that a video was truncated) is lost.
    """
    for path in [folder / "items.parquet", *(folder / "items").glob("*.json")]:
        if path.exists() and broken_seal(path):
            remove(path)
    ledger = ItemLedger(folder)
    rows = ledger.load()
    kept = len(rows)
    for row in _rows_on_disk(store, folder.name):
        rows.setdefault(row.digest, row)
    ledger.replace(rows.values())
    return f"nodes/{folder.name}/items.parquet: {kept} items kept, {len(rows) - kept} listed again from their data"


def _rows_on_disk(store: Store, key: str) -> Iterator[ItemRow]:
    for group in (store.frames(key), store.embeddings(key)):
        for item in sorted(group.iterdir()) if group.is_dir() else ():
            if is_key(item.name) and not list(check_item(item)):
                yield ItemRow(digest=item.name, status="ok", rows=item_rows(item), bytes=folder_bytes(item))
    scores = store.predictions(key)
    for digest in sorted({path.name.partition(".")[0] for path in scores.iterdir()}) if scores.is_dir() else ():
        if is_key(digest) and not list(check_item_scores(scores, digest)):
            sizes = [folder_bytes(scores / name) for name in (f"{digest}.parquet", f"{digest}.rows.parquet")]
            yield ItemRow(digest=digest, status="ok", rows=scored_rows(scores, digest), bytes=sum(sizes))


def _has_ledger(store: Store, key: str) -> bool:
    return (store.node(key) / "items.parquet").exists() or (store.node(key) / "items").is_dir()


def _folders(store: Store, area: str) -> list[Path]:
    folder = store.root / area
    return [path for path in sorted(folder.iterdir()) if path.is_dir()] if folder.is_dir() else []
