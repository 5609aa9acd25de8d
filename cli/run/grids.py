"""What `run -m` prints: a head line before each combination, and a table of all at the end."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from reelwright.cli.format import failure_table, print_json, run_json, seconds_text, table_text
from reelwright.cli.run.scores import score_cells, score_text, score_title, summed
from reelwright.pipeline.config.seeds import base_name
from reelwright.pipeline.run.results import FAILED, RAN, SKIPPED
from reelwright.pipeline.run.runner import interruptible
from reelwright.stages.base.registry import produced_by

if TYPE_CHECKING:
    from reelwright.pipeline.inspect.grid import Combination, Outcome
    from reelwright.pipeline.run.results import RunOptions


def run_grid_and_print(
    grid: Sequence[Combination], options: RunOptions, *, dry_run: bool, as_json: bool, processes: int
) -> None:
    """Run all combinations, or show their plans; exits with the worst code when it is not 0."""
    from reelwright.cli.progress import Watcher
    from reelwright.cli.run.planning import show_plan
    from reelwright.pipeline.inspect.grid import run_grid, worst_exit_code

    if dry_run:
        for number, combination in enumerate(grid):
            typer.echo(f"[{number + 1}/{len(grid)}] {combination}", err=as_json)
            show_plan(combination.file, options, as_json=as_json)
        return

    def report(number: int, state: str) -> None:
        print(f"[{number + 1}/{len(grid)}] {f'{state}: ' if state else ''}{grid[number]}", file=sys.stderr)

    with Watcher() as watcher, interruptible():
        outcomes = run_grid(grid, watcher, options, report=report, processes=processes)
    code = worst_exit_code(outcomes)
    if as_json:
        print_json({"exit_code": code, "combinations": [_outcome_json(outcome) for outcome in outcomes]})
    else:
        typer.echo(_summary(outcomes))
    sys.stdout.flush()
    if code:
        raise typer.Exit(code)


def _summary(outcomes: Sequence[Outcome]) -> str:
    """Settings, best value on val and scores of every combination; then what failed."""
    names = [name for name, _ in outcomes[0].combination.settings]
    runs = list(dict.fromkeys(run for outcome in outcomes for run in outcome.best))
    headlines = [
        {node.node: node.outputs for node in outcome.result.nodes if produced_by(node.stage) == "scores"}
        for outcome in outcomes
    ]
    score_header, score_rows = score_cells(headlines)
    metrics = {run: next(o.best[run][0] for o in outcomes if run in o.best) for run in runs}
    bests = [f">{run} {score_title(metric)}" for run, metric in metrics.items()]
    rows = [
        (
            *(value for _, value in outcome.combination.settings),
            *(score_text(*outcome.best[run]) if run in outcome.best else "-" for run in runs),
            *scores,
            _state(outcome),
            seconds_text(sum(node.seconds for node in outcome.result.nodes)),
        )
        for outcome, scores in zip(outcomes, score_rows, strict=True)
    ]
    rows += _means(outcomes, metrics, headlines)
    text = table_text((*(f">{name}" for name in names), *bests, *score_header, "state", ">time"), rows)
    failed = {failure: None for outcome in outcomes for failure in outcome.result.failures}
    return f"{text}\n\n{len(failed)} failed:\n{failure_table(list(failed))}" if failed else text


def _means(
    outcomes: Sequence[Outcome], metrics: Mapping[str, str], headlines: Sequence[dict[str, dict[str, Any]]]
) -> list[tuple[str, ...]]:
    """A line for each set of combinations that differ by seeds alone and did not fail: mean ± standard deviation."""
    from reelwright.models.metrics.metric import mean_and_deviation

    groups: dict[tuple[str, ...], list[int]] = {}
    for number, outcome in enumerate(outcomes):
        settings = outcome.combination.settings
        apart = tuple("mean" if _is_seed(name, outcome.combination) else value for name, value in settings)
        if "mean" in apart and not any(node.state in {FAILED, SKIPPED} for node in outcome.result.nodes):
            groups.setdefault(apart, []).append(number)
    means: list[tuple[str, ...]] = []
    for values, members in groups.items():
        if len(members) < 2:
            continue
        best, spread = mean_and_deviation([{run: b[1] for run, b in outcomes[n].best.items()} for n in members])
        cells = [score_text(name, best[run], spread[run]) if run in best else "-" for run, name in metrics.items()]
        found = {node: summed([headlines[n][node] for n in members]) for node in headlines[members[0]]}
        means.append((*values, *cells, *score_cells([*headlines, found])[1][-1], f"of {len(members)} seeds", ""))
    return means


def _is_seed(name: str, combination: Combination) -> bool:
    """Whether a setting is the seed of a node, such as train.seed; other seeds (of views, of pictures) are none."""
    node, _, rest = name.removeprefix("stages.").partition(".")
    return rest == "seed" and node in map(base_name, combination.file.nodes)


def _state(outcome: Outcome) -> str:
    broken = [node for node in outcome.result.nodes if node.state == FAILED]
    if broken:
        return f"{broken[0].node} failed: {broken[0].message.splitlines()[0]}"
    ran = [node.node for node in outcome.result.nodes if node.state == RAN]
    return f"ran {', '.join(ran)}" if ran else "up to date"


def _outcome_json(outcome: Outcome) -> dict[str, Any]:
    best = {run: {"metric": metric, "value": value} for run, (metric, value) in outcome.best.items()}
    return {"settings": dict(outcome.combination.settings), "best": best, **run_json(outcome.result)}
