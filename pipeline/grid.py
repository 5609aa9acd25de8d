"""Grids: every combination of values of several settings, one run after the other over the same store.

What two combinations share (decoded frames, embeddings, a trained run) is done once, by the first that needs it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from reelwright.pipeline.file import PipelineFile, load_pipeline
from reelwright.pipeline.graph import FRESH, build_graph
from reelwright.pipeline.history import History
from reelwright.pipeline.results import Observer, RunOptions, RunResult
from reelwright.pipeline.runner import open_planner, run_pipeline
from reelwright.stages.registry import produced_by
from reelwright.storage.digests import digest
from reelwright.storage.errors import ConfigError

_WORST_FIRST = (1, 3, 0)  # exit codes
_OPENING, _CLOSING = "[{(", "]})"


# name of what a node will make -> the record it leaves when it has; None where a record lies there already
Unmade = dict[str, Path | None]


@dataclass(frozen=True, kw_only=True)
class Combination:
    """One point of a grid."""

    settings: tuple[tuple[str, str], ...]  # (name, value as written)
    file: PipelineFile


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one combination."""

    combination: Combination
    result: RunResult
    best: dict[str, tuple[str, float]]  # run node -> metric on val that chose the weights, and its best value


def combinations(path: Path, axes: Sequence[str], *, overrides: Sequence[str] = ()) -> list[Combination]:
    """All combinations of ``name=value,value``, the last name varying fastest; every one is checked.

    Raises ConfigError for an axis without values, a name given twice, or settings that are not allowed.
    """
    parsed = [_axis(axis) for axis in axes]
    names = [name for name, _ in parsed]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not names:
        raise ConfigError(
            f"-m: {f'{twice[0]} is given twice' if twice else 'no setting is given'}; "
            "write each once, as in -m train.epochs=5,10 train.seed=0,1"
        )
    found = []
    for values in itertools.product(*(values for _, values in parsed)):
        settings = tuple(zip(names, values, strict=True))
        file = load_pipeline(path, [*overrides, *(f"{name}={value}" for name, value in settings)])
        build_graph(file)
        found.append(Combination(settings=settings, file=file))
    return found


def run_grid(
    grid: Sequence[Combination], observer: Observer, options: RunOptions, *, tell: Callable[[Combination, int], None]
) -> Iterator[Outcome]:
    """Run the combinations in order; one that fails does not stop the others. ``tell`` hears of each before it runs."""
    for number, combination in enumerate(grid):
        tell(combination, number)
        result = run_pipeline(combination.file, observer, options)
        yield Outcome(combination=combination, result=result, best=_best(combination.file, result))


def outcomes_of(grid: Sequence[Combination], results: Sequence[RunResult]) -> list[Outcome]:
    """Combinations with their results, when all have run."""
    pairs = zip(grid, results, strict=True)
    return [Outcome(combination=one, result=result, best=_best(one.file, result)) for one, result in pairs]


def unmade(file: PipelineFile, *, forced: Sequence[str] = ()) -> Unmade:
    """What a run of ``file`` will make; equal names of two files mean the same output.

    A node whose key depends on weights that are not there yet is named by its settings and what it reads.
    """
    planner = open_planner(file, forced=forced)
    names: dict[str, str] = {}
    found: Unmade = {}
    for plan in planner.plans():
        parents = [names[parent] for parent in plan.node.parents]
        known = plan.spec_key or digest([plan.node.stage, plan.node.config.spec(), parents])
        names[plan.node.name] = known
        if plan.state != FRESH or plan.record is None:
            record = file.store.node(plan.key) / "record.json" if plan.key and plan.record is None else None
            found[known] = record
    return found


def worst_exit_code(outcomes: Sequence[Outcome]) -> int:
    """1 where any failed, else 3 where any video failed, else 0."""
    codes = {outcome.result.exit_code for outcome in outcomes}
    return next((code for code in _WORST_FIRST if code in codes), 0)


def split_values(text: str) -> list[str]:
    """Values between commas; commas inside brackets or quotes do not separate: ``[1,2],[3]`` are two values.

    Raises ValueError for a bracket or quote that is not closed, and for an empty value.
    """
    values, depth, quote = [""], 0, ""
    for letter in text:
        if letter == "," and not depth and not quote:
            values.append("")
            continue
        values[-1] += letter
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        else:
            depth += (letter in _OPENING) - (letter in _CLOSING)
    if depth or quote:
        raise ValueError(f"{quote or 'a bracket'} is not closed")
    values = [value.strip() for value in values]
    if not all(values):
        raise ValueError("a value is empty")
    return values


def _axis(text: str) -> tuple[str, list[str]]:
    name, equals, values = text.partition("=")
    if not equals:
        raise ConfigError(f"-m {text!r}: write name=value,value, such as train.epochs=5,10")
    try:
        return name, split_values(values)
    except ValueError as error:
        raise ConfigError(f"-m {text!r}: {error}") from None


def _best(file: PipelineFile, result: RunResult) -> dict[str, tuple[str, float]]:
    planner = open_planner(file)
    ended = [node for node in result.nodes if node.state not in {"failed", "not run"}]
    done = [node.node for node in ended if produced_by(node.stage) == "run"]
    found = {}
    for name in done:
        record = planner.plan(name).record
        best = History(file.store).best(record) if record is not None else None
        if best is not None:
            found[name] = best
    return found
