"""What `status` and `run -n` print: the plan, what it will cost, and who works on it now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from reelwright.cli.costs import estimate_json, estimate_lines
from reelwright.cli.format import plan_json, plan_table, print_json, seconds_text
from reelwright.pipeline.estimate import estimates
from reelwright.pipeline.plan import FRESH, NodePlan, Planner
from reelwright.pipeline.runner import open_planner
from reelwright.storage.locks import Holding, holdings

if TYPE_CHECKING:
    from reelwright.pipeline.file import PipelineFile


def show_plan(file: PipelineFile, force: tuple[str, ...], *, as_json: bool, with_estimate: bool = True) -> bool:
    """Print the plan, with what it will cost; returns whether everything is up to date."""
    planner = open_planner(file, forced=force)
    plans = planner.plans()
    costs = estimates(planner) if with_estimate else {}
    dataset = planner.dataset
    if as_json:
        videos = {"videos": len(dataset.videos), "unread": len(dataset.new), "unusable": len(dataset.unusable)}
        nodes = [{**plan_json(plan), "estimate": estimate_json(costs.get(plan.node.name))} for plan in plans]
        print_json({**videos, "nodes": nodes, "held": [_held_json(plan, held) for plan, held in _held(planner)]})
    else:
        splits = ", ".join(
            f"{name} {sum(video.split == name for video in dataset.videos)}" for name in file.videos.splits
        )
        typer.echo(f"{len(dataset.videos):,} videos ({splits})")
        if dataset.new:
            typer.echo(f"{len(dataset.new):,} new or changed: `run` reads them first")
        for video in dataset.unusable:
            probe = dataset.probes[dataset.digests[video.video_id] or ""]
            typer.echo(f"unusable: {video.video_id}: {probe.cause}: {probe.message}")
        typer.echo(plan_table(plans))
        for plan, held in _held(planner):
            typer.echo(
                f"{plan.node.name}: {held.owner} works on it since {held.owner.since} ({held.owner.what}), "
                f"last sign of life {seconds_text(held.silent_seconds)} ago"
            )
        for line in estimate_lines(costs):
            typer.echo(line)
    return not dataset.unread and all(plan.state == FRESH for plan in plans)


def _held(planner: Planner) -> list[tuple[NodePlan, Holding]]:
    """Nodes that a process works on now."""
    found = {held.key: held for held in holdings(planner.file.store.locks)}
    return [(plan, found[plan.spec_key]) for plan in planner.plans() if plan.spec_key in found]


def _held_json(plan: NodePlan, held: Holding) -> dict[str, Any]:
    owner = held.owner
    told = {"process": owner.process, "host": owner.host, "user": owner.user, "since": owner.since, "what": owner.what}
    return {"node": plan.node.name, **told, "silent_seconds": round(held.silent_seconds, 1)}
