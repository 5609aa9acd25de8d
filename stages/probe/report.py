"""The report of probe: the numbers of all rows side by side, and pictures of the rows; no scripts, one file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from reelwright.models.metrics.metric import metric_named
from reelwright.stages.base.work import Work
from reelwright.stages.evaluate.pages.charts import UNDEFINED, line_chart, value_matrix
from reelwright.stages.evaluate.pages.markup import join, tag
from reelwright.stages.evaluate.pages.page import Page, Pair, Section, Table, render
from reelwright.stages.evaluate.pages.summary import INTERVALS
from reelwright.stages.evaluate.provenance import left_out_sections
from reelwright.stages.probe.config import LEARNT, ProbeConfig
from reelwright.stages.probe.pictures import pictures_section
from reelwright.stages.probe.tasks import TASKS, Probed, headline

_ABOUT = {
    "phase_classification": "A simple classifier learns the phases from rows of labelled videos.",
    "progression": "Linear regression of the time to the end of each phase; R2 is 1 at best, 0 for the mean.",
    "kendalls_tau": "Do the nearest rows of another video come in the same order? 1: yes, 0: any order, -1: reversed.",
    "retrieval": "Are the nearest rows of other videos of the same phase?",
    "time_retrieval": "Are the nearest rows of other videos as far on in their video? A difference of shares.",
    "alignment": "How far from a phase's first row is the row that the other video's first row is aligned with?",
    "linear_probe": "One linear layer, trained on rows with SGD.",
}


def report_page(work: Work, config: ProbeConfig, probed: Sequence[Probed]) -> str:
    """The page as text; the first of ``probed`` is what the scores are of, the others stand beside it."""
    first = probed[0]
    facts = {"videos": f"{len(first.videos)}", "with labels": f"{sum(video.has_labels for video in first.videos)}"}
    for each in probed:
        facts[each.reference.node] = f"{each.reference.key[:12]}, {each.output}"
    sections = [
        _scores_section(config, probed),
        _fractions_section(config, probed),
        _actions_section(config, probed),
        _tau_section(probed),
        *pictures_section(work, config, probed),
        _skipped_section(first),
        *left_out_sections(work, title="Videos left out"),
    ]
    shown = [section for section in sections if section is not None]
    return render(Page(title=f"{work.node}: {', '.join(config.splits)}", facts=facts, sections=shown, articles=[]))


def _scores_section(config: ProbeConfig, probed: Sequence[Probed]) -> Section:
    names = [each.reference.node for each in probed]
    parts: list[Any] = []
    for task in config.tasks:
        scores = [headline(task, each.tasks.get(task, {})) for each in probed]
        metrics = [name for name in dict.fromkeys(name for found in scores for name in found) if _is_shown(name)]
        if metrics:
            heads = [("", ""), *((name, "number") for name in names), ("chance", "number")]
            rows = [_line(name, scores, [each.intervals.get(name) for each in probed]) for name in metrics]
            parts.append(Table(columns=heads, rows=rows, title=_words(task)))
            parts.append(_ABOUT[task])
    of_actions = " Numbers are means over actions." if config.per_action else ""
    parts.append(f"↑ higher is better, ↓ lower is better; the best of each line is in bold.{of_actions}")
    if any(each.intervals for each in probed):
        parts.append(INTERVALS)
    return Section("Scores", parts)


def _is_shown(name: str) -> bool:
    """Shares of labels have a table of their own, chance a column."""
    return not name.endswith("%") and not name.startswith("chance_")


def _line(name: str, scores: Sequence[Mapping[str, float]], between: Sequence[Sequence[float] | None]) -> list[str]:
    metric = metric_named(name)
    known = [found[name] for found in scores if name in found]
    best = min(known, key=metric.sort_key)
    chances = (value for found in scores for key, value in found.items() if _is_chance(key, name))
    cells = [
        join(_value(found.get(name), is_best=len(scores) > 1 and found.get(name) == best), _between(ends))
        for found, ends in zip(scores, between, strict=True)
    ]
    return [f"{_words(name)} {'↓' if metric.is_lower_better else '↑'}", *cells, _value(next(chances, None), empty="")]


def _is_chance(key: str, name: str) -> bool:
    """Whether this is the chance level of a metric; that of phase_accuracy is the same for every classifier."""
    base = key.removeprefix("chance_")
    return base != key and name.partition("@")[0] in {base, f"{base}_svm", f"{base}_svm_linear"}


def _value(value: float | None, *, is_best: bool = False, empty: str = UNDEFINED) -> str:
    text = empty if value is None else f"{value:.3f}"
    return tag("b", text) if is_best else text


def _between(ends: Sequence[float] | None) -> str | None:
    return None if ends is None else tag("div", f"{ends[0]:.3f} to {ends[1]:.3f}", class_="soft")


def _words(name: str) -> str:
    """A metric or a task as people call it."""
    spelt = {"kendalls": "Kendall's", "r2": "R2", "svm": "SVM", "dtw": "DTW", "seconds": "(s)", "rows": "(rows)"}
    number, at, depth = name.partition("@")
    return " ".join(spelt.get(word, word) for word in number.split("_")) + at + depth


def _fractions_section(config: ProbeConfig, probed: Sequence[Probed]) -> Section | None:
    """Numbers over the shares of labelled videos: mean over draws, and their standard deviation."""
    parts: list[Any] = []
    for task in (name for name in config.tasks if name in LEARNT):
        for number in _over_fractions(task, config):
            found = [(each.reference.node, each.tasks.get(task, {})) for each in probed]
            parts += _fraction_table(number, config, found)
    if not parts:
        return None
    seeds = ", ".join(map(str, config.seeds))
    text = (
        f"Mean ± standard deviation over draws of the labelled training videos, seeds {seeds}. All videos are drawn in "
        "one way only: there is no deviation then."
    )
    return Section("With few labels", [*parts, text])


def _over_fractions(task: str, config: ProbeConfig) -> list[str]:
    if task == "phase_classification":
        return [f"{name}_accuracy" for name in config.classifiers]
    return ["r2"] if task == "progression" else ["accuracy"]


def _fraction_table(number: str, config: ProbeConfig, found: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Any]:
    """A table, beside its chart where there are several shares; nothing where there is no number."""
    shares = [f"{100 * fraction:g}%" for fraction in config.fractions]
    rows, lines = [], {}
    for node, values in found:
        means = [values.get(f"{number}@{share}") for share in shares]
        spreads = [values.get(f"{number}_spread@{share}") for share in shares]
        if any(mean is not None for mean in means):
            rows.append([node, *(_spread(mean, spread) for mean, spread in zip(means, spreads, strict=True))])
            pairs = zip(config.fractions, means, strict=True)
            lines[node] = sorted((100 * fraction, mean) for fraction, mean in pairs if mean is not None)
    if not rows:
        return []
    heads = [("", ""), *((share, "number") for share in shares)]
    table = Table(columns=heads, rows=rows, title=_words(number))
    chart = line_chart(lines, title=_words(number), x_name="% of the labelled videos")
    return [Pair([table, chart])] if len(shares) > 1 else [table]


def _spread(mean: float | None, spread: float | None) -> str:
    return _value(mean) if mean is None or spread is None else f"{mean:.3f} ± {spread:.3f}"


def _actions_section(config: ProbeConfig, probed: Sequence[Probed]) -> Section | None:
    """The first number of each task for each action."""
    parts: list[Any] = []
    for task in config.tasks if config.per_action else ():
        number, shown = next(iter(TASKS[task].headline.items()))
        found = [each.tasks.get(task, {}).get("actions", {}) for each in probed]
        actions = sorted(set().union(*found))
        if not actions:
            continue
        key = number.replace("*", f"{config.depths[0]}")
        rows = [[action, *(_value(each.get(action, {}).get(key)) for each in found)] for action in actions]
        heads = [("action", ""), *((each.reference.node, "number") for each in probed)]
        parts.append(Table(columns=heads, rows=rows, title=_words(shown.replace("*", f"{config.depths[0]}"))))
        left = sorted(set().union(*(each.tasks.get(task, {}).get("left_out", ()) for each in probed)))
        if left:
            parts.append(f"Left out, with too few videos: {', '.join(left)}.")
    return Section("Actions", parts) if parts else None


def _tau_section(probed: Sequence[Probed]) -> Section | None:
    charts = list(_tau_charts(probed))
    text = "Kendall's tau of each pair of videos: rows are searched in columns. The first 40 videos are drawn."
    parts = [Pair(charts)] if len(charts) == 2 else charts
    return Section("Kendall's tau of each pair", [*parts, text]) if charts else None


def _tau_charts(probed: Sequence[Probed]) -> Iterator[Markup]:
    for each in probed:
        found = each.tasks.get("kendalls_tau", {})
        groups = [found, *found.get("actions", {}).values()]
        taus = {(pair["query"], pair["key"]): pair["tau"] for group in groups for pair in group.get("pairs", ())}
        names = sorted({name for pair in taus for name in pair})
        if names:
            title = f"Kendall's tau of each pair, {each.reference.node}"
            chart = value_matrix(taus, names, title=title)
            yield tag("figure", tag("figcaption", each.reference.node), tag("div", chart, class_="scroll"))


def _skipped_section(probed: Probed) -> Section | None:
    lines = [tag("li", f"{_words(name)}: {reason}") for name, reason in probed.skipped.items()]
    return Section("Left out", [tag("ul", join(*lines))]) if lines else None
