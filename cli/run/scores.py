"""The table of scores: every evaluate and probe node beside its chance level."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from reelwright.cli.format import table_text
from reelwright.models.metrics.metric import split_name

# scores that tables for people show
_NAMES = {
    "top1": "accuracy",
    "macro_f1": "macro F1",
    "mean_average_precision": "mAP",
    "action_top1": "action top-1",
    "edit": "edit",
    "f1@50": "F1@50",
    "video_top1": "video accuracy",
    "step_pos": "POS",
    "step_f1": "step F1",
    "step_delay_seconds": "delay in s",
    "phase_accuracy": "phase accuracy",
    "kendalls_tau": "Kendall's tau",
    "precision@5": "precision@5",
    "progression_r2": "progression R2",
    "dtw_error_seconds": "DTW error in s",
    "time_error@5": "time error@5",
}
_AS_IT_IS = {
    "edit",
    "f1@50",
    "step_delay_seconds",
    "dtw_error_seconds",
}  # in percent already, or in seconds; the others are shares
_MAX_COLUMNS = 5


def scores_table(headlines: Mapping[str, Mapping[str, Any]]) -> str:
    """``value (chance)`` in percent for each node and metric that any of them has; empty when there is none.

    A mean over seeds has its standard deviation behind it, ``value ± deviation (chance)``; what was scored on several
    videos its 95 % interval over videos, ``value [low, high] (chance)``.

    Metrics of completed steps have no chance level, and their delay is in seconds. Rows that a probe measured beside
    its own have lines of their own, ``probe: node``.

    Chance is that of an answer that never looks: always the commonest class.
    """
    lines: dict[str, Mapping[str, Any]] = {}
    for node, headline in headlines.items():
        lines[node] = headline
        lines.update({f"{node}: {other}": found for other, found in headline.get("beside", {}).items()})
    names = _metrics(lines.values())
    if not names:
        return ""
    rows = [(line, *(_cell(headline, name) for name in names)) for line, headline in lines.items()]
    said = {"intervals": " [95 % interval]", "std": " ± deviation"}
    extra = "".join(text for key, text in said.items() if any(headline.get(key) for headline in lines.values()))
    header = (f"scores in %{extra} (chance)", *(f">{_NAMES[name]}" for name in names))
    return table_text(header, rows)


def score_cells(sets: Sequence[Mapping[str, Mapping[str, Any]]]) -> tuple[list[str], list[list[str]]]:
    """Header and rows for a table with one line a set of evaluate nodes; the node is named where there are several."""
    nodes = list(dict.fromkeys(node for headlines in sets for node in headlines))
    columns = [
        (node, name) for node in nodes for name in _metrics(headlines[node] for headlines in sets if node in headlines)
    ]
    header = [f">{node} {_NAMES[name]}" if len(nodes) > 1 else f">{_NAMES[name]}" for node, name in columns]
    return header, [[_cell(headlines.get(node, {}), name) for node, name in columns] for headlines in sets]


def summed(headlines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One headline of several: means, and under `std` their standard deviations."""
    from reelwright.models.metrics.metric import mean_and_deviation

    plain = [{name: value for name, value in each.items() if isinstance(value, int | float)} for each in headlines]
    means, deviations = mean_and_deviation(plain)
    return {**means, "std": deviations}


def is_headline(name: str) -> bool:
    """Whether ``<node>.<metric>`` or ``val_<metric>`` is shown to people; --json has all."""
    return name.startswith("val_") or split_name(name)[1] in _NAMES


def score_title(name: str) -> str:
    """Heading of ``<node>.<metric>`` or ``val_<metric>``: its name for people, and % where it is shown in percent."""
    node, metric = split_name(name)
    of = node or ("val" if metric.startswith("val_") else "")
    return " ".join(filter(None, (of, *_name_and_unit(metric))))


def score_phrase(name: str, value: float) -> str:
    """The same with its value, without what it is of: ``macro F1 33.3 %``."""
    shown, unit = _name_and_unit(split_name(name)[1])
    return " ".join(filter(None, (shown, score_text(name, value), unit)))


def _name_and_unit(metric: str) -> tuple[str, str]:
    metric = metric.removeprefix("val_")
    return _NAMES.get(metric, metric), "%" if metric in _NAMES and metric not in _AS_IT_IS else ""


def score_text(name: str, value: float, deviation: float | None = None) -> str:
    """``value ± deviation`` below such a heading."""
    metric = split_name(name)[1].removeprefix("val_")
    if metric not in _NAMES:
        return f"{value:.4g}" if deviation is None else f"{value:.4g} ± {deviation:.2g}"
    scale = 1 if metric in _AS_IT_IS else 100
    return f"{value * scale:.1f}" + ("" if deviation is None else f" ± {deviation * scale:.1f}")


def _metrics(headlines: Iterable[Mapping[str, Any]]) -> list[str]:
    found = list(headlines)
    return [name for name in _NAMES if any(name in headline for headline in found)][:_MAX_COLUMNS]


def _cell(headline: Mapping[str, Any], name: str) -> str:
    if name not in headline:
        return "-"
    scale = 1 if name in _AS_IT_IS else 100
    value = score_text(name, headline[name], headline.get("std", {}).get(name))
    if name in headline.get("intervals", {}):
        low, high = (end * scale for end in headline["intervals"][name])
        value += f" [{low:.1f}, {high:.1f}]"
    chance = headline.get(f"chance_{name}", headline.get(f"chance_{name.partition('@')[0]}"))
    return value if chance is None else f"{value} ({chance * scale:.1f})"
