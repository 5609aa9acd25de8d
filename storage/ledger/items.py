"""The item ledger: which videos of one spec are done, which failed, and what each cost.

An item is committed with one small JSON mark, written after its data. `compact` folds marks into `items.parquet`, so
that 100,000 finished items are one file to read. Fields and columns of another release are kept. What is damaged raises
StoreError wherever it is read; `verify --repair` lists again what is whole.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reelwright.storage.digests import broken_seal, read_sealed, read_sealed_table, readable
from reelwright.storage.files import remove_files, write_sealed, write_table
from reelwright.storage.store import backend_of

if TYPE_CHECKING:
    import pyarrow as pa

DONE = frozenset({"ok", "truncated"})
WORK_STEPS = ("decode", "preprocess", "forward", "write")
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
    name: str = ""  # of a video that is made, and of one that was given up
    file: str = ""  # that it is, below the folder of its key
    content: str = ""  # digest of that file
    decode_seconds: float = 0.0  # of `seconds`, or beside them: each step of embed, WORK_STEPS; 0: not known
    preprocess_seconds: float = 0.0
    forward_seconds: float = 0.0
    write_seconds: float = 0.0

    @property
    def is_done(self) -> bool:
        """Whether rows are in the store, so that the item is not tried again."""
        return self.status in DONE


class ItemLedger:
    """The item rows of one spec key, in ``folder`` (``nodes/<spec key>``)."""

    def __init__(self, folder: Path, *, is_shared: bool = False) -> None:
        self._is_shared = is_shared  # by several processes at work: only the one that shares the work out folds marks
        self._folder, self._backend = folder, backend_of(folder)
        self._table = folder / "items.parquet"
        self._marks = folder / "items"

    def commit(self, row: ItemRow) -> None:
        """Note ``row`` durably, after its data is in place. A later row of the same video replaces it."""
        write_sealed(self._marks / f"{row.digest}.json", asdict(row))

    def load(self) -> dict[str, ItemRow]:
        """All rows by video digest."""
        self._backend.pull(self._folder)
        pending = self._pending()  # first: a mark that is gone by now is in the table that is read next
        return self._compacted() | {path.stem: self._row_of(path, entry) for path, entry in pending.items()}

    def pending(self, digest: str) -> ItemRow | None:
        """The row of a video whose mark is not folded yet; None where there is none."""
        path = self._marks / f"{digest}.json"
        self._backend.pull_file(path)
        try:
            return self._row_of(path, read_sealed(path))
        except FileNotFoundError:
            return None

    def done(self) -> set[str]:
        """Digests of the videos whose rows are in the store; reads columns only, so that 100,000 cost little."""
        self._backend.pull(self._folder)
        pending = self._pending()
        done: set[str] = set()
        if self._table.exists():
            table = read_sealed_table(self._table, ["digest", "status"])
            digests, statuses = table["digest"].to_pylist(), table["status"].to_pylist()
            done = {name for name, status in zip(digests, statuses, strict=True) if status in DONE}
        for path, entry in pending.items():
            (done.add if self._row_of(path, entry).is_done else done.discard)(path.stem)
        return done

    def compact(self) -> None:
        """Fold the marks into items.parquet; left to others where the ledger is shared."""
        pending = {} if self._is_shared else self._pending()
        if pending:
            self._replace(pending.values())
            remove_files(list(pending))

    def fold(self, rows: Iterable[ItemRow]) -> None:
        """Fold the marks of ``rows``, which are known to be committed; other processes may commit others meanwhile."""
        message = {row.digest: vars(row) for row in rows}  # flat; as `asdict`, which takes ten times as long
        if message:
            self._replace(message.values())
        remove_files([self._marks / f"{digest}.json" for digest in message])

    def drop(self, digests: Iterable[str]) -> None:
        """Forget items, so that they are to be done again."""
        self._backend.pull(self._folder)
        self.compact()
        gone = list(digests)
        if gone and self._table.exists():
            self._replace((), gone=gone)

    def relist(self, rows: Iterable[ItemRow]) -> int:
        """Make the ledger anew of what of it is not damaged and of ``rows``, those of the items that are there.

        Returns how many it knows that the damaged one did not.
        """
        self._backend.pull(self._folder)
        if self._table.exists() and broken_seal(self._table):
            remove_files([self._table])
        remove_files([path for path in self._mark_files() if broken_seal(path)])
        known = self.load()
        found = {row.digest: asdict(row) for row in rows if row.digest not in known}
        self._replace([*self._pending().values(), *found.values()])
        remove_files(self._mark_files())
        return len(found)

    def _replace(self, entries: Iterable[Mapping[str, Any]], *, gone: Sequence[str] = ()) -> None:
        """Let ``entries`` take the place of the rows of the same videos, and take out those that are ``gone``.

        Column by column: a million rows as objects would take a minute.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        table = items_table(entries)
        if self._table.exists():
            before = read_sealed_table(self._table)
            replaced = pa.chunked_array([*table["digest"].chunks, pa.array(gone, pa.string())])
            kept = before.filter(pc.invert(pc.is_in(before["digest"], value_set=replaced.combine_chunks())))
            with readable(self._table):
                table = pa.concat_tables([kept, table], promote_options="default").sort_by("digest")
        write_table(self._table, table)

    def _compacted(self) -> dict[str, ItemRow]:
        if not self._table.exists():
            return {}
        table = read_sealed_table(self._table)
        with readable(self._table):
            return {entry["digest"]: _row(entry) for entry in table.to_pylist()}

    def _pending(self) -> dict[Path, dict[str, Any]]:
        """What the marks say, by their files; those that another process folds meanwhile are left out."""
        found = {}
        for path in self._mark_files():
            with contextlib.suppress(FileNotFoundError):
                found[path] = read_sealed(path)
        return found

    @staticmethod
    def _row_of(path: Path, entry: Mapping[str, Any]) -> ItemRow:
        with readable(path):
            return _row(entry)

    def _mark_files(self) -> list[Path]:
        return [path for path in sorted(self._marks.glob("*.json")) if not path.name.startswith(".")]


def _row(entry: Mapping[str, Any]) -> ItemRow:
    """The row of an entry that another release may have written: what it lacks is as by default."""
    known = {name: entry[name] for name in _FIELDS if entry.get(name) is not None}
    return ItemRow(**known)


_FIELDS = [entry.name for entry in fields(ItemRow)]


def items_table(entries: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Items as an Arrow table, sorted by digest.

    Fields that are not ours get columns after ours; so do the last of ours where they say something.
    """
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
    listed = sorted(entries, key=lambda entry: str(entry["digest"]))
    table = pa.Table.from_pylist(listed, schema=schema)
    more = dict.fromkeys(name for entry in listed for name, value in entry.items() if value or name not in _FIELDS)
    for name in (name for name in more if name not in schema.names):
        table = table.append_column(name, pa.array([entry.get(name) for entry in listed]))
    return table
