"""Tables that people write, read by Arrow as columns of text: Parquet, and long CSV in a fifth of the time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv

from reelwright.storage.digests import in_arrow, read_table
from reelwright.storage.errors import InputError


def plain_columns(text: str, *, num_columns: int, delimiter: str) -> list[list[str]] | None:
    """The columns under the header of a table; None where it is not plain: quotes, blank lines, anything wrong."""
    if '"' in text or not text.partition("\n")[0].strip() or "\n\n" in text or "\n\r" in text:
        return None
    if text.count("\r") != text.count("\r\n"):
        return None
    names = [str(number) for number in range(num_columns)]
    try:
        table = pyarrow.csv.read_csv(
            in_arrow(text.encode()),
            read_options=pyarrow.csv.ReadOptions(column_names=names, skip_rows=1),
            parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, quote_char=False, ignore_empty_lines=False),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid:  # rows of another length, or cells too long for it: told with their rows by who splits it
        return None
    return [table[name].to_pylist() for name in names]


def parquet_columns(path: Path, data: bytes) -> tuple[Sequence[str], list[list[str]]]:
    """Names and columns of a Parquet file. Raises InputError for bytes that are none; ``path`` is for the message."""
    try:
        table = read_table(data)
        return table.column_names, [_texts(column) for column in table.columns]
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: no readable Parquet file: {str(error).splitlines()[0]}. Write it again") from None


def _texts(column: Any) -> list[str]:
    is_bytes = pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)
    values = (column.cast(pa.string()) if is_bytes else column).to_pylist()
    return ["" if value is None or (isinstance(value, float) and math.isnan(value)) else str(value) for value in values]
