"""Pictures of what is in memory, as matplotlib figures. Nothing is shown or saved here: notebooks do that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from reelwright.stages.arrays.tables import required

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
