"""What differs between two pipeline files or two finished nodes; and all runs of a store side by side."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reelwright.models.metrics.metric import mean_and_deviation, metric_named, split_name
from reelwright.pipeline.config.pipeline_file import PipelineFile
from reelwright.pipeline.plan.history import History
from reelwright.pipeline.plan.plan import Planner
from reelwright.pipeline.plan.reasons import MISSING, differing, flat
from reelwright.pipeline.run.runner import open_planner
from reelwright.stages.base.registry import IMPORTS_RUN, produced_by
from reelwright.storage.digests import digest
from reelwright.storage.errors import ConfigError, nearest
from reelwright.storage.ledger.records import Record


@dataclass(frozen=True, kw_only=True)
class Change:
    """One setting that differs; a side that has no such setting is MISSING."""

    name: str
    old: Any
    new: Any
    counts: bool = True  # False: it changes how the work is done, but neither a key nor a result


@dataclass(frozen=True, kw_only=True)
class NodeChange:
    """One node whose keys differ; an empty key is not known yet, None says that there is no such node."""

    node: str
    old: str | None
    new: str | None


@dataclass(frozen=True, kw_only=True)
class ScoreChange:
    """One score that differs; None where one side has none."""

    node: str
    metric: str
    old: float | None
    new: float | None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All that differs between two things."""

    settings: tuple[Change, ...]
    nodes: tuple[NodeChange, ...]
    scores: tuple[ScoreChange, ...]


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """One run of a store."""

    record: Record
    settings: Mapping[str, Any]  # those that differ between the runs, by dotted name
    scores: Mapping[str, float] = field(default_factory=dict)  # val_<metric> at its best; <evaluate node>.<metric>
    targets: Mapping[str, str] = field(default_factory=dict)  # evaluate node -> digest of videos and labels scored on
    sources: Mapping[str, str] = field(default_factory=dict)  # digests of files behind it, by dotted name


@dataclass(frozen=True, kw_only=True)
class SeedGroup:
    """Runs that differ by their seeds alone."""

    runs: tuple[RunRow, ...]
    means: Mapping[str, float]  # of the scores that all of them have
    deviations: Mapping[str, float]  # standard deviation, with n - 1 below

    @property
    def settings(self) -> dict[str, Any]:
        """Those of `RunRow` that all of them share."""
        return _but_seeds(self.runs[0].settings)


def diff_files(old: PipelineFile, new: PipelineFile) -> Comparison:
    """Settings of two pipeline files, and the keys and scores that their nodes have in their stores."""
    planners = open_planner(old, read=True), open_planner(new, read=True)
    keys = [{plan.node.name: plan.key for plan in planner.plans()} for planner in planners]
    return Comparison(
        settings=tuple(_file_changes(old, new)),
        nodes=tuple(_key_changes(*keys)),
        scores=tuple(_score_changes(*(_file_scores(planner) for planner in planners))),
    )


def diff_records(histories: tuple[History, History], old: Record, new: Record) -> Comparison:
    """Two finished nodes with all that is behind them: settings, keys of their inputs, scores that rest on them."""
    sides = list(zip(histories, (old, new), strict=True))
    before, after = (history.settings(record) for history, record in sides)
    return Comparison(
        settings=tuple(Change(name=name, old=a, new=b) for name, a, b in differing(before, after)),
        nodes=tuple(_key_changes(*(dict(_chain(history, record)) for history, record in sides))),
        scores=tuple(_score_changes(*(_record_scores(history, record) for history, record in sides))),
    )


def run_rows(history: History) -> list[RunRow]:
    """All trained models of a store, oldest first, with the settings in which they differ.

    Models that were taken to predict new videos, and not scored, are left out.
    """
    scores = {record.key: _flat_scores(_record_scores(history, record)) for record in history.runs}
    runs = [record for record in history.runs if scores[record.key] or record.stage != IMPORTS_RUN]
    settings = {record.key: history.settings(record) for record in runs}
    names = differing_settings(list(settings.values()))
    return [
        RunRow(
            record=record,
            settings={name: settings[record.key][name] for name in names if name in settings[record.key]},
            scores=scores[record.key],
            targets=history.targets_of(record),
            sources=history.sources(record),
        )
        for record in runs
    ]


def seed_groups(rows: Sequence[RunRow]) -> list[SeedGroup]:
    """Two runs and more that differ by seeds alone (`seed`, `init_from.seed`), scored on the same videos and labels."""
    groups: dict[str, list[RunRow]] = {}
    for row in rows:
        same = [_but_seeds(row.settings), dict(row.targets), dict(row.sources)]
        groups.setdefault(digest([row.record.stage, row.record.material["version"], *same]), []).append(row)
    found = [(runs, *mean_and_deviation([row.scores for row in runs])) for runs in groups.values() if len(runs) > 1]
    return [SeedGroup(runs=tuple(runs), means=means, deviations=spread) for runs, means, spread in found]


def _but_seeds(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name.rpartition(".")[2] != "seed"}


def mixed_targets(rows: Sequence[RunRow]) -> list[str]:
    """Evaluate nodes whose scores are on other videos or labels in some rows than in others, or not known on which."""
    found: dict[str, set[str]] = {}
    for row in rows:
        for node, target in row.targets.items():
            found.setdefault(node, set()).add(target)
    return [node for node, targets in found.items() if len(targets) > 1]


def differing_settings(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Dotted names that do not have the same value in all mappings; those that all have come first."""
    names = dict.fromkeys(name for values in settings for name in values)
    varied = [
        name
        for name in names
        if any(next(differing(settings[0].get(name, MISSING), values.get(name, MISSING)), None) for values in settings)
    ]
    return sorted(varied, key=lambda name: sum(name not in values for values in settings))


def sort_rows(rows: Sequence[RunRow], metric: str) -> list[RunRow]:
    """Best first, without a score last. ``metric`` may leave out the evaluate node.

    Raises ConfigError for a metric that no run has, or that several evaluate nodes have.
    """
    known = sorted({name for row in rows for name in row.scores})
    fitting = [name for name in known if metric in {name, split_name(name)[1], name.removeprefix("val_")}]
    exact = [metric] if metric in known else fitting
    if len(exact) != 1:
        message = f"more than one: {', '.join(exact)}" if exact else f"no score of any run.{nearest(metric, known)}"
        raise ConfigError(f"--sort {metric!r}: {message} There are: {', '.join(known) or 'none'}")
    best_first = metric_named(exact[0]).sort_key
    scored = [row for row in rows if exact[0] in row.scores]
    return sorted(scored, key=lambda row: best_first(row.scores[exact[0]])) + [row for row in rows if row not in scored]


def scores_of(record: Record) -> dict[str, float]:
    """The headline scores of a finished evaluate or probe node. Raises ConfigError for another kind of node."""
    if produced_by(record.stage) != "scores":
        raise ConfigError(f"{record.node} is a {record.stage} node and has no scores; name an evaluate or probe node")
    return dict(_headline(record.outputs))


def harmonic_mean(scores: Mapping[str, float]) -> float:
    """The harmonic mean of shares by name, such as accuracies on several data sets (CAST's measure of balance).

    0 where one of them is. Raises ConfigError for fewer than two, for what is no share, and where less is better.
    """
    if len(scores) < 2:
        raise ConfigError("a mean of scores needs at least two of them")
    for name, value in scores.items():
        if metric_named(name.rpartition(":")[2]).is_lower_better or not 0 <= value <= 1:
            raise ConfigError(
                f"{name} is {value:.4g}: only shares from 0 to 1 of which more is better have a harmonic mean, such as "
                "top1; leave it out"
            )
    return statistics.harmonic_mean(scores.values())


def _file_changes(old: PipelineFile, new: PipelineFile) -> Iterator[Change]:
    """Settings of the blocks and of the nodes; a node that only one file has is one line."""
    for block in ("videos", "labels"):
        sides = [getattr(file, block) for file in (old, new)]
        before, after = ({} if side is None else side.model_dump(mode="json") for side in sides)
        yield from (Change(name=name, old=a, new=b) for name, a, b in differing(before, after, block))
    for name in dict.fromkeys([*old.nodes, *new.nodes]):
        if name not in old.nodes or name not in new.nodes:
            uses = [file.nodes[name].stage if name in file.nodes else MISSING for file in (old, new)]
            yield Change(name=f"{name}.uses", old=uses[0], new=uses[1])
            continue
        before, after = old.nodes[name], new.nodes[name]
        counting = {path for config in (before, after) for path in _counting(config)}
        found = {"uses": before.stage, **before.model_dump(mode="json")}
        for path, a, b in differing(found, {"uses": after.stage, **after.model_dump(mode="json")}):
            yield Change(name=f"{name}.{path}", old=a, new=b, counts=path in counting)


def _counting(config: Any) -> Iterator[str]:
    """Dotted names of the settings that change a key: the spec, inputs and sources."""
    yield "uses"
    for name, _ in flat(config.spec()):
        parts = name.split(".")
        yield from (".".join(parts[:stop]) for stop in range(1, len(parts) + 1))
    yield from (name for name in type(config).model_fields if config.role(name) in {"input", "source"})


def _key_changes(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[NodeChange]:
    for name in dict.fromkeys([*old, *new]):
        if old.get(name) != new.get(name):
            yield NodeChange(node=name, old=old.get(name), new=new.get(name))


def _chain(history: History, record: Record, path: str = "") -> Iterator[tuple[str, str]]:
    """(input path, key) of a record and all behind it."""
    yield path or record.stage, record.key
    for name, parent in history.parents(record):
        yield from _chain(history, parent, f"{path}.{name}" if path else name)


def _file_scores(planner: Planner) -> dict[str, dict[str, float]]:
    history = History(planner.file.store)
    found: dict[str, dict[str, float]] = {}
    for plan in planner.plans():
        if plan.record is not None and plan.node.config.produces in {"run", "scores"}:
            best = history.best(plan.record) if plan.node.config.produces == "run" else None
            found[plan.node.name] = dict([best] if best else _headline(plan.record.outputs))
    return found


def _record_scores(history: History, record: Record) -> dict[str, dict[str, float]]:
    produces = produced_by(record.stage)
    if produces == "scores":
        return {"": dict(_headline(record.outputs))}
    if produces != "run":
        return {}
    best = history.best(record)
    found = {node: dict(_headline(outputs)) for node, outputs in history.scores_of(record).items()}
    return {**({"": dict([best])} if best else {}), **found}


def _headline(outputs: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Scores among the outputs of an evaluate record: numbers that are neither counts nor chance levels."""
    for name, value in outputs.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_number and not name.startswith(("num_", "chance_")):
            yield name, float(value)


def _flat_scores(scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    return {
        f"{node}.{name}" if node else name: value for node, values in scores.items() for name, value in values.items()
    }


def _score_changes(
    old: Mapping[str, Mapping[str, float]], new: Mapping[str, Mapping[str, float]]
) -> Iterator[ScoreChange]:
    for node in dict.fromkeys([*old, *new]):
        before, after = old.get(node, {}), new.get(node, {})
        for metric in dict.fromkeys([*before, *after]):
            if before.get(metric) != after.get(metric):
                yield ScoreChange(node=node, metric=metric, old=before.get(metric), new=after.get(metric))
