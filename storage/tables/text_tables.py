"""Small tables that people write: CSV, TSV or Parquet, read as text, with row numbers for messages.

What cannot be read for certain is refused with its row and, of bytes, its place: a wrong cell is a wrong label.

    bytes (read once) --> text: UTF-8, or what a byte-order mark says --> rows: strict quotes --> columns: as the header
"""

from __future__ import annotations

import contextlib
import csv
import io
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from reelwright.storage.digests import read_table
from reelwright.storage.errors import InputError, nearest
from reelwright.storage.tables.texts import read_bytes, read_text

_Entry = TypeVar("_Entry")
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_SHOWN = 20
_MANY_BYTES = 4 << 20  # from here on Arrow is faster, its import included


class TextRow(NamedTuple):
    """One row: its number as an editor shows it (the header of a CSV is line 1), and its cells as text, trimmed."""

    number: int
    cells: dict[str, str]

    def get(self, column: str) -> str:
        """The cell, or an empty text."""
        return self.cells.get(column, "")

    def get_number(self, column: str, default: float | None = None) -> float:
        """The cell as a number, which is neither negative nor infinite; an empty one is ``default``, if given.

        Raises ValueError.
        """
        text = self.get(column)
        if not text and default is not None:
            return default
        try:
            value = float(text)
        except ValueError:
            raise ValueError(f"{column} {text!r} is not a number") from None
        if not 0 <= value < float("inf"):
            raise ValueError(f"{column} {text!r} must not be negative or infinite")
        return value

    def get_whole(self, column: str) -> int:
        """The cell as a whole number, which is not negative. Raises ValueError."""
        value = self.get_number(column)
        if value != int(value):
            raise ValueError(f"{column} {self.get(column)!r} is not a whole number")
        return int(value)


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


def rows_by_video(path: Path, rows: Iterable[TextRow], parse: Callable[[TextRow], _Entry]) -> dict[str, list[_Entry]]:
    """What ``parse`` makes of the rows of each video_id, in their order.

    Raises InputError that lists every row of which ``parse`` raises ValueError.
    """
    found: dict[str, list[_Entry]] = defaultdict(list)
    problems = []
    for row in rows:
        try:
            found[row.get("video_id")].append(parse(row))
        except ValueError as error:
            problems.append(f"row {row.number}: {error}")
    if problems:
        raise InputError(f"{path}: {len(problems)} problem(s)", problems)
    return dict(found)


def read_columns(path: Path, *, required: Sequence[str]) -> Columns:
    """A .csv, .tsv or .parquet file; everything is text, so that an id such as 007 stays as written.

    Cells of a .csv, .tsv or .txt are parted by commas, tabs or semicolons, whichever gives the required columns; a
    column without a name is left out. Raises InputError for a missing file, another format, a missing column or one
    that stands twice, and what `read_lines` refuses.
    """
    suffix = path.suffix.lower()
    if suffix not in {".csv", ".tsv", ".txt", ".parquet"} and path.is_file():
        raise InputError(f"{path}: tables are .csv, .tsv or .parquet, not {suffix or 'a file without ending'}")
    found = _read_parquet(path) if suffix == ".parquet" else _read_text(path, required)
    missing = [
        f"column {name!r} is missing.{nearest(name, found.cells)} There are: {', '.join(found.cells) or 'none'}"
        for name in required
        if name not in found.cells
    ]
    if missing:
        raise InputError(f"{path}: not the columns that are needed ({', '.join(required)})", missing)
    for name in required:
        if "\n" in "".join(found.cells[name]):
            row = next(number for number, cell in zip(found.numbers, found.cells[name], strict=True) if "\n" in cell)
            raise InputError(
                f"{path}:{row}: column {name!r} holds a line break. A quote may open there and close in a later "
                "row, which swallows what stands between; close it"
            )
    return found


def read_lines(path: Path, *, delimiter: str = ",") -> list[tuple[int, list[str]]]:
    """Rows of a table, whatever they mean: the number of the first line of each, and its cells as they are.

    Rows without anything are left out. Raises InputError as `read_text` does, and for quotes that do not close.
    """
    return list(zip(*_split(read_text(path), delimiter=delimiter, path=path), strict=True))


def _columns_of(header: Sequence[str], numbers: list[int], rows: list[list[str]], *, path: Path) -> Columns:
    """Rows under a header. Raises InputError that lists rows of another length, or names a column that stands twice."""
    names = [name.strip() for name in header]
    _check_names(names, path)
    width = len(names)
    if set(map(len, rows)) - {width}:
        wrong = [number for number, cells in enumerate(rows) if len(cells) != width and not _is_padded(cells, width)]
        if wrong:
            problems = [f"row {numbers[number]}: {_ragged(rows[number], width)}" for number in wrong[:_SHOWN]]
            problems += [f"... and {len(wrong) - _SHOWN:,} more rows"] if len(wrong) > _SHOWN else []
            raise InputError(f"{path}: {len(wrong):,} row(s) are not as the header, which has {width} cells", problems)
        rows = [cells[:width] for cells in rows]
    return _named_columns(numbers, names, zip(*rows, strict=True) if rows else ([] for _ in names))


def _read_text(path: Path, required: Sequence[str]) -> Columns:
    text = read_text(path)
    first = next((line for line in io.StringIO(text, newline=None) if line.strip()), None)
    if first is None:
        names = f" with the columns {', '.join(required)}" if required else ""
        raise InputError(f"{path}: is empty. Write a header{names}, and a row under it each")
    delimiter = _delimiter(first, required, usual="\t" if path.suffix.lower() == ".tsv" else ",")
    header = _names(first, delimiter)
    _check_names(header, path)
    many = _read_many(text, header, delimiter) if len(text) >= _MANY_BYTES else None
    if many is not None:
        return many
    (_, *numbers), (header, *rows) = _split(text, delimiter=delimiter, path=path)
    return _columns_of(header, numbers, rows, path=path)


def _delimiter(header: str, required: Sequence[str], *, usual: str) -> str:
    """The usual one where it gives one of the required columns, else another that gives all of them."""

    def names(delimiter: str) -> set[str]:
        return set(_names(header, delimiter))

    if not required or names(usual) & set(required):
        return usual
    return next((other for other in _DELIMITERS if set(required) <= names(other)), usual)


def _names(header: str, delimiter: str) -> list[str]:
    with _long_cells():
        return [name.strip() for name in next(csv.reader([header], delimiter=delimiter))]


def _split(text: str, *, delimiter: str, path: Path) -> tuple[list[int], list[list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    numbers: list[int] = []
    rows: list[list[str]] = []
    first = 1
    try:
        with _long_cells():
            for cells in reader:
                if cells and (cells[0].strip() or any(map(str.strip, cells))):
                    numbers.append(first)
                    rows.append(cells)
                first = reader.line_num + 1
    except csv.Error as error:
        raise InputError(
            f'{path}:{first}: a quote (") in this row does not close, or text follows where it closes ({error}). '
            'Close it; a quote that belongs to a cell is written twice ("") in a cell between quotes'
        ) from None
    return numbers, rows


@contextlib.contextmanager
def _long_cells() -> Iterator[None]:
    """A cell may be long here: a quote that does not close, which makes them, is an error of its own."""
    limit = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _read_many(text: str, header: Sequence[str], delimiter: str) -> Columns | None:
    """A long table by Arrow, a fifth of the time; None where it is not plain: quotes, blank lines, anything wrong."""
    if '"' in text or text.startswith(("\n", "\r")) or "\n\n" in text or "\n\r" in text:
        return None
    if text.count("\r") != text.count("\r\n"):
        return None
    import pyarrow as pa
    import pyarrow.csv

    data = text.encode()
    names = [str(number) for number in range(len(header))]
    try:
        table = pyarrow.csv.read_csv(
            io.BytesIO(data),
            read_options=pyarrow.csv.ReadOptions(column_names=names, skip_rows=1),
            parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, quote_char=False, ignore_empty_lines=False),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid:  # rows of another length, or cells too long for it: told with their rows by `columns_of`
        return None
    found = _named_columns(range(2, table.num_rows + 2), header, (table[name].to_pylist() for name in names))
    return found if all(map(any, zip(*found.cells.values(), strict=True))) else None


def _named_columns(numbers: Sequence[int], names: Sequence[str], columns: Iterable[Sequence[str]]) -> Columns:
    cells = {name: list(map(str.strip, column)) for name, column in zip(names, columns, strict=True) if name}
    return Columns(numbers, cells)


def _check_names(names: Sequence[str], path: Path) -> None:
    twice = [name for name, count in Counter(filter(None, names)).items() if count > 1]
    if twice:
        places = [str(place) for place, name in enumerate(names, start=1) if name == twice[0]]
        raise InputError(
            f"{path}: column {twice[0]!r} stands {len(places)} times (columns {', '.join(places)}): which is meant "
            "cannot be known. Rename or remove all but one"
        )


def _is_padded(cells: Sequence[str], width: int) -> bool:
    """Whether a row is longer by empty cells only, as spreadsheets write it."""
    return len(cells) > width and not any(map(str.strip, cells[width:]))


def _ragged(cells: Sequence[str], width: int) -> str:
    if len(cells) > width:
        return f"{len(cells)} cells under {width} columns: a cell that holds a comma (or what parts cells) needs quotes"
    return f"{len(cells)} cells under {width} columns: write empty cells for what is not known, as in a,,c"


def _read_parquet(path: Path) -> Columns:
    import pyarrow as pa

    data = read_bytes(path)
    try:
        table = read_table(io.BytesIO(data))
        _check_names(table.column_names, path)
        cells = {name: _texts(table[name]) for name in table.column_names}
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: no readable Parquet file: {str(error).splitlines()[0]}. Write it again") from None
    return Columns(range(table.num_rows), cells)


def _texts(column: Any) -> list[str]:
    import pyarrow as pa

    is_bytes = pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)
    values = (column.cast(pa.string()) if is_bytes else column).to_pylist()
    return ["" if value is None else str(value) for value in values]
