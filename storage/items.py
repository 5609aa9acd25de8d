"""The item ledger: which videos of one spec are done, which failed, and what each cost.

An item is committed with one small JSON mark, written after its data. `compact` folds marks into `items.parquet`, so
that 100,000 finished items are one file to read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reelwright.storage.bringing import refresh, refresh_file
from reelwright.storage.files import read_table, remove_files, write_sealed, write_table

if TYPE_CHECKING:
    import pyarrow as pa

DONE = frozenset({"ok", "truncated"})
STATUSES = ("ok", "truncated", "failed", "timeout", "crashed", "skipped")


@dataclass(frozen=True, kw_only=True)
class ItemRow:
    """What became of one video in one stage."""

    digest: str  # content digest of the video
    status: str  # one of STATUSES; ok and truncated have rows in the store
    rows: int = 0
    bytes: int = 0  # as stored
    seconds: float = 0.0  # of work
    backend: str = ""  # what decoded it
    cause: str = ""  # short word: why it is not ok
    message: str = ""
    attempts: int = 1

    @property
    def is_done(self) -> bool:
        """Whether rows are in the store, so that the item is not tried again."""
        return self.status in DONE


class ItemLedger:
    """The item rows of one spec key, in ``folder`` (``nodes/<spec key>``)."""

    def __init__(self, folder: Path, *, is_shared: bool = False) -> None:
        self._is_shared = is_shared  # by several processes at work: only the one that shares the work out folds marks
        self._folder = folder
        self._table = folder / "items.parquet"
        self._marks = folder / "items"

    def commit(self, row: ItemRow) -> None:
        """Note ``row`` durably, after its data is in place. A later row of the same video replaces it."""
        write_sealed(self._marks / f"{row.digest}.json", asdict(row))

    def load(self) -> dict[str, ItemRow]:
        """All rows by video digest."""
        refresh(self._folder)
        rows = self._compacted()
        rows.update((row.digest, row) for _, row in self._pending())
        return rows

    def pending(self, digest: str) -> ItemRow | None:
        """The row of a video whose mark is not folded yet; None where there is none."""
        path = self._marks / f"{digest}.json"
        refresh_file(path)
        try:
            return _row(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None

    def done(self) -> set[str]:
        """Digests of the videos whose rows are in the store; reads columns only, so that 100,000 cost little."""
        refresh(self._folder)
        done: set[str] = set()
        if self._table.exists():
            table = read_table(self._table, ["digest", "status"])
            digests, statuses = table["digest"].to_pylist(), table["status"].to_pylist()
            done = {name for name, status in zip(digests, statuses, strict=True) if status in DONE}
        for _, row in self._pending():
            (done.add if row.is_done else done.discard)(row.digest)
        return done

    def compact(self) -> None:
        """Fold the marks into items.parquet; left to others where the ledger is shared."""
        pending = [] if self._is_shared else list(self._pending())
        if not pending:
            return
        rows = self._compacted()
        rows.update((row.digest, row) for _, row in pending)
        write_table(self._table, items_table(rows.values()))
        remove_files([path for path, _ in pending])

    def fold(self, rows: Iterable[ItemRow]) -> None:
        """Fold the marks of ``rows``, which are known to be committed; other processes may commit others meanwhile."""
        import pyarrow as pa
        import pyarrow.compute as pc

        told = {row.digest: row for row in rows}
        table = items_table(told.values())
        if told and self._table.exists():  # column by column: a million rows as objects would take a minute
            before = read_table(self._table).replace_schema_metadata(None)
            is_older = pc.invert(pc.is_in(before["digest"], value_set=table["digest"].combine_chunks()))
            table = pa.concat_tables([before.filter(is_older), table]).sort_by("digest")
        if told:
            write_table(self._table, table)
        remove_files([self._marks / f"{digest}.json" for digest in told])

    def drop(self, digests: Iterable[str]) -> None:
        """Forget items, so that they are to be done again."""
        gone = set(digests)
        self.replace([row for name, row in self.load().items() if name not in gone])

    def replace(self, rows: Iterable[ItemRow]) -> None:
        """Let ``rows`` be all that is known; nothing is read of what was there."""
        write_table(self._table, items_table(rows))
        remove_files(list(self._marks.glob("*.json")) if self._marks.is_dir() else [])

    def _compacted(self) -> dict[str, ItemRow]:
        if not self._table.exists():
            return {}
        return {entry["digest"]: ItemRow(**entry) for entry in read_table(self._table).to_pylist()}

    def _pending(self) -> Iterable[tuple[Path, ItemRow]]:
        for path in sorted(self._marks.glob("*.json")) if self._marks.is_dir() else ():
            if path.name.startswith("."):
                continue
            yield path, _row(json.loads(path.read_text(encoding="utf-8")))


def _row(entry: Mapping[str, Any]) -> ItemRow:
    return ItemRow(**{field.name: entry[field.name] for field in fields(ItemRow) if field.name in entry})


def items_table(rows: Iterable[ItemRow]) -> pa.Table:
    """Item rows as an Arrow table, sorted by digest."""
    import pyarrow as pa

    schema = pa.schema(
        [
            ("digest", pa.string()),
            ("status", pa.string()),
            ("rows", pa.int64()),
            ("bytes", pa.int64()),
            ("seconds", pa.float64()),
            ("backend", pa.string()),
            ("cause", pa.string()),
            ("message", pa.string()),
            ("attempts", pa.int32()),
        ]
    )
    return pa.Table.from_pylist([asdict(row) for row in sorted(rows, key=lambda row: row.digest)], schema=schema)
