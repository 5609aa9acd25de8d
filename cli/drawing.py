"""A graph as text, Mermaid, Graphviz dot or SVG."""

from __future__ import annotations

from html import escape

from reelwright.pipeline.graph import Graph
from reelwright.storage.errors import ConfigError, nearest

_BOX_WIDTH, _BOX_HEIGHT, _GAP_X, _GAP_Y, _MARGIN = 150, 46, 60, 26, 20


def draw_graph(graph: Graph, form: str) -> str:
    """The graph in one of the forms. Raises ConfigError for an unknown form."""
    if form not in _FORMS:
        raise ConfigError(f"--format {form!r} is unknown.{nearest(form, _FORMS)} Known: {', '.join(_FORMS)}")
    return _FORMS[form](graph)


def _text(graph: Graph) -> str:
    lines = ["videos"]
    for node in graph.nodes.values():
        read = ", ".join(f"{field}: {' + '.join(names)}" for field, names in node.inputs.items() if names)
        lines.append(f"{'  ' * _depth(graph, node.name)}{node.name} ({node.stage}){f'  <- {read}' if read else ''}")
    return "\n".join(lines)


def _mermaid(graph: Graph) -> str:
    lines = ["flowchart LR"]
    lines += [f'  {name}["{name}<br/>{node.stage}"]' for name, node in graph.nodes.items()]
    lines += [f"  {parent} --> {child}" for parent, child in _edges(graph)]
    return "\n".join(lines)


def _dot(graph: Graph) -> str:
    lines = ["digraph reelwright {", "  rankdir=LR; node [shape=box];"]
    lines += [f'  "{name}" [label="{name}\\n{node.stage}"];' for name, node in graph.nodes.items()]
    lines += [f'  "{parent}" -> "{child}";' for parent, child in _edges(graph)]
    return "\n".join([*lines, "}"])


def _svg(graph: Graph) -> str:
    places = _places(graph)
    width = max(x for x, _ in places.values()) + _BOX_WIDTH + _MARGIN
    height = max(y for _, y in places.values()) + _BOX_HEIGHT + _MARGIN
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="14">']
    for parent, child in _edges(graph):
        (x1, y1), (x2, y2) = places[parent], places[child]
        start, stop, half = x1 + _BOX_WIDTH, x2, _BOX_HEIGHT / 2
        middle = (start + stop) / 2
        curve = f"M{start} {y1 + half} C{middle} {y1 + half} {middle} {y2 + half} {stop} {y2 + half}"
        parts.append(f'<path d="{curve}" fill="none" stroke="#888" stroke-width="1.5"/>')
    for name, (x, y) in places.items():
        centre = x + _BOX_WIDTH / 2
        box = f'x="{x}" y="{y}" width="{_BOX_WIDTH}" height="{_BOX_HEIGHT}"'
        title, stage = escape(name), escape(graph.nodes[name].stage)
        parts += [
            f'<rect {box} rx="6" fill="#eef3f8" stroke="#34618d"/>',
            f'<text x="{centre}" y="{y + 19}" text-anchor="middle" font-weight="bold" fill="#122">{title}</text>',
            f'<text x="{centre}" y="{y + 37}" text-anchor="middle" fill="#456">{stage}</text>',
        ]
    return "\n".join([*parts, "</svg>"])


def _places(graph: Graph) -> dict[str, tuple[int, int]]:
    """Left upper corner of each box: a column for each depth, rows in running order."""
    rows: dict[int, int] = {}
    places = {}
    for name in graph.nodes:
        column = _depth(graph, name) - 1
        row = rows.get(column, 0)
        rows[column] = row + 1
        places[name] = (_MARGIN + column * (_BOX_WIDTH + _GAP_X), _MARGIN + row * (_BOX_HEIGHT + _GAP_Y))
    return places


def _depth(graph: Graph, name: str) -> int:
    return 1 + max((_depth(graph, parent) for parent in graph.nodes[name].parents), default=0)


def _edges(graph: Graph) -> list[tuple[str, str]]:
    return [(parent, node.name) for node in graph.nodes.values() for parent in node.parents]


_FORMS = {"text": _text, "mermaid": _mermaid, "dot": _dot, "svg": _svg}
