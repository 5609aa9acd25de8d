"""What `status` and `run -n` print: the plan, what it will cost, and who works on it now."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from reelwright.cli.format import bytes_text, failure_table, plan_json, plan_table, print_json, rate_text, seconds_text
from reelwright.pipeline.executors.progress_file import Progress, read_progress
from reelwright.pipeline.plan.graph import FRESH, NodePlan
from reelwright.pipeline.plan.plan import Planner
from reelwright.pipeline.plan.synthetic import why_to_make
from reelwright.pipeline.run.checks import check_before_run
from reelwright.pipeline.run.estimate import MAKING, Estimate, estimates
from reelwright.pipeline.run.results import all_failures
from reelwright.pipeline.run.runner import open_planner
from reelwright.storage.lock_holder import Holding
from reelwright.storage.locks.locks import holdings

if TYPE_CHECKING:
    from reelwright.pipeline.config.pipeline_file import PipelineFile
    from reelwright.pipeline.run.results import RunOptions


_PROBE = " (`doctor --estimate` tries one video)"


def _echo_notes(planner: Planner, warnings: Sequence[str]) -> None:
    """What people should know of their videos and labels."""
    for note in planner.dataset.notes:
        typer.echo(note)
    for warning in warnings:
        typer.echo(f"warning: {warning}", err=True)


def show_plan(file: PipelineFile, options: RunOptions | None, *, as_json: bool) -> bool:
    """Print the plan; returns whether everything is up to date.

    With the ``options`` of a run it is that of one: with what it will cost, and refused where a run would refuse it.
    """
    planner = open_planner(file, forced=() if options is None else options.force)
    warnings = planner.warnings if options is None else (*planner.warnings, *check_before_run(planner, options))
    plans = planner.plans()
    costs = estimates(planner) if as_json or options is not None else {}
    dataset = planner.dataset
    left = [failure for failure in all_failures(planner) if failure.is_quarantined] if _has_quarantined(planner) else []
    if as_json:
        videos = {
            "videos": len(dataset.videos),
            "to_make": dataset.num_to_make,
            "unread": len(dataset.new),
            "unusable": len(dataset.unusable),
        }
        message = [dataclasses.asdict(failure) for failure in left]
        nodes = [{**plan_json(plan), "estimate": estimate_json(costs.get(plan.node.name))} for plan in plans]
        print_json(
            {
                **videos,
                "warnings": list(warnings),
                "making": estimate_json(next((cost for cost in costs.values() if cost.kind == MAKING), None)),
                "nodes": nodes,
                "quarantined": message,
                "held": [_held_json(planner, plan, held) for plan, held in _held(planner)],
            }
        )
    else:
        splits = ", ".join(
            f"{name} {sum(video.split == name for video in dataset.videos)}" for name in file.videos.splits
        )
        typer.echo(f"{len(dataset.videos):,} videos ({splits})")
        _echo_notes(planner, warnings)
        if dataset.synthetic is not None and dataset.num_to_make:
            typer.echo(f"videos: {'; '.join(why_to_make(file, dataset.synthetic))}: `run` makes them first")
        if dataset.new:
            typer.echo(f"{'; '.join(dataset.unread_counts(dataset.new))}: `run` reads them first")
        alone = {video.video_id for video in dataset.quarantined}
        for video in (video for video in dataset.unusable if video.video_id not in alone):
            probe = dataset.probes[dataset.digests[video.video_id] or ""]
            typer.echo(f"unusable: {video.video_id}: {probe.cause}: {probe.message}")
        typer.echo(plan_table(plans))
        if any(plan.num_truncated for plan in plans):
            typer.echo("truncated: damaged or cut off, with rows of what can be decoded; `logs` says which, and why")
        if left:
            typer.echo(f"{len(left)} quarantined; `logs --release` or `run --retry-quarantined` tries them again:")
            typer.echo(failure_table(left))
        for plan, held in _held(planner):
            typer.echo(
                f"{plan.node.name}: {held.owner} works on it since {held.owner.since} ({held.owner.what}), "
                f"last sign of life {seconds_text(held.silent_seconds)} ago"
            )
            progress = read_progress(planner.file.store, plan.spec_key)
            if progress is not None:
                typer.echo(f"{plan.node.name}: {progress_text(progress)}")
        for line in estimate_lines(costs) if costs else ():
            typer.echo(line)
    is_read = len(dataset.unread) == len(dataset.quarantined) and not dataset.num_to_make
    return is_read and all(plan.state == FRESH for plan in plans)


def _has_quarantined(planner: Planner) -> bool:
    return bool(planner.dataset.quarantined) or any(plan.quarantined for plan in planner.plans())


def progress_text(progress: Progress) -> str:
    """Done, running, failed and waiting, how quick, and how long yet."""
    rate, unit = progress.rate
    message = f"{progress.amount:,} of {progress.total:,} {progress.unit}"
    if progress.videos:
        running = "" if progress.running is None else f"{progress.running:,} running, "
        message = f"{progress.done:,} done, {running}{progress.failed:,} failed, {progress.waiting:,} waiting"
    left = "" if progress.seconds_left is None else f", {seconds_text(progress.seconds_left)} left"
    return f"{message}; {rate_text(rate)} {unit}/s{left}"


def _held(planner: Planner) -> list[tuple[NodePlan, Holding]]:
    """Nodes that a process works on now."""
    found = {held.key: held for held in holdings(planner.file.store.locks)}
    return [(plan, found[plan.spec_key]) for plan in planner.plans() if plan.spec_key in found]


def _held_json(planner: Planner, plan: NodePlan, held: Holding) -> dict[str, Any]:
    owner = held.owner
    message = {
        "process": owner.process,
        "host": owner.host,
        "user": owner.user,
        "since": owner.since,
        "what": owner.what,
    }
    progress = read_progress(planner.file.store, plan.spec_key)
    live = None if progress is None else {**dataclasses.asdict(progress), "waiting": progress.waiting}
    return {"node": plan.node.name, **message, "silent_seconds": round(held.silent_seconds, 1), "progress": live}


def about_text(seconds: float) -> str:
    """1083 -> 'about 18 min': an estimate is not told to the second."""
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    minutes = seconds / 60
    return f"about {minutes:.0f} min" if minutes < 90 else f"about {minutes / 60:.1f} h"


def estimate_lines(estimates: Mapping[str, Estimate]) -> list[str]:
    """One line a node that will run, and one for all together where anything is known."""
    lines = [f"{name}: {_line(estimate)}" for name, estimate in estimates.items()]
    known = [estimate for estimate in estimates.values() if estimate.seconds is not None]
    if known and len(estimates) > 1:
        rest = [name for name, estimate in estimates.items() if estimate.seconds is None]
        size = sum(estimate.bytes or 0 for estimate in known)
        left_out = f", without {', '.join(rest)}" if rest else ""
        lines.append(f"in all: {_cost(sum(estimate.seconds or 0.0 for estimate in known), size)}{left_out}")
    return lines


def estimate_json(estimate: Estimate | None) -> dict[str, Any] | None:
    """An estimate as plain data; null for a node that will not run."""
    return None if estimate is None else dataclasses.asdict(estimate)


def _line(estimate: Estimate) -> str:
    what = {
        MAKING: f"{estimate.num_todo:,} of {estimate.num_videos:,} videos to make",
        "items": f"{estimate.num_todo:,} of {estimate.num_videos:,} videos to {estimate.stage}",
        "run": f"to {estimate.stage} on {estimate.num_todo:,} videos",
        "table": f"to {estimate.stage}",
    }[estimate.kind]
    if estimate.num_unread and estimate.kind != "table":
        what += f" ({estimate.num_unread:,} not read yet)"
    if estimate.seconds is None:
        more = _PROBE if estimate.kind == "items" else ""
        return f"{what}, no estimate: nothing like it has been run in this store{more}"
    return f"{what}, {_cost(estimate.seconds, estimate.bytes)}"


def _cost(seconds: float, size: float | None) -> str:
    return about_text(seconds) + (f", {bytes_text(size)}" if size else "")
