"""Summary: the headline numbers of several nodes -> their mean and standard deviation, and a page with all of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from reelwright.models.metrics.metric import Numbers, mean_and_deviation, metric_named
from reelwright.stages.base.config import parse_config
from reelwright.stages.base.work import InputRef, Reporter, Work
from reelwright.stages.evaluate.pages.charts import UNDEFINED
from reelwright.stages.evaluate.pages.markup import tag
from reelwright.stages.evaluate.pages.page import Page, Section, Table, render
from reelwright.stages.evaluate.pages.summary import metric_name
from reelwright.stages.evaluate.scoring import SEGMENTAL
from reelwright.stages.evaluate.tables import write_json
from reelwright.stages.summary.config import SummaryConfig
from reelwright.storage.errors import StageError
from reelwright.storage.files import replacing_folder
from reelwright.storage.store import Store

_COUNTS, _CHANCE = "num_", "chance_"
_NO_SHARES = ("_seconds", "_rows", "_positives", "_negatives")  # how their names end


def run(work: Work, reporter: Reporter) -> dict[str, Any]:
    """Write `Store.report(key)`: metrics.json with the numbers of every node, their mean and spread; and report.html.

    Returns the mean of every number that all nodes have, in its own unit, `num_runs`, and `std`: by number, the
    standard deviation over the nodes, with n - 1 below (none of one node, none of chance levels). Counts are there
    where all nodes have the same. Raises StageError where the nodes have no number in common.
    """
    config = parse_config(SummaryConfig, dict(work.config), where=work.node)
    references, store = work.inputs["scores"], Store.at(work.store)
    found = {reference.node: _numbers(store, reference) for reference in references}
    sets = list(found.values())
    means, deviations = mean_and_deviation(sets)
    measured = [name for name in means if not name.startswith(_COUNTS)]
    if not measured:
        raise StageError(f"{work.node}: {', '.join(found)} have no measure in common; name nodes with the same ones")
    partly = sorted({name for numbers in sets for name in numbers} - set(means))
    if partly:
        reporter.note(f"not of all nodes, so without a mean: {', '.join(partly)}")
    scored = [name for name in measured if not name.startswith(_CHANCE)]
    counts = {name: sets[0][name] for name in means if name.startswith(_COUNTS) and len({n[name] for n in sets}) == 1}
    std = {name: deviations[name] for name in scored if name in deviations}
    summary = {"num_runs": len(sets), **counts, **{name: means[name] for name in measured}, "std": std}
    with replacing_folder(store.report(work.key)) as folder:
        nodes = [{"node": each.node, "key": each.key, "scores": dict(found[each.node])} for each in references]
        write_json(folder / "metrics.json", {"key": work.key, "headline": summary, "nodes": nodes})
        if config.report:
            page = _page(work, references, found, names=scored, means=means, std=std)
            (folder / "report.html").write_text(render(page), encoding="utf-8")
    return summary


def _numbers(store: Store, reference: InputRef) -> Numbers:
    """The headline numbers of one node."""
    path = store.report(reference.key) / "metrics.json"
    headline = json.loads(path.read_text(encoding="utf-8"))["headline"]
    return {name: value for name, value in headline.items() if isinstance(value, int | float)}


def _page(
    work: Work,
    references: Sequence[InputRef],
    found: Mapping[str, Numbers],
    *,
    names: Sequence[str],
    means: Numbers,
    std: Numbers,
) -> Page:
    columns = [("", ""), *((head, "number") for head in ("mean", "standard deviation", "lowest", "highest", "chance"))]
    links = [tag("a", each.node, href=f"../{each.key}/report.html") for each in references]
    rows: list[list[str]] = []
    each: list[list[str]] = []
    for name in names:
        values = [numbers[name] for numbers in found.values()]
        share, chance = is_share(name, values), means.get(f"{_CHANCE}{name}")
        summed = (means[name], std.get(name), min(values), max(values), chance)
        for lines, numbers in ((rows, summed), (each, values)):
            lines.append([metric_title(name), *(metric_text(value, name, share=share) for value in numbers)])
    parts: list[Any] = [
        Table(columns=columns, rows=rows),
        f"Over {len(found)} nodes; the standard deviation has n - 1 below. ↑ higher is better, ↓ lower is better.",
        Table(columns=[("", ""), *((node, "number") for node in found)], rows=each, title="Each node"),
        Markup("Reports: ") + Markup(", ").join(links),
    ]
    return Page(title=f"{work.node}: mean of {len(found)}", facts={}, sections=[Section("Scores", parts)], articles=[])


def metric_title(name: str) -> str:
    """A headline number as people call it, and which way is better."""
    unit, _, rest = name.partition("_")
    shown = f"Videos: {metric_name(rest)}" if unit == "video" else metric_name(name)
    return f"{shown} {'↓' if metric_named(name).is_lower_better else '↑'}"


def is_share(name: str, values: Sequence[float]) -> bool:
    """Whether a measure of which these are all values is a share, or in percent already: no loss, time or count."""
    plain = name.partition("@")[0]
    is_other = plain.endswith(_NO_SHARES) or "loss" in plain.split("_")
    return name in SEGMENTAL or (not is_other and all(abs(value) <= 1 for value in values))


def metric_text(value: float | None, name: str, *, share: bool) -> str:
    """What `is_share` in percent, where it is not already; other numbers stay."""
    if value is None:
        return UNDEFINED
    if not share:
        return f"{value:.2f} s" if name.partition("@")[0].endswith("_seconds") else f"{value:.4g}"
    return f"{value if name in SEGMENTAL else 100 * value:.1f} %"
