"""Whole videos in overlapping pieces of equal length, and one piece going over into the next without a seam.

    rows       |--------------------------------------|     num_rows
    pieces     |--------------|                             length
                        |--------------|
                                 |--------------|           the last one ends with the video
    taken      |==========^^^^=====^^^^=========|           ^: both, from all of one to all of the other

Where pieces go over is the middle of their overlap, half as long as the overlap that is asked for. So a row that is
nearer to the end of a piece than a quarter of it is of no account: what a model sees within that distance is exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.float32]
Outputs = Mapping[str, Rows]


@dataclass(frozen=True)
class Piece:
    """Rows [start, stop) of a video, of which [taken, end) count, those from ``fade_out`` on with the next piece's."""

    start: int
    stop: int
    taken: int  # where the piece before it, if there is one, starts to go over into it
    fade_out: int  # where it starts to go over into the next; of the last piece its stop
    end: int  # where it has gone over


def pieces_of(num_rows: int, *, length: int, overlap: int) -> list[Piece]:
    """The pieces of a video, at least ``overlap`` rows, at most half of ``length``, shared by two of them.

    10 rows, length 6, overlap 2: [0, 6) and [4, 10), which go over into each other in row 4 (of 4 and 5).
    """
    if num_rows <= length:
        return [Piece(0, num_rows, 0, num_rows, num_rows)]
    count = -(-(num_rows - overlap) // (length - overlap))
    starts = [place * (num_rows - length) // (count - 1) for place in range(count)]
    fade = overlap // 2
    seams = [(start + length + after - fade) // 2 for start, after in pairwise(starts)]
    bounds = [0, *seams, num_rows]
    return [
        Piece(start, start + length, bounds[place], bounds[place + 1], min(bounds[place + 1] + fade, num_rows))
        for place, start in enumerate(starts)
    ]


def joined(parts: Iterable[tuple[Piece, Outputs]], *, of_length: frozenset[str]) -> Iterator[tuple[int, Outputs]]:
    """Rows of consecutive pieces, float32 (n, ...) by output, as those of one video, each part with its first row.

    Outputs ``of_length`` are embeddings: where two pieces go over, their length goes over too, so that rows of unit
    length stay so. Rows in which both pieces agree come out as they are.
    """
    before: Outputs = {}
    for piece, outputs in parts:
        taken = {
            name: values[piece.taken - piece.start : piece.fade_out - piece.start] for name, values in outputs.items()
        }
        if before:
            taken = {name: _faded(before[name], values, name in of_length) for name, values in taken.items()}
        before = {
            name: values[piece.fade_out - piece.start : piece.end - piece.start] for name, values in outputs.items()
        }
        yield piece.taken, taken


def _faded(before: Rows, values: Rows, has_length: bool) -> Rows:
    """``values`` (n, ...), whose first rows come out of those of the piece ``before``, linearly."""
    count = len(before)
    share = ((np.arange(count, dtype=np.float32) + 0.5) / max(count, 1)).reshape(-1, *[1] * (values.ndim - 1))
    first = values[:count]
    mixed = before + share * (first - before)
    if has_length:
        old, new, own = (_lengths(rows) for rows in (before, first, mixed))
        wanted = old + share * (new - old)
        mixed = np.where(own > 0, mixed * (wanted / np.where(own > 0, own, 1)), mixed)
    found: Rows = np.concatenate([mixed, values[count:]])
    return found


def _lengths(rows: Rows) -> Rows:
    axes = tuple(range(1, rows.ndim))
    found: Rows = np.sqrt(np.square(rows).sum(axis=axes, keepdims=True))
    return found
