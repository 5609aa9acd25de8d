"""How compare shows runs: tables of them and of means over seeds, a CSV of all scores, a page with curves."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reelwright.cli.format import table_text
from reelwright.cli.run.scores import is_headline, score_text, score_title
from reelwright.models.metrics.metric import split_name
from reelwright.pipeline.config.seeds import base_name
from reelwright.pipeline.plan.history import short
from reelwright.pipeline.plan.reasons import shown
from reelwright.storage.results.runs import RunFolder
from reelwright.storage.store import Store

if TYPE_CHECKING:
    from reelwright.pipeline.inspect.comparison import RunRow, SeedGroup


def run_table(rows: Sequence[RunRow], sort: str | None) -> str:
    """A line a run."""
    from reelwright.pipeline.inspect.comparison import mixed_targets

    known = dict.fromkeys(name for row in rows for name in row.scores)
    scores = [name for name in known if is_headline(name) or sort in {name, split_name(name)[1]}]
    settings = list(dict.fromkeys(name for row in rows for name in row.settings))
    mixed = mixed_targets(rows)
    body = [
        (
            short(row.record.key),
            row.record.node,
            row.record.finished[:16].replace("T", " "),
            *(score_text(name, row.scores[name]) if name in row.scores else "-" for name in scores),
            *(_on(row.targets.get(node)) for node in mixed),
            *(setting_text(name, row.settings[name]) if name in row.settings else "-" for name in settings),
        )
        for row in rows
    ]
    heads = [*(f">{score_title(name)}" for name in scores), *(f"{node} on" for node in mixed)]
    return table_text(("key", "node", "finished (UTC)", *heads, *settings), body)


def seed_table(groups: Sequence[SeedGroup]) -> str:
    """A line for runs that differ by their seeds alone."""
    scores = [name for name in dict.fromkeys(name for group in groups for name in group.means) if is_headline(name)]
    settings = list(dict.fromkeys(name for group in groups for name in group.settings))
    body = [
        (
            base_name(group.runs[0].record.node),
            str(len(group.runs)),
            *(score_text(s, group.means[s], group.deviations[s]) if s in group.means else "-" for s in scores),
            *(setting_text(name, group.settings.get(name, "-")) for name in settings),
        )
        for group in groups
    ]
    return table_text(("mean of", ">runs", *(f">{score_title(name)}" for name in scores), *settings), body)


def _on(targets: str | None) -> str:
    """What scores are on, by the first digits of its digest."""
    return "-" if targets is None else short(targets) or "not known"


def number_text(value: float | None) -> str:
    """A score; a dash where there is none."""
    return "-" if value is None else f"{value:.4g}"


def setting_text(name: str, value: Any) -> str:
    """Sets of videos are named by the first digits of their digest."""
    if name == "videos":
        return short(value)
    return value if isinstance(value, str) else shown(value)


def _csv(rows: Sequence[RunRow], groups: Sequence[SeedGroup], store: Store) -> str:
    """Every score as it is stored, and every setting that differs; a line a run."""
    del groups, store
    scores = list(dict.fromkeys(name for row in rows for name in row.scores))
    settings = list(dict.fromkeys(name for row in rows for name in row.settings))
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["key", "node", "finished", *scores, *settings])
    for row in rows:
        values = [row.scores.get(name, "") for name in scores]
        record = row.record
        chosen = [setting_text(name, row.settings[name]) if name in row.settings else "" for name in settings]
        writer.writerow([record.key, record.node, record.finished, *values, *chosen])
    return file.getvalue()


def _page(rows: Sequence[RunRow], groups: Sequence[SeedGroup], store: Store) -> str:
    from reelwright.stages.summary.comparison_page import ComparedRun, comparison_page

    def texts(settings: Mapping[str, Any]) -> dict[str, str]:
        return {name: setting_text(name, value) for name, value in settings.items()}

    runs = [
        ComparedRun(
            name=f"{row.record.node} {short(row.record.key)}",
            finished=row.record.finished[:16].replace("T", " "),
            scores=row.scores,
            settings=texts(row.settings),
            records=RunFolder(store.run(row.record.key)).metrics(),
        )
        for row in rows
    ]
    means = [
        ComparedRun(
            name=f"{base_name(group.runs[0].record.node)}, {len(group.runs)} runs",
            scores=group.means,
            deviations=group.deviations,
            settings=texts(group.settings),
        )
        for group in groups
    ]
    scores = [name for name in dict.fromkeys(name for row in rows for name in row.scores) if is_headline(name)]
    return comparison_page(runs, means, scores=scores)


WRITERS: dict[str, Callable[[Sequence[RunRow], Sequence[SeedGroup], Store], str]] = {".html": _page, ".csv": _csv}
