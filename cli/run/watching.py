"""The command `watch`: all nodes of a run on this or another terminal, live, until it ends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reelwright.cli.format import rate_text, seconds_text, table_text
from reelwright.cli.options import ConfigOption, SetOption
from reelwright.cli.run.scores import score_phrase
from reelwright.pipeline.executors.progress_file import Progress, read_progress
from reelwright.pipeline.plan.graph import FRESH, NodePlan
from reelwright.storage.lock_holder import Owner, machine
from reelwright.storage.locks.locks import holdings, uses
from reelwright.storage.results.runs import RunFolder

if TYPE_CHECKING:
    from rich.console import Console

    from reelwright.pipeline.plan.plan import Planner

HEADER = ("node", "stage", "state", ">done", ">rate", ">loss", ">val", ">left")
_SECONDS_BETWEEN, _SECONDS_BETWEEN_TABLES = 1.0, 10.0  # on a terminal; elsewhere, where lines stay

Row = tuple[str, ...]


def watch(
    config: ConfigOption = None,
    overrides: SetOption = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for a run to start where none is there.")] = False,
) -> None:
    """Show all nodes of a running pipeline live: how far, how quick, loss, time left. Ends when the run ends.

    The run may be on another terminal, or another machine with the same store. Give the -S that it was given.
    """
    from rich.console import Console

    from reelwright.pipeline.config.pipeline_file import find_pipeline_file, load_pipeline
    from reelwright.pipeline.run.runner import open_planner

    file = load_pipeline(find_pipeline_file(config), overrides or ())
    console = Console()
    tables = watched(lambda: open_planner(file), wait=wait, every=_SECONDS_BETWEEN)
    shown = _show_live(tables, console) if console.is_terminal else _show_lines(tables)
    if not shown:
        typer.echo(f"no run of {file.path.name} is at work in {file.store.root}; --wait waits for one")


def watched(open_: Any, *, wait: bool, every: float) -> Iterator[list[Row]]:
    """Rows of the table, anew every so many seconds while a run is at work, and once when it has ended."""
    was_running = False
    while True:
        planner = open_()  # keys of what waits for weights are known only when these are there
        if is_running(planner):
            was_running = True
            yield node_rows(planner)
        elif was_running:
            yield node_rows(planner)
            return
        elif not wait:
            return
        time.sleep(every)


def is_running(planner: Planner) -> bool:
    """Whether a run of this pipeline file is at work, or any process holds one of its nodes."""
    locks = planner.file.store.locks
    keys = {plan.spec_key for plan in planner.plans() if plan.spec_key}
    if any(not use.is_dead and _is_of(use.owner, planner, keys) for use in uses(locks)):
        return True
    return any(held.key in keys for held in holdings(locks))


def _is_of(owner: Owner, planner: Planner, keys: set[str]) -> bool:
    """Whether a process runs this pipeline file; one of that name may lie in another folder too.

    On another machine the folder may have another path: there, one of that name with nodes of ours is taken for it.
    """
    if owner.machine == machine():
        return planner.project.name in owner.keys
    return owner.what == f"run of {planner.file.path.name}" and not keys.isdisjoint(owner.keys)


def node_rows(planner: Planner) -> list[Row]:
    """A row a node, as of `HEADER`."""
    held = {holding.key for holding in holdings(planner.file.store.locks)}
    return [_row(plan, planner, is_held=plan.spec_key in held) for plan in planner.plans()]


def _row(plan: NodePlan, planner: Planner, *, is_held: bool) -> Row:
    name, stage = plan.node.name, plan.node.stage
    progress = read_progress(planner.file.store, plan.spec_key) if is_held else None
    state = "running" if is_held else "done" if plan.state == FRESH else plan.state
    loss, val = _losses(plan, planner) if is_held or state == "done" else ("", "")
    if progress is None:
        return (name, stage, state, "", "", loss, val, "")
    rate, unit = progress.rate
    left = "" if progress.seconds_left is None else seconds_text(progress.seconds_left)
    return (name, stage, state, _done(progress), f"{rate_text(rate)} {unit}/s", loss, val, left)


def _done(progress: Progress) -> str:
    if progress.videos:
        failed = f", {progress.failed:,} failed" if progress.failed else ""
        return f"{progress.done:,} of {progress.videos:,} videos{failed}"
    return f"{progress.amount:,} of {progress.total:,} {progress.unit}"


def _losses(plan: NodePlan, planner: Planner) -> tuple[str, str]:
    """The last loss and metric on val of a training; nothing of other nodes."""
    if plan.node.config.produces != "run" or not plan.key:
        return "", ""
    lines = RunFolder(planner.file.store.run(plan.key)).metrics()
    last = lines[-1] if lines else {}
    loss = f"{last['train_loss']:.4f} (epoch {last['epoch']})" if "train_loss" in last else ""
    wanted = getattr(plan.node.config, "metric", None) or "macro_f1"
    names = [f"val_{wanted}", *(name for name in last if name.startswith("val_") and "loss" not in name)]
    found = next((name for name in names if name in last), None)
    return loss, "" if found is None else score_phrase(found, last[found])


def _show_live(tables: Iterator[list[Row]], console: Console) -> bool:
    from rich.live import Live
    from rich.text import Text

    shown = False
    with Live(console=console, auto_refresh=False) as live:
        for rows in tables:
            live.update(Text(table_text(HEADER, rows), no_wrap=True, overflow="ellipsis"), refresh=True)
            shown = True
    return shown


def _show_lines(tables: Iterator[list[Row]]) -> bool:
    last, at = "", -_SECONDS_BETWEEN_TABLES
    for rows in tables:
        text = table_text(HEADER, rows)
        if text != last and time.monotonic() - at >= _SECONDS_BETWEEN_TABLES:
            typer.echo(f"{text}\n")
            last, at = text, time.monotonic()
        latest = text
    if last and latest != last:
        typer.echo(latest)
    return bool(last)
