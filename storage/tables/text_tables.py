"""Small tables that people write: CSV, TSV or Parquet, read as text, with row numbers for messages.

What cannot be read for certain is refused with its row and, of bytes, its place: a wrong cell is a wrong label.

    bytes (read once) --> text: UTF-8, or what a byte-order mark says --> rows: strict quotes --> columns: as the header
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from reelwright.storage.errors import InputError, nearest
from reelwright.storage.ledger.digest_cache import Snapshot

_Entry = TypeVar("_Entry")
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_SHOWN = 20
_MANY_BYTES = 4 << 20  # from here on Arrow is faster, its import included
_MARKS = {  # UTF-32 first: its mark begins with that of UTF-16
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_NUL = (
    "holds a NUL, which no text has. Is it UTF-16 without its mark? Save it as UTF-8; else it is damaged, or no table"
)
_JOINED = "a byte-order mark stands inside the text: files were joined? Remove it, and a second header"


class Columns(NamedTuple):
    """A table by columns: the number of each row as an editor shows it, and its cells as text, trimmed."""

    numbers: Sequence[int]
    cells: dict[str, list[str]]


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


def entries_by_video(
    path: Path, rows: Iterable[tuple[Any, ...]], parse: Callable[..., _Entry]
) -> dict[str, list[_Entry]]:
    """What ``parse`` makes of the cells of each video, in their order; ``rows`` are of (number, video_id, *cells).

    Raises InputError that lists every row of which ``parse`` raises ValueError.
    """
    found: dict[str, list[_Entry]] = defaultdict(list)
    problems = []
    for number, video_id, *cells in rows:
        try:
            found[video_id].append(parse(*cells))
        except ValueError as error:
            problems.append(f"row {number}: {error}")
    if problems:
        raise InputError(f"{path}: {len(problems)} problem(s)", problems)
    return dict(found)


def real_in(text: str, column: str) -> float:
    """A cell as any number, of 1_5 none, which is 15 to Python alone. Raises ValueError."""
    try:
        return float(text.replace("_", "?"))
    except ValueError:
        raise ValueError(f"{column} {text!r} is not a number") from None


def number_in(text: str, column: str) -> float:
    """A cell as a number, which is neither negative nor infinite. Raises ValueError."""
    value = real_in(text, column)
    if not 0 <= value < float("inf"):
        raise ValueError(f"{column} {text!r} must not be negative or infinite")
    return value


def whole_in(text: str, column: str) -> int:
    """A cell as a whole number, which is not negative. Raises ValueError."""
    value = number_in(text, column)
    if value != int(value):
        raise ValueError(f"{column} {text!r} is not a whole number")
    return int(value)


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
    if len(text) >= _MANY_BYTES:
        from reelwright.storage.tables.arrow_tables import plain_columns

        columns = plain_columns(text, num_columns=len(header), delimiter=delimiter)
        many = None if columns is None else _named_columns(range(2, len(columns[0]) + 2), header, columns)
        if many is not None and all(map(any, zip(*many.cells.values(), strict=True))):  # no row without anything
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
    from reelwright.storage.tables.arrow_tables import parquet_columns

    written, columns = parquet_columns(path, read_bytes(path))
    names = [name.strip() for name in written]
    _check_names(names, path)
    return _named_columns(range(len(columns[0]) if columns else 0), names, columns)


def read_text(path: Path) -> str:
    """A text that people wrote: UTF-8, or UTF-16 or UTF-32 where a byte-order mark says so; without the mark.

    Raises InputError for a missing file, and for bytes of another encoding, which are not guessed, with their place.
    """
    data = read_bytes(path)
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8")
    if b"\0" in data and encoding.startswith("utf-8"):
        row = data[: data.index(b"\0")].count(b"\n") + 1
        raise InputError(f"{path}:{row}: {_NUL}")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError(_not_text(path, data, error)) from None
    for sign, what in (("\0", _NUL), ("\ufeff", _JOINED)):
        if sign in text:
            row = text[: text.index(sign)].count("\n") + 1
            raise InputError(f"{path}:{row}: {what}")
    return text


def read_bytes(path: Path) -> bytes:
    """All of a file, in one state. Raises InputError."""
    try:
        snapshot = Snapshot.of(path)
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise InputError(f"{path}: no such file. Give a .csv, .tsv or .parquet table") from None
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}. Look at its mode and owner, or at the disk"
        ) from None
    if not snapshot.is_same():
        raise InputError(snapshot.changed_message)
    return data


def _not_text(path: Path, data: bytes, error: UnicodeDecodeError) -> str:
    start = data.rfind(b"\n", 0, error.start) + 1
    row = data.count(b"\n", 0, error.start) + 1
    if error.encoding != "utf-8":
        return f"{path}:{row}: begins as {error.encoding} but is not: {error.reason}. Save it as UTF-8"
    byte = data[error.start : error.start + 1]
    guess = byte.decode("cp1252", errors="replace")
    return (
        f"{path}:{row}: byte {error.start - start + 1} of the row (0x{byte.hex().upper()}) is not UTF-8; in "
        f"Windows-1252 it would be {guess!r}. Save the file as UTF-8, or: "
        f"iconv -f WINDOWS-1252 -t UTF-8 {path.name} > utf8-{path.name}"
    )
