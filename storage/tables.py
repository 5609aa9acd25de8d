"""Small tables that people write: CSV, TSV or Parquet, read as text, with row numbers for messages."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reelwright.storage.errors import InputError, nearest
from reelwright.storage.files import read_table


@dataclass(frozen=True)
class TextRow:
    """One row: its number as an editor shows it (the header of a CSV is line 1), and its cells as text, trimmed."""

    number: int
    cells: dict[str, str]

    def get(self, column: str) -> str:
        """The cell, or an empty text."""
        return self.cells.get(column, "")


def read_rows(path: Path, *, required: Sequence[str]) -> list[TextRow]:
    """All rows of a .csv, .tsv or .parquet file; everything is text, so that an id such as 007 stays as written.

    Raises InputError for a missing file, another format, or a missing column.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file. Give a .csv, .tsv or .parquet table")
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        header, rows = _read_parquet(path)
    elif suffix in {".csv", ".tsv", ".txt"}:
        header, rows = _read_text(path, delimiter="\t" if suffix == ".tsv" else ",")
    else:
        raise InputError(f"{path}: tables are .csv, .tsv or .parquet, not {suffix or 'a file without ending'}")
    missing = [
        f"column {name!r} is missing.{nearest(name, header)} There are: {', '.join(header) or 'none'}"
        for name in required
        if name not in header
    ]
    if missing:
        raise InputError(f"{path}: not the columns that are needed ({', '.join(required)})", missing)
    return rows


def _read_text(path: Path, *, delimiter: str) -> tuple[list[str], list[TextRow]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter)
        header = [name.strip() for name in next(reader, [])]
        rows = []
        for values in reader:
            if any(value.strip() for value in values):
                if len(values) > len(header):
                    raise InputError(
                        f"{path}:{reader.line_num}: {len(values)} cells under {len(header)} columns: quote commas"
                    )
                cells = {name: value.strip() for name, value in zip(header, values, strict=False)}
                rows.append(TextRow(reader.line_num, cells))
    return header, rows


def _read_parquet(path: Path) -> tuple[list[str], list[TextRow]]:
    table = read_table(path)
    columns = [
        ["" if value is None else str(value) for value in table[name].to_pylist()] for name in table.column_names
    ]
    rows = [
        TextRow(number, dict(zip(table.column_names, values, strict=True)))
        for number, values in enumerate(zip(*columns, strict=True))
    ]
    return list(table.column_names), rows
