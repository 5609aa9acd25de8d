"""What `explain` prints."""

from __future__ import annotations

import dataclasses

import typer

from reelwright.cli.format import bytes_text, plan_json, print_json, seconds_text
from reelwright.pipeline.plan.graph import FRESH, STALE, NodePlan, has_rows
from reelwright.pipeline.plan.plan import Planner
from reelwright.pipeline.plan.synthetic import NODE, why_to_make
from reelwright.pipeline.plan.why import VideoWhy, explain_video
from reelwright.stages.base.work import headroom_line
from reelwright.storage.ledger.records import Record
from reelwright.storage.store import Store


def show_node(planner: Planner, node: str, *, as_json: bool) -> None:
    """State, reasons, key and what the key is made of; of a node that is done also its record, and where it lies."""
    plan = planner.plan(node)
    place = None if plan.record is None else _place(planner.file.store, plan)
    if as_json:
        record = None if plan.record is None else dataclasses.asdict(plan.record)
        print_json({**plan_json(plan), "material": plan.material, "place": place, "record": record})
        return
    typer.echo(f"{node} ({plan.node.stage}): {plan.state}")
    for reason in plan.reasons:
        typer.echo(f"  {reason}")
    if plan.key:
        typer.echo(f"key {plan.key}")
    for field, plugin in (plan.material or {}).get("plugins", {}).items():
        message = ", ".join(f"{name} {value}" for name, value in plugin.items() if name != "name")
        typer.echo(f"{field} {plugin['name']}: {message}")
    if place is not None and plan.record is not None:
        typer.echo(f"lies in {place}")
        _print_record(plan.record)


def _place(store: Store, plan: NodePlan) -> str:
    """Folder or address of what a node made."""
    folder = store.output(plan.node.config.produces, plan.spec_key if has_rows(plan.node) else plan.key)
    return f"{store.url}/{folder.relative_to(store.root).as_posix()}" if store.url else str(folder)


def _print_record(record: Record) -> None:
    """How much was made when, and what came out."""
    when = record.finished[:19].replace("T", " ")
    made = f"{record.rows:,} rows, {bytes_text(record.bytes)}, {seconds_text(record.seconds)}"
    typer.echo(f"finished {when} UTC: {made}")
    if line := headroom_line(record.work):
        typer.echo(line)
    for name, value in record.items.items():
        typer.echo(f"videos {name}: {value:,}")
    for name, value in record.outputs.items():
        typer.echo(f"{name}: {value}")


def show_synthetic(planner: Planner, *, as_json: bool) -> None:
    """The videos that the pipeline makes for itself: what is to be made and why, the key, where they lie."""
    synthetic = planner.dataset.synthetic
    assert synthetic is not None
    reasons = why_to_make(planner.file, synthetic) if planner.dataset.num_to_make else []
    state = STALE if reasons else FRESH
    if as_json:
        message = {"state": state, "reasons": reasons, "to_make": planner.dataset.num_to_make}
        print_json({"node": NODE, **message, "key": synthetic.key, "material": synthetic.material})
        return
    typer.echo(f"{NODE} ({synthetic.material['stage']} {synthetic.config.family}): {state}")
    for reason in reasons:
        typer.echo(f"  {reason}")
    typer.echo(f"key {synthetic.key}")
    typer.echo(f"in {synthetic.place}: {len(synthetic.videos):,} videos, {len(synthetic.given_up):,} given up")


def show_video(planner: Planner, node: str, video: str, *, as_json: bool) -> None:
    """What is known of one video in one node."""
    why = explain_video(planner, node, video)
    if as_json:
        row = None if why.row is None else dataclasses.asdict(why.row)
        message = {"state": why.state, "reasons": list(why.reasons)}
        print_json({"video": video, "digest": why.content, "node": node, **message, "row": row})
        return
    typer.echo(f"{video} in {node}: {_answer(why)}")
    for reason in why.reasons[1:]:
        typer.echo(f"  {reason}")
    typer.echo(f"content {why.content or 'unknown'}")


def _answer(why: VideoWhy) -> str:
    """State and the first reason, or what is there."""
    if why.reasons:
        return f"{why.state}: {why.reasons[0]}"
    if why.row is None:
        return why.state
    return f"{why.state}: {why.row.status}, {why.row.rows:,} rows, {why.row.backend}".rstrip(", ")
