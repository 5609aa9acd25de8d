"""Tables and matplotlib figures for notebooks, and optional packages: who is missing is named.

Tables are of pandas where it is installed, of pyarrow where it is not. Nothing is shown or saved here.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from reelwright.storage.errors import UnusableMachineError

SHOWN = 10  # videos in a notebook


def required(package: str, *, extra: str, wanted_by: str) -> Any:
    """The optional package ``package``. Raises UnusableMachineError with the command that installs it."""
    if find_spec(package.partition(".")[0]) is None:
        raise UnusableMachineError(
            f"{wanted_by} needs the package {package.partition('.')[0]}, which is not installed: pip install "
            f"'reelwright[{extra}]'"
        )
    return import_module(package)


def as_frame(table: pa.Table) -> Any:
    """A pandas DataFrame; without pandas the `pyarrow.Table` as it is. Texts that are coded come out as texts."""
    columns = zip(table.column_names, table.columns, strict=True)
    found = pa.table(
        {name: column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column for name, column in columns}
    )
    return found.to_pandas() if find_spec("pandas") is not None else found


def frame_of(columns: Mapping[str, Sequence[Any]]) -> Any:
    """The same of columns of equal length."""
    return as_frame(pa.table({name: pa.array(values) for name, values in columns.items()}))


def frame_of_lines(names: Sequence[str], lines: Sequence[Sequence[Any]]) -> Any:
    """The same of lines, each with a value for every one of ``names``."""
    return frame_of({name: [line[place] for line in lines] for place, name in enumerate(names)})


def html_table(header: Sequence[str], rows: Sequence[Sequence[Any]], *, title: str, most: int | None = None) -> str:
    """A table for notebooks, of the first ``most`` rows (None: of all); all texts are escaped."""
    if most is not None and len(rows) > most:
        rows = [*rows[:most], (f"and {len(rows) - most} more", *[""] * (len(header) - 1))]
    cells = "".join(f"<th style='text-align:left'>{html.escape(name)}</th>" for name in header)
    lines = "".join(
        "<tr>" + "".join(f"<td style='text-align:left'>{html.escape(_text(cell))}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return f"<p><b>{html.escape(title)}</b></p><table><thead><tr>{cells}</tr></thead><tbody>{lines}</tbody></table>"


def _text(cell: Any) -> str:
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)


if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figure(ax: Any, *, title: str, size: tuple[float, float] = (7, 4)) -> tuple[Figure, Any]:
    """The figure and axes to draw on: those of ``ax``, or new ones that no window and no global state knows.

    Raises UnusableMachineError without matplotlib.
    """
    figures = required("matplotlib.figure", extra="plots", wanted_by="plot")
    if ax is None:
        ax = figures.Figure(figsize=size, layout="constrained").add_subplot()
    ax.set_title(title)
    found: Figure = ax.figure
    return found, ax


def draw_points(places: npt.NDArray[np.float64], names: Sequence[str], *, title: str, ax: Any = None) -> Figure:
    """Points (N, 2), those of one name in one colour, with a legend."""
    found, ax = figure(ax, title=title, size=(6, 5))
    labels = np.array(names)
    for name in sorted(set(names)):
        chosen = places[labels == name]
        ax.scatter(chosen[:, 0], chosen[:, 1], s=8, label=name)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.legend(loc="best", fontsize="small")
    return found


def draw_lines(
    x: npt.ArrayLike, lines: Mapping[str, npt.ArrayLike], *, title: str, x_label: str, ax: Any = None
) -> Figure:
    """One line a name over ``x`` (N,); NaN makes a gap."""
    found, ax = figure(ax, title=title)
    for name, values in lines.items():
        ax.plot(np.asarray(x), np.asarray(values, dtype=np.float64), label=name, marker="." if np.size(x) < 50 else "")
    ax.set_xlabel(x_label)
    ax.legend(loc="best", fontsize="small")
    return found
