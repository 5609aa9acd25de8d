"""Small tables that people write: CSV, TSV or Parquet, read as text, with row numbers for messages."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from reelwright.storage.errors import InputError, nearest
from reelwright.storage.files import read_table


class TextRow(NamedTuple):
    """One row: its number as an editor shows it (the header of a CSV is line 1), and its cells as text, trimmed."""

    number: int
    cells: dict[str, str]

    def get(self, column: str) -> str:
        """The cell, or an empty text."""
        return self.cells.get(column, "")


class Columns(NamedTuple):
    """A table by columns: the number of each row as an editor shows it, and its cells as text, trimmed."""

    numbers: Sequence[int]
    cells: dict[str, list[str]]

    def rows(self) -> list[TextRow]:
        """The same row by row."""
        names = list(self.cells)
        return [
            TextRow(number, dict(zip(names, values, strict=True)))
            for number, *values in zip(self.numbers, *self.cells.values(), strict=True)
        ]


def read_rows(path: Path, *, required: Sequence[str]) -> list[TextRow]:
    """All rows of a .csv, .tsv or .parquet file; see `read_columns`."""
    return read_columns(path, required=required).rows()


def read_columns(path: Path, *, required: Sequence[str]) -> Columns:
    """A .csv, .tsv or .parquet file; everything is text, so that an id such as 007 stays as written.

    Raises InputError for a missing file, another format, or a missing column.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file. Give a .csv, .tsv or .parquet table")
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        found = _read_parquet(path)
    elif suffix in {".csv", ".tsv", ".txt"}:
        found = _read_text(path, delimiter="\t" if suffix == ".tsv" else ",")
    else:
        raise InputError(f"{path}: tables are .csv, .tsv or .parquet, not {suffix or 'a file without ending'}")
    missing = [
        f"column {name!r} is missing.{nearest(name, found.cells)} There are: {', '.join(found.cells) or 'none'}"
        for name in required
        if name not in found.cells
    ]
    if missing:
        raise InputError(f"{path}: not the columns that are needed ({', '.join(required)})", missing)
    return found


def _read_text(path: Path, *, delimiter: str) -> Columns:
    numbers: list[int] = []
    rows: list[list[str]] = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter)
        header = [name.strip() for name in next(reader, [])]
        width = len(header)
        for values in reader:
            if len(values) != width:
                if not values:
                    continue
                if len(values) > width:
                    raise InputError(
                        f"{path}:{reader.line_num}: {len(values)} cells under {width} columns: quote commas"
                    )
                values.extend([""] * (width - len(values)))
            if any(values) and any(map(str.strip, values)):
                numbers.append(reader.line_num)
                rows.append(values)
    columns = zip(*rows, strict=True) if rows else ([] for _ in header)
    return Columns(numbers, {name: list(map(str.strip, column)) for name, column in zip(header, columns, strict=True)})


def _read_parquet(path: Path) -> Columns:
    table = read_table(path)
    cells = {
        name: ["" if value is None else str(value) for value in table[name].to_pylist()] for name in table.column_names
    }
    return Columns(range(table.num_rows), cells)
