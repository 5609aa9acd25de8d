"""What `run -m` prints: a head line before each combination, and a table of all at the end."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from reelwright.cli.format import failure_table, print_json, run_json, seconds_text, table_text
from reelwright.cli.scores import score_cells
from reelwright.pipeline.results import FAILED, RAN
from reelwright.stages.registry import produced_by

if TYPE_CHECKING:
    from reelwright.pipeline.grid import Combination, Outcome
    from reelwright.pipeline.results import RunOptions


@dataclass(frozen=True, kw_only=True)
class GridCommand:
    """What a person typed after `run -m`."""

    path: Path
    axes: Sequence[str]
    overrides: Sequence[str]
    dry_run: bool
    as_json: bool
    parallel: int  # processes


def run_grid_and_tell(command: GridCommand, options: RunOptions) -> None:
    """Run all combinations, or show their plans; exits with the worst code when it is not 0."""
    from reelwright.cli.planning import show_plan
    from reelwright.pipeline.grid import combinations, worst_exit_code

    grid = combinations(command.path, command.axes, overrides=command.overrides)
    as_json = command.as_json
    if command.dry_run:
        for number, combination in enumerate(grid):
            typer.echo(_head(combination, number, len(grid)), err=as_json)
            show_plan(combination.file, options, as_json=as_json)
        return
    outcomes = _run_all(grid, command, options)
    code = worst_exit_code(outcomes)
    if as_json:
        print_json({"exit_code": code, "combinations": [_outcome_json(outcome) for outcome in outcomes]})
    else:
        typer.echo(_summary(outcomes))
    sys.stdout.flush()
    if code:
        raise typer.Exit(code)


def _run_all(grid: Sequence[Combination], command: GridCommand, options: RunOptions) -> list[Outcome]:
    from reelwright.cli.parallel import run_parallel
    from reelwright.cli.progress import Watcher
    from reelwright.cli.run import stopping
    from reelwright.pipeline.grid import outcomes_of, run_grid
    from reelwright.pipeline.reading import read_videos

    watcher = Watcher()
    with stopping(watcher):
        if command.parallel > 1:
            read_videos(
                grid[0].file,
                watcher,
                jobs=options.jobs,
                anew=options.retry_failed,
                quarantined=options.retry_quarantined,
            )
            arguments = _arguments(command, options)
            return outcomes_of(grid, run_parallel(grid, arguments, processes=command.parallel))
        told = partial(_tell, count=len(grid))
        return list(run_grid(grid, watcher, options, tell=told))


def _arguments(command: GridCommand, options: RunOptions) -> list[str]:
    """The options of a grid, as they are typed for one of its combinations."""
    named = {"--only": options.only, "--until": options.until, "--force": options.force, "-S": command.overrides}
    found = ["-c", str(command.path), "--retries", str(options.retries)]
    found += [part for option, values in named.items() for value in values for part in (option, value)]
    found += ["--limit", str(options.limit)] if options.limit is not None else []
    found += ["-j", str(options.jobs)] if options.jobs is not None else []
    found += [
        part for name, value in options.cluster.items() if value is not None for part in (f"--{name}", str(value))
    ]
    found += ["-k"] if options.keep_going else []
    found += ["--retry-quarantined"] if options.retry_quarantined else []
    return found if options.retry_failed else [*found, "--no-retry"]


def _tell(combination: Combination, number: int, *, count: int) -> None:
    print(_head(combination, number, count), file=sys.stderr)


def _head(combination: Combination, number: int, count: int) -> str:
    return f"[{number + 1}/{count}] {' '.join(f'{name}={value}' for name, value in combination.settings)}"


def _summary(outcomes: Sequence[Outcome]) -> str:
    """Settings, best value on val and scores of every combination; then what failed."""
    names = [name for name, _ in outcomes[0].combination.settings]
    runs = list(dict.fromkeys(run for outcome in outcomes for run in outcome.best))
    headlines = [
        {node.node: node.outputs for node in outcome.result.nodes if produced_by(node.stage) == "scores"}
        for outcome in outcomes
    ]
    score_header, score_rows = score_cells(headlines)
    bests = [f">{run} val {next(o.best[run][0] for o in outcomes if run in o.best)[4:]}" for run in runs]
    rows = [
        (
            *(value for _, value in outcome.combination.settings),
            *(f"{outcome.best[run][1]:.4f}" if run in outcome.best else "-" for run in runs),
            *scores,
            _state(outcome),
            seconds_text(sum(node.seconds for node in outcome.result.nodes)),
        )
        for outcome, scores in zip(outcomes, score_rows, strict=True)
    ]
    text = table_text((*(f">{name}" for name in names), *bests, *score_header, "state", ">time"), rows)
    failed = {failure: None for outcome in outcomes for failure in outcome.result.failures}
    return f"{text}\n\n{len(failed)} failed:\n{failure_table(list(failed))}" if failed else text


def _state(outcome: Outcome) -> str:
    broken = [node for node in outcome.result.nodes if node.state == FAILED]
    if broken:
        return f"{broken[0].node} failed: {broken[0].message.splitlines()[0]}"
    ran = [node.node for node in outcome.result.nodes if node.state == RAN]
    return f"ran {', '.join(ran)}" if ran else "up to date"


def _outcome_json(outcome: Outcome) -> dict[str, Any]:
    best = {run: {"metric": metric, "value": value} for run, (metric, value) in outcome.best.items()}
    return {"settings": dict(outcome.combination.settings), "best": best, **run_json(outcome.result)}
