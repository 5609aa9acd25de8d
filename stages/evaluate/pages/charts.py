"""Charts of a whole evaluation as inline SVG: confusion matrix, bars per class, lines of training.

Colours come from CSS classes, so that they follow the light or dark theme.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from reelwright.stages.evaluate.pages.markup import figure, join, tag

MAX_MATRIX_CLASSES = 40
UNDEFINED = "\N{EN DASH}"
_LABEL_PIXELS = 150
_LABEL_LETTERS = 20
_PLOT_PIXELS = 190  # height of a line chart

Line = Sequence[tuple[float, float]]


class _Cell(NamedTuple):
    """A square of a matrix."""

    share: float  # of the colour, in [0, 1]
    text: str
    title: str
    look: str = "heat"


def confusion_chart(confusion: npt.NDArray[np.int64], classes: Sequence[str]) -> Markup:
    """The confusion matrix (K, K), rows are truth: colour is the share of the row, numbers are counts.

    Above MAX_MATRIX_CLASSES only the classes with the most targets are drawn.
    """
    shown = np.sort(np.argsort(-confusion.sum(axis=1), kind="stable")[:MAX_MATRIX_CLASSES])
    totals = np.maximum(confusion.sum(axis=1), 1)

    def cell(row: int, column: int) -> _Cell:
        true, predicted = shown[row], shown[column]
        count = int(confusion[true, predicted])
        share = float(count / totals[true])
        title = f"{classes[true]} predicted as {classes[predicted]}: {count} ({share:.0%})"
        return _Cell(share, f"{count:,}" if count else "", title)

    title = "Confusion matrix, rows are truth, columns are predictions"
    return _matrix([classes[index] for index in shown], cell, title=title)


def value_matrix(values: Mapping[tuple[str, str], float | None], names: Sequence[str], *, title: str) -> Markup:
    """A number in [-1, 1] for pairs of ``names`` (row, column): colour is its size, negative ones in the other colour.

    Of pairs without a number the square is empty, of those that are undefined it has a dash. At most
    MAX_MATRIX_CLASSES names are drawn.
    """
    shown = list(names)[:MAX_MATRIX_CLASSES]

    def cell(row: int, column: int) -> _Cell | None:
        pair = (shown[row], shown[column])
        if pair not in values:
            return None
        value = values[pair]
        share, text = (0.0, UNDEFINED) if value is None else (min(abs(value), 1.0), f"{value:.2f}")
        look = "heat" if value is None or value >= 0 else "heat below"
        return _Cell(share, text, f"{pair[0]}, {pair[1]}: {text}", look)

    return _matrix(shown, cell, title=title)


def _matrix(names: Sequence[str], cell: Callable[[int, int], _Cell | None], *, title: str) -> Markup:
    size = 46 if len(names) <= 8 else 36 if len(names) <= 16 else 22
    head, side = _LABEL_PIXELS * 0.75, len(names) * size
    parts: list[Markup] = []
    for row, name in enumerate(names):
        y = head + row * size
        parts.append(_matrix_label(name, x=_LABEL_PIXELS - 8, y=y + size / 2 + 4, anchor="end"))
        parts.append(_matrix_label(name, x=_LABEL_PIXELS + (row + 0.4) * size, y=head - 8, turn=-40))
        for column in range(len(names)):
            found = cell(row, column)
            if found is not None:
                parts.append(_square(found, x=_LABEL_PIXELS + column * size, y=y, size=size))
    # the last slanted column name needs room to its right
    width, height = _LABEL_PIXELS + side + _LABEL_PIXELS * 0.6, head + side + 4
    style = f"max-width:{width:.0f}px;min-width:{min(width, 340 + side / 2):.0f}px"
    view = f"0 0 {width:.0f} {height:.0f}"
    return figure(title, *parts, is_titled=False, class_="chart", viewBox=view, style=style)


def _matrix_label(name: str, *, x: float, y: float, anchor: str = "start", turn: int | None = None) -> Markup:
    short = name if len(name) <= _LABEL_LETTERS else name[: _LABEL_LETTERS - 1] + "…"
    transform = f"translate({x:.1f} {y:.1f})" + (f" rotate({turn})" if turn else "")
    return tag("text", tag("title", name), short, transform=transform, text_anchor=anchor)


def _square(cell: _Cell, *, x: float, y: float, size: float) -> Markup:
    square = {"x": x + 1, "y": y + 1, "width": size - 2, "height": size - 2, "rx": 3}
    heat = tag("rect", class_=cell.look, fill_opacity=f"{cell.share:.3f}", **square)
    parts = [tag("rect", class_="cell", **square), heat]
    if cell.text and size > 30:
        ink = "on-heat" if cell.share > 0.55 else "off-heat"
        parts.append(tag("text", cell.text, x=x + size / 2, y=y + size / 2 + 4, text_anchor="middle", class_=ink))
    return tag("g", tag("title", cell.title), *parts)


def bar(share: float, *, chance: float | None = None, kind: str = "bar", label: str = "") -> Markup:
    """A bar of 0 to 1 across the whole width of its place, with a tick at ``chance``."""
    parts = [
        tag("rect", width="100%", height="100%", rx=3, class_="track"),
        tag("rect", width=_percent(share), height="100%", rx=3, class_=kind),
    ]
    if chance is not None:
        parts.append(tag("rect", x=_percent(min(chance, 0.995)), y=0, width=2, height="100%", class_="chance"))
    return figure(f"{label} {share:.1%}", *parts, class_="bar-chart")


def measure(value: float | None, *, label: str, text: str | None = None) -> Markup:
    """A number (or ``text``) above its bar; a dash where it is undefined."""
    if value is None:
        return tag("span", UNDEFINED, title="undefined: nothing to divide by", class_="soft")
    return join(f"{value:.2f}" if text is None else text, bar(value, label=label))


def line_chart(lines: Mapping[str, Line], *, title: str, x_name: str) -> Markup:
    """Lines of (x, y) points as wide as their place; names of y values stand on their grid lines."""
    points = [point for line in lines.values() for point in line]
    low_x, high_x = _span([x for x, _ in points])
    ticks = _ticks([y for _, y in points])
    low_y, high_y = ticks[0], ticks[-1]
    grid = [_grid_line(value, 1 - (value - low_y) / (high_y - low_y)) for value in ticks]
    drawn = []
    for index, (name, line) in enumerate(lines.items()):
        spots = " ".join(
            f"{(x - low_x) / (high_x - low_x) * 1000:.1f},{(1 - (y - low_y) / (high_y - low_y)) * 1000:.1f}"
            for x, y in line
        )
        # a line of one point is drawn as a dot by its round caps
        spots = spots if len(line) > 1 else f"{spots} {spots}"
        drawn.append(tag("polyline", tag("title", name), points=spots, class_=f"line line{index % 4}"))
    look: dict[str, Any] = {"viewBox": "0 0 1000 1000", "preserveAspectRatio": "none", "overflow": "visible"}
    plot = tag("svg", *drawn, **look, height=_PLOT_PIXELS, width="100%", y=16)
    foot = [_x_label(low_x, "0%", "start"), _x_label(high_x, "100%", "end"), _x_label(x_name, "50%", "middle")]
    keys = [tag("li", tag("span", class_=f"key key{index % 4}"), name) for index, name in enumerate(lines)]
    lines_of_grid, labels = zip(*grid, strict=True)
    parts = [*lines_of_grid, plot, *labels, *foot]
    chart = figure(title, *parts, is_titled=False, class_="lines", width="100%", height=_PLOT_PIXELS + 40)
    return tag("figure", tag("figcaption", title, tag("ul", *keys, class_="legend")), chart)


def _grid_line(value: float, height: float) -> tuple[Markup, Markup]:
    """The line, and its label, which stands in front of the data."""
    y = 16 + height * _PLOT_PIXELS
    line = tag("line", x1=0, x2="100%", y1=y, y2=y, class_="grid")
    return line, tag("text", f"{value:g}", x=0, y=y - 3, class_="tick")


def _x_label(value: float | str, x: str, anchor: str) -> Markup:
    shown = value if isinstance(value, str) else f"{value:g}"
    return tag("text", shown, x=x, y=_PLOT_PIXELS + 34, text_anchor=anchor, class_="tick")


def _ticks(values: Sequence[float]) -> list[float]:
    """Three to six round values that span all of ``values``."""
    low, high = _span(values)
    rough = (high - low) / 4
    magnitude = 10 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, max(last, first + 1) + 1)]


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low, low + 1.0)


def _percent(share: float) -> str:
    return f"{min(max(share, 0.0), 1.0):.2%}"
