"""Figures of several seeds as a table: mean and standard deviation (n - 1)."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence


def mean_and_spread(values: Sequence[float], *, digits: int = 1) -> str:
    """`mean +- standard deviation`, 0 of one value; a dash of none."""
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.{digits}f} +- {spread:.{digits}f}" if values else "-"


def spread_table(found: Mapping[str, Mapping[str, Sequence[float]]], *, head: str, digits: int = 1) -> str:
    """A line for each row of ``found``, a column for each name in it, values of the seeds in each."""
    names = list(dict.fromkeys(name for row in found.values() for name in row))
    cells = [[head, *names]]
    cells += [[row, *(mean_and_spread(of.get(name, ()), digits=digits) for name in names)] for row, of in found.items()]
    first, *rest = (max(len(line[place]) for line in cells) for place in range(len(cells[0])))
    return "\n".join(
        f"{line[0]:{first}}" + "".join(f"{cell:>{width + 2}}" for cell, width in zip(line[1:], rest, strict=True))
        for line in cells
    )
