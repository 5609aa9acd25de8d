"""Taking what is broken out of a store, as far as it has to be made again; the next run makes it.

Whoever calls this holds the locks of the keys. A whole item goes with its row of the ledger, a whole table or report,
of a run what cannot be gone on from. What is marked as done goes with its mark, so that nothing half there looks whole.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from reelwright.storage.errors import StoreError
from reelwright.storage.files import folder_bytes, remove
from reelwright.storage.integrity.check import (
    check_item,
    check_item_scores,
    is_key,
    item_rows,
    kept_item,
    scored_rows,
)
from reelwright.storage.kinds import GROUPED, KINDS, LISTED, RECORDED, WITH_ITEMS
from reelwright.storage.ledger.items import ItemLedger, ItemRow
from reelwright.storage.ledger.records import load_record, save_record
from reelwright.storage.store import Store

_NEEDED_ONLY_WHILE_TRAINING = ("checkpoints/", "events.out.tfevents", "wandb/")
_CHECKPOINT = ("checkpoints/last/", "checkpoints/best-")  # of use together only


def is_ledger(store: Store, path: Path) -> bool:
    """Whether a file is part of a ledger, which is listed again (`relist`) and not made again."""
    parts = path.relative_to(store.root).parts
    return parts[0] == "nodes" and parts[2:3] in {("items.parquet",), ("items",)}


def take_out(store: Store, paths: Iterable[Path]) -> list[str]:
    """Remove what is broken: files that `verify` named, none of a ledger. Says what it did, for people."""
    messages, runs = [], defaultdict(set)
    items: dict[str, set[str]] = defaultdict(set)
    for path in paths:
        area, *rest = path.relative_to(store.root).parts
        if area in GROUPED and rest[1:] != ["zarr.json"]:
            remove(store.root / area / rest[0] / rest[1])
            items[rest[0].removesuffix(".zarr")].add(rest[1])
        elif area in WITH_ITEMS and rest[1:] and (digest := rest[1].partition(".")[0]) and is_key(digest):
            for name in (f"{digest}.parquet", f"{digest}.rows.parquet"):
                remove(store.predictions(rest[0]) / name)
            items[rest[0]].add(digest)
        elif area in LISTED and rest[1:]:
            remove(path)
            rows = ItemLedger(store.node(rest[0])).load().values()
            items[rest[0]].update(row.digest for row in rows if row.file == "/".join(rest[1:]))
        elif area == KINDS["run"].folder:
            runs[rest[0]].add("/".join(rest[1:]))
        elif area in RECORDED:
            remove(store.root / area / rest[0])
            messages.append(f"{area}/{rest[0]}: removed")
        elif rest[1:] == ["record.json"] and _restore(store, path):
            messages.append(f"nodes/{rest[0]}/record.json: copied from the last record of its pipeline file")
        else:  # small files, weights: what they are made of says how they are made again
            remove(path)
            messages.append(f"{path.relative_to(store.root)}: removed")
    for key, digests in items.items():
        ItemLedger(store.node(key)).drop(digests)
        messages.append(f"nodes/{key}: {len(digests)} videos removed")
    return [*messages, *(_take_out_of_run(store, key, names) for key, names in runs.items())]


def intact_rows(store: Store, key: str) -> Iterator[ItemRow]:
    """Rows of the items of a spec key whose data is there and intact, for a ledger that is not.

    What only the ledger knew of them (seconds, backend, that a video was truncated) is lost.
    """
    for group in (store.output(name, key) for name, kind in KINDS.items() if kind.is_rows and not kind.beside):
        for item in sorted(group.iterdir()) if group.is_dir() else ():
            if is_key(item.name) and not list(check_item(item)):
                yield ItemRow(digest=item.name, status="ok", rows=item_rows(item), bytes=folder_bytes(item))
    scores = store.predictions(key)
    for digest in sorted({path.name.partition(".")[0] for path in scores.iterdir()}) if scores.is_dir() else ():
        kept = kept_item(scores, digest)
        is_whole = is_key(digest) and not list(check_item_scores(scores, digest))
        if is_whole and not (kept.is_dir() and list(check_item(kept))):
            files = (scores / f"{digest}.parquet", scores / f"{digest}.rows.parquet", kept)
            sizes = [folder_bytes(path) for path in files]
            yield ItemRow(digest=digest, status="ok", rows=scored_rows(scores, digest), bytes=sum(sizes))


def _take_out_of_run(store: Store, key: str, names: set[str]) -> str:
    """Files that only training needs go alone; else the run becomes unfinished, and goes on from its last checkpoint.

    Without an intact checkpoint it starts anew.
    """
    folder, record = store.run(key), load_record(store.node(key) / "record.json")
    is_of_checkpoint = any(name.startswith(_CHECKPOINT) for name in names)
    if record is not None and all(name.startswith(_NEEDED_ONLY_WHILE_TRAINING) for name in names):
        if is_of_checkpoint:
            listed = {name.removeprefix(f"runs/{key}/") for name in record.files}
            names = names | {name for name in listed if name.startswith(_CHECKPOINT)}
        for name in sorted(names):
            remove(folder / name)
        gone = {f"runs/{key}/{name}" for name in names}
        kept = {name: entry for name, entry in record.files.items() if name not in gone}
        save_record(store.node(key) / "record.json", replace(record, files=kept))
        return f"runs/{key}: {', '.join(sorted(names))} removed; a finished run does not need them"
    remove(folder / "model.safetensors")
    for name in sorted(names):
        remove(folder / name)
    if is_of_checkpoint:
        remove(folder)
    return f"runs/{key}: {', '.join(sorted(names))} removed" + (", and all of the run" if is_of_checkpoint else "")


def _restore(store: Store, path: Path) -> bool:
    """Put a damaged record back from the copy that its pipeline file has; False where there is none."""
    for copy in sorted((store.root / "projects").glob("*/*.json")):
        with contextlib.suppress(StoreError):
            record = load_record(copy)
            if record is not None and record.key == path.parent.name:
                save_record(path, record)
                return True
    return False
