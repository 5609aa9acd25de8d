"""A page that compares runs: their scores, the settings in which they differ, and their curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reelwright.models.metrics.metric import metric_named, split_name
from reelwright.stages.evaluate.pages.charts import UNDEFINED, Line, bar, line_chart
from reelwright.stages.evaluate.pages.markup import join, tag
from reelwright.stages.evaluate.pages.page import Page, Pair, Part, Section, Table, render
from reelwright.stages.evaluate.scoring import SEGMENTAL
from reelwright.stages.summary.work import is_share, metric_text, metric_title

_MAX_LINES = 4  # colours that can be told apart


@dataclass(frozen=True, kw_only=True)
class ComparedRun:
    """One run, or the mean of several."""

    name: str
    finished: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)  # <node>.<number> or val_<metric>
    deviations: Mapping[str, float] = field(default_factory=dict)  # of a mean
    settings: Mapping[str, str] = field(default_factory=dict)
    records: Sequence[Mapping[str, Any]] = ()  # lines of its metrics.jsonl


def comparison_page(runs: Sequence[ComparedRun], means: Sequence[ComparedRun], *, scores: Sequence[str]) -> str:
    """The page as text. ``scores`` are the columns; the first runs of the order given have their curves drawn."""
    sections = [Section("Runs", [_table(runs, scores)])]
    if means:
        text = "Runs that differ by their seeds alone, mean and standard deviation (n - 1)."
        sections.append(Section("Over seeds", [text, _table(means, scores)]))
    sections += _curves(runs)
    return render(Page(title=f"Runs: {len(runs):,}", facts={}, sections=sections, articles=[]))


def _table(runs: Sequence[ComparedRun], scores: Sequence[str]) -> Table:
    there = [name for name in scores if any(name in run.scores for run in runs)]
    settings = list(dict.fromkeys(name for run in runs for name in run.settings))
    found = {name: [run.scores[name] for run in runs if name in run.scores] for name in there}
    best = {name: min(values, key=metric_named(_metric(name)).sort_key) for name, values in found.items()}
    shares = {name for name, values in found.items() if is_share(_metric(name), values)}
    rows = [
        [
            join(run.name, tag("div", run.finished, class_="soft")),
            *(
                _cell(run, name, is_best=len(runs) > 1 and run.scores.get(name) == best[name], share=name in shares)
                for name in there
            ),
            *(run.settings.get(name, UNDEFINED) for name in settings),
        ]
        for run in runs
    ]
    heads = [(_title(name), "measure") for name in there]
    return Table(columns=[("Run", "class"), *heads, *((name, "settings") for name in settings)], rows=rows)


def _cell(run: ComparedRun, name: str, *, is_best: bool, share: bool) -> str:
    value, metric = run.scores.get(name), _metric(name)
    if value is None:
        return UNDEFINED
    text = metric_text(value, metric, share=share)
    if name in run.deviations:
        text += f" ± {metric_text(run.deviations[name], metric, share=share)}"
    length = value / 100 if metric in SEGMENTAL else value
    return join(tag("b", text) if is_best else text, bar(length, label=run.name) if share and length >= 0 else None)


def _metric(name: str) -> str:
    return split_name(name)[1].removeprefix("val_")


def _title(name: str) -> str:
    node, number = split_name(name)
    where = f"{node}: " if node else "val: " if number.startswith("val_") else ""
    return f"{where}{metric_title(_metric(name))}"


def _curves(runs: Sequence[ComparedRun]) -> list[Section]:
    shown = [run for run in runs if run.records][:_MAX_LINES]
    charts: list[Part] = []
    for name in dict.fromkeys(name for run in shown for record in run.records for name in record):
        if name in {"train_loss", "val_loss"} or (name.startswith("val_") and "loss" not in name):
            lines: dict[str, Line] = {}
            for run in shown:
                points = [(r["epoch"], r[name]) for r in run.records if r.get(name) is not None]
                lines |= {run.name: points} if points else {}
            charts.append(line_chart(lines, title=name, x_name="epoch"))
    if not charts:
        return []
    text = f"The first {len(shown)} of {len(runs)} runs." if len(shown) < len(runs) else ""
    return [Section("Training", [*([text] if text else []), Pair(charts)])]
