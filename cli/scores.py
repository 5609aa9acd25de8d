"""The table of scores: every evaluate node beside its chance level."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reelwright.cli.format import table_text

_NAMES = {
    "top1": "accuracy",
    "macro_f1": "macro F1",
    "mean_average_precision": "mAP",
    "edit": "edit",
    "f1@50": "F1@50",
    "video_top1": "video accuracy",
}
_PERCENT = {"edit", "f1@50"}  # in percent already; the others are shares
_MAX_COLUMNS = 5


def scores_table(headlines: Mapping[str, Mapping[str, Any]]) -> str:
    """``value (chance)`` in percent for each node and metric that any of them has; empty when there is none.

    Chance is that of an answer that never looks: always the commonest class.
    """
    names = [name for name in _NAMES if any(name in headline for headline in headlines.values())][:_MAX_COLUMNS]
    if not names:
        return ""
    rows = [(node, *(_cell(headline, name) for name in names)) for node, headline in headlines.items()]
    header = ("scores in % (chance)", *(f">{_NAMES[name]}" for name in names))
    return table_text(header, rows)


def _cell(headline: Mapping[str, Any], name: str) -> str:
    if name not in headline:
        return "-"
    scale = 1 if name in _PERCENT else 100
    return f"{headline[name] * scale:.1f} ({headline[f'chance_{name}'] * scale:.1f})"
