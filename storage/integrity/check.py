"""What lies in a store against what was written: one `Problem` for everything missing, truncated, altered or foreign.

Every byte of ours is under one checksum: records, ledgers, tables and the zarr.json of groups carry a seal of their own
(storage/digests.py); a group lists its files, with the digests of the zarr.json below it; every Zarr chunk and the
index of every shard end with a crc32c; files of runs, reports and published tables have their digests in the node's
record.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pyarrow.parquet as pq

from reelwright.storage.arrays.shards import broken_shard
from reelwright.storage.arrays.zarrs import OWN
from reelwright.storage.constants import PARTIAL, SCHEMA, TEMPORARY, URLS
from reelwright.storage.digests import KEY_HEX_DIGITS, broken_seal, file_digest, files_digest, has_seal
from reelwright.storage.kinds import OutputKind
from reelwright.storage.ledger.digest_cache import KnownFiles
from reelwright.storage.ledger.items import ItemRow
from reelwright.storage.ledger.records import Record
from reelwright.storage.results.scores import kept_outputs
from reelwright.storage.store import Store

MISSING, TRUNCATED, ALTERED, FOREIGN, LEFTOVER = "missing", "truncated", "altered", "foreign", "leftover"
Rows = Mapping[str, ItemRow]  # by video digest

_TABLES = (".csv", ".json", ".jsonl")  # beside files that are listed
_MADE = (".mp4", ".npz")
_TIMES = ("start_seconds", "pts_seconds")  # one entry a row, in embeddings and in frames
_SEAL_MESSAGES = {
    MISSING: "is not there",
    TRUNCATED: "ends too early",
    ALTERED: "its bytes are not those that were written (seal)",
}


@dataclass(frozen=True)
class Problem:
    """One thing that is not as it was written."""

    path: Path
    kind: str  # MISSING, TRUNCATED, ALTERED, FOREIGN; LEFTOVER: of a run that was killed, nothing is wrong with it
    what: str

    @property
    def is_wrong(self) -> bool:
        """False for leftovers."""
        return self.kind != LEFTOVER


def check_sealed(path: Path) -> Iterator[Problem]:
    """A file with a seal: JSON, Parquet, safetensors."""
    kind = broken_seal(path)
    if kind is not None:
        yield Problem(path, kind, _SEAL_MESSAGES[kind])


def check_node(folder: Path) -> Iterator[Problem]:
    """A folder of ``nodes/``: record, ledger and its marks, samples."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name in {"record.json", "items.parquet", "samples.json"}:
            yield from check_sealed(path)
        elif path.name == "items" and path.is_dir():
            for mark in sorted(path.iterdir()):
                yield from (
                    check_sealed(mark) if mark.suffix == ".json" and not _is_leftover(mark) else [unexpected(mark)]
                )
        else:
            yield unexpected(path)


def ledger_is_whole(folder: Path) -> bool:
    """Whether the ledger in a folder of ``nodes/`` can be trusted; one that is not there can."""
    table, marks = folder / "items.parquet", folder / "items"
    paths = [table] if table.exists() else []
    paths += [path for path in marks.glob("*.json") if not _is_leftover(path)] if marks.is_dir() else []
    return not any(broken_seal(path) for path in paths)


def check_items(kind: OutputKind, folder: Path, done: Rows | None, digests: frozenset[str] | None) -> Iterator[Problem]:
    """What is wrong with the data of single videos; see `check_group`."""
    found: Iterator[Problem] = resolve_name(kind.check)(folder, done, digests)
    return found


def check_group(group: Path, done: Rows | None, digests: frozenset[str] | None) -> Iterator[Problem]:
    """Frames, embeddings or kept outputs of one spec: of ``digests``, or all of them.

    What is ``done`` must be there; None: the ledger is damaged, so what is there is checked by itself.
    """
    if group.is_dir() or done:
        yield from check_sealed(group / "zarr.json")
    found = {path.name: path for path in sorted(group.iterdir())} if group.is_dir() else {}
    items = {name for name, path in found.items() if (path / "zarr.json").is_file() and not _is_leftover(path)}
    for digest in sorted(items if done is None else done):
        if digests is None or digest in digests:
            yield from check_item(group / digest, None if done is None else done[digest])
    for name in found.keys() - {"zarr.json", *(done or ())}:
        if name not in items:
            yield unexpected(found[name])
        elif done is not None:
            yield _uncommitted(found[name])


def check_item(item: Path, row: ItemRow | None = None) -> Iterator[Problem]:
    """The arrays of one video; with ``row``, whether they have as many rows as the ledger says."""
    kind = broken_seal(item / "zarr.json")
    if kind is not None:
        yield Problem(item / "zarr.json", kind, _SEAL_MESSAGES[kind])
        return
    files: Mapping[str, list[Any]] = _json(item / "zarr.json")["attributes"].get(OWN, {}).get("files", {})
    wrong = set()
    for name, (size, digest) in files.items():
        problem = _compared(item / name, size, digest)
        if problem is not None:
            wrong.add(name)
            yield problem
    for name in files.keys() - wrong:
        array = item / name.split("/c/")[0] / "zarr.json"
        if not name.endswith("zarr.json") and array.relative_to(item).as_posix() not in wrong:
            message = broken_shard(item / name, _json(array))
            if message is not None:
                yield Problem(item / name, ALTERED, message)
    yield from _foreign(item, {"zarr.json", *files})
    if row is not None and not wrong and item_rows(item) != row.rows:
        yield Problem(item, ALTERED, f"has {item_rows(item)} rows, the ledger says {row.rows}")


def item_rows(item: Path) -> int:
    """How many rows the arrays of a video have."""
    return next(int(_json(item / name / "zarr.json")["shape"][0]) for name in _TIMES if (item / name).is_dir())


def check_scores(folder: Path, done: Rows | None, digests: frozenset[str] | None) -> Iterator[Problem]:
    """The cached scores of one spec, two tables a video; arguments as of `check_group`."""
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    items = {path.name.partition(".")[0] for path in found if is_key(path.name.partition(".")[0])}
    for digest in sorted(items if done is None else done):
        if digests is None or digest in digests:
            yield from check_item_scores(folder, digest, None if done is None else done[digest])
    for path in found:
        digest, _, ending = path.name.partition(".")
        if digest not in items or ending not in {"parquet", "rows.parquet"}:
            yield unexpected(path)
        elif done is not None and digest not in done:
            yield _uncommitted(path)


def check_item_scores(folder: Path, digest: str, row: ItemRow | None = None) -> Iterator[Problem]:
    """The two tables of one video; with ``row``, whether there are as many windows as the ledger says.

    Whether the outputs are there that were kept with them, too; `check_item` looks into these.
    """
    windows = folder / f"{digest}.parquet"
    found = [*check_sealed(windows), *check_sealed(folder / f"{digest}.rows.parquet")]
    yield from found
    kept = kept_item(folder, digest) if not found and kept_outputs(folder, digest) else None
    if kept is not None and not (kept / "zarr.json").is_file():
        yield Problem(kept / "zarr.json", MISSING, _SEAL_MESSAGES[MISSING])
    if row is not None and not found and scored_rows(folder, digest) != row.rows:
        message = f"has {scored_rows(folder, digest)} windows, the ledger says {row.rows}"
        yield Problem(windows, ALTERED, message)


def kept_item(folder: Path, digest: str) -> Path:
    """Where the outputs of a video lie that are kept beside its scores in ``folder``."""
    return Store(folder.parents[1]).attention(folder.name) / digest


def scored_rows(folder: Path, digest: str) -> int:
    """How many windows of a video were scored."""
    return int(pq.read_metadata(folder / f"{digest}.parquet").num_rows)


def check_files(folder: Path, done: Rows | None, digests: frozenset[str] | None) -> Iterator[Problem]:
    """Files that the rows of a ledger name, and what else lies there but tables; arguments as of `check_group`."""
    ours = {folder / row.file: row for row in (done or {}).values()}
    for path, row in ours.items():
        if digests is not None and row.digest not in digests:
            continue
        if not path.exists():
            yield Problem(path, MISSING, "is not there; the next run makes it again")
        elif files_digest([path]) != row.content:
            yield Problem(path, ALTERED, "its bytes are not those that were made")
    if done is None:
        return
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or not ours.keys().isdisjoint((path, *path.parents)):
            continue
        place = path.relative_to(folder)
        if place.suffix in _MADE or any(is_key(part.removeprefix(PARTIAL).partition("-")[0]) for part in place.parts):
            yield _uncommitted(path)
        elif not (place.suffix in _TABLES and len(place.parts) == 1) and place.parts[1:] != ("zarr.json",):
            yield unexpected(path)


def check_outputs(store: Store, record: Record) -> Iterator[Problem]:
    """The files of a run, a report or published tables against the digests in their record."""
    for name, (size, digest) in record.files.items():
        problem = _compared(store.root / name, size, digest)
        if problem is not None:
            yield problem
    weights = record.outputs.get("weights")
    listed = record.files.get(f"runs/{record.key}/model.safetensors")
    if weights is not None and (listed is None or listed[1] != weights):
        yield Problem(store.node(record.key) / "record.json", ALTERED, "its weights are not those among its files")
    for folder in sorted({"/".join(name.split("/")[:2]) for name in record.files}):
        known = {name.removeprefix(f"{folder}/") for name in record.files}
        yield from _foreign(store.root / folder, known)


def check_weights(store: Store, path: Path) -> Iterator[Problem]:
    """Fetched weights: by their seal, or, where a person put them there, by the digest under which they were used."""
    if path.suffix != ".safetensors" or path.name.startswith("."):
        yield unexpected(path)
    elif has_seal(path) or not path.is_file():
        yield from check_sealed(path)
    elif broken_seal(store.files) is None:
        entry = KnownFiles(store.files).entries.get(str(path))
        if entry is not None and not entry[1] and file_digest(path) != entry[2]:
            yield Problem(path, ALTERED, "its bytes are not those that were used so far")


def check_tables(store: Store) -> Iterator[Problem]:
    """Its layout, and what it knows of files and videos."""
    for path in (store.root / SCHEMA, store.files, store.videos, store.root / URLS):
        if path.exists():
            yield from check_sealed(path)


def _compared(path: Path, size: int, digest: str) -> Problem | None:
    """A file against its size and, where there is one, its digest."""
    if not path.is_file():
        return Problem(path, MISSING, "is not there")
    found = path.stat().st_size
    if found != size:
        return Problem(path, TRUNCATED if found < size else ALTERED, f"has {found:,} bytes instead of {size:,}")
    if digest and file_digest(path) != digest:
        return Problem(path, ALTERED, "its bytes are not those that were written (digest)")
    return None


def _foreign(folder: Path, known: set[str]) -> Iterator[Problem]:
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        if (path.is_file() or path.is_symlink()) and path.relative_to(folder).as_posix() not in known:
            yield unexpected(path)


def unexpected(path: Path) -> Problem:
    """A file where none of ours belongs: the leftover of a killed run, or foreign."""
    if _is_leftover(path):
        return Problem(path, LEFTOVER, "of a run that was stopped; the next one goes on from it or removes it")
    return Problem(path, FOREIGN, "nothing of ours wrote it; remove it by hand if you do not need it")


def _uncommitted(path: Path) -> Problem:
    return Problem(path, LEFTOVER, "was written, but is not in the list of items; the next run does it again")


def _is_leftover(path: Path) -> bool:
    return path.name.startswith((TEMPORARY, PARTIAL)) or path.name.endswith(".partial")


def is_key(name: str) -> bool:
    """Whether a name is a key or a digest of ours."""
    return len(name) == KEY_HEX_DIGITS and not set(name) - set("0123456789abcdef")


def _json(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values
