"""A graph as text, Mermaid or Graphviz dot."""

from __future__ import annotations

from reelwright.pipeline.plan.graph import Graph
from reelwright.storage.errors import ConfigError, nearest


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
    called = {name: name if _is_plain(name) else f"node{number}" for number, name in enumerate(graph.nodes)}
    lines = ["flowchart LR"]
    lines += [f'  {called[name]}["{name}<br/>{node.stage}"]' for name, node in graph.nodes.items()]
    lines += [f"  {called[parent]} --> {called[child]}" for parent, child in _edges(graph)]
    return "\n".join(lines)


def _is_plain(name: str) -> bool:
    """Whether Mermaid takes a name for a node: not train@0, nor one of its own words, nor what `node0` could mean."""
    return name.isidentifier() and name.isascii() and not name.startswith("node") and name not in _MERMAID_WORDS


def _dot(graph: Graph) -> str:
    lines = ["digraph reelwright {", "  rankdir=LR; node [shape=box];"]
    lines += [f'  "{name}" [label="{name}\\n{node.stage}"];' for name, node in graph.nodes.items()]
    lines += [f'  "{parent}" -> "{child}";' for parent, child in _edges(graph)]
    return "\n".join([*lines, "}"])


def _depth(graph: Graph, name: str) -> int:
    return 1 + max((_depth(graph, parent) for parent in graph.nodes[name].parents), default=0)


def _edges(graph: Graph) -> list[tuple[str, str]]:
    return [(parent, node.name) for node in graph.nodes.values() for parent in node.parents]


_MERMAID_WORDS = frozenset(
    [
        "call",
        "class",
        "classDef",
        "click",
        "default",
        "direction",
        "end",
        "flowchart",
        "graph",
        "href",
        "linkStyle",
        "style",
        "subgraph",
    ]
)
_FORMS = {"text": _text, "mermaid": _mermaid, "dot": _dot}
