"""Edits of attention: a table (CSV, TSV or Parquet) that says how much a model may look when, and where.

video_id, weight; start_seconds and stop_seconds (half-open, empty: from the start, to the end); x0, y0, x1 and y1, of a
box in space, as shares of the width and height of what the model sees of a frame (empty: attention in time is edited);
how: multiply (empty: so) or replace. Edits of one video are made in the order of the lines.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from reelwright.storage.errors import InputError
from reelwright.storage.tables.text_rows import TextRow, read_rows, rows_by_video

HOW = ("multiply", "replace")
_BOX = ("x0", "y0", "x1", "y1")
_COLUMNS = ("video_id", "start_seconds", "stop_seconds", "weight", "how", *_BOX)


@dataclass(frozen=True, kw_only=True)
class AttentionEdit:
    """One line."""

    line: int
    start_seconds: float
    stop_seconds: float
    weight: float  # a factor, or what takes the place of attention
    replaces: bool
    box: tuple[float, float, float, float] | None  # x0, y0, x1, y1 in [0, 1]; None: attention in time


def read_attention_edits(path: Path) -> dict[str, tuple[AttentionEdit, ...]]:
    """Edits by video_id, in the order of the table. Raises InputError that lists every wrong row, or has no row."""
    rows = read_rows(path, required=["video_id", "weight"])
    if not rows:
        raise InputError(f"{path}: there is no edit in it; leave edit_attention out")
    unknown = [name for name in rows[0].cells if name not in _COLUMNS]
    if unknown:
        raise InputError(f"{path}: column {unknown[0]!r} is none of edits. Known: {', '.join(_COLUMNS)}")
    return {name: tuple(edits) for name, edits in rows_by_video(path, rows, _edit).items()}


def _edit(row: TextRow) -> AttentionEdit:
    start, stop = row.get_number("start_seconds", 0.0), row.get_number("stop_seconds", math.inf)
    if stop <= start:
        raise ValueError(f"stop_seconds {stop:g} must be after start_seconds {start:g}")
    how = row.get("how") or HOW[0]
    if how not in HOW:
        raise ValueError(f"how {how!r} is not known; allowed: {', '.join(HOW)}")
    weight = row.get_number("weight")
    if how == "replace" and weight > 1:
        raise ValueError(f"weight {weight:g} is to take the place of attention, which lies in [0, 1]")
    return AttentionEdit(
        line=row.number, start_seconds=start, stop_seconds=stop, weight=weight, replaces=how == "replace", box=_box(row)
    )


def _box(row: TextRow) -> tuple[float, float, float, float] | None:
    given = [name for name in _BOX if row.get(name)]
    if not given:
        return None
    if len(given) < len(_BOX):
        raise ValueError(f"a box needs {', '.join(_BOX)}; given are {', '.join(given)}")
    x0, y0, x1, y1 = (row.get_number(name) for name in _BOX)
    if not (x0 < x1 <= 1 and y0 < y1 <= 1):
        raise ValueError(f"the box {x0:g}, {y0:g}, {x1:g}, {y1:g} must have 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1")
    return x0, y0, x1, y1
