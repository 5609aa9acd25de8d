"""Small tables that people write, row by row: cells as text or as numbers, and what they say of each video."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from reelwright.storage.tables.text_tables import entries_by_video, number_in, read_columns, whole_in

_Entry = TypeVar("_Entry")


class TextRow(NamedTuple):
    """One row: its number as an editor shows it (the header of a CSV is line 1), and its cells as text, trimmed."""

    number: int
    cells: dict[str, str]

    def get(self, column: str) -> str:
        """The cell, or an empty text."""
        return self.cells.get(column, "")

    def get_number(self, column: str, default: float | None = None) -> float:
        """The cell as a number, as `number_in`; an empty one is ``default``, if given."""
        text = self.get(column)
        return default if not text and default is not None else number_in(text, column)

    def get_whole(self, column: str) -> int:
        """The cell as a whole number, as `whole_in`."""
        return whole_in(self.get(column), column)


def read_rows(path: Path, *, required: Sequence[str]) -> list[TextRow]:
    """All rows of a .csv, .tsv or .parquet file; see `read_columns`."""
    numbers, cells = read_columns(path, required=required)
    names = list(cells)
    return [
        TextRow(number, dict(zip(names, values, strict=True)))
        for number, *values in zip(numbers, *cells.values(), strict=True)
    ]


def rows_by_video(path: Path, rows: Iterable[TextRow], parse: Callable[[TextRow], _Entry]) -> dict[str, list[_Entry]]:
    """What ``parse`` makes of the rows of each video_id, as `entries_by_video`."""
    return entries_by_video(path, ((row.number, row.get("video_id"), row) for row in rows), parse)
