"""What `explain` prints."""

from __future__ import annotations

import typer

from reelwright.cli.format import plan_json, print_json
from reelwright.pipeline.plan import FRESH, Planner
from reelwright.storage.errors import ConfigError, nearest
from reelwright.storage.items import ItemLedger


def explain_node(planner: Planner, node: str, *, as_json: bool) -> None:
    """State, reasons, key and what the key is made of."""
    plan = planner.plan(node)
    if as_json:
        print_json({**plan_json(plan), "material": plan.material})
        return
    typer.echo(f"{node} ({plan.node.stage}): {plan.state}")
    for reason in plan.reasons:
        typer.echo(f"  {reason}")
    if plan.key:
        typer.echo(f"key {plan.key}")
    if plan.record is not None:
        typer.echo(f"finished {plan.record.finished}: {plan.record.rows:,} rows")


def explain_video(planner: Planner, node: str, video: str, *, as_json: bool) -> None:
    """What is known of one video in one node."""
    digests = planner.dataset.digests
    if video not in digests:
        raise ConfigError(f"no video {video!r} in the manifest.{nearest(video, digests)}")
    plan = planner.plan(node)
    digest = digests[video]
    row = ItemLedger(planner.file.store.node(plan.spec_key)).load().get(digest or "") if plan.spec_key else None
    if digest is None:
        answer = "new or changed: its content has not been read yet"
    elif digest not in planner.dataset.items:
        probe = planner.dataset.probes[digest]
        answer = f"unusable: {probe.cause}: {probe.message}"
    elif row is None:
        answer = "up to date" if plan.state == FRESH else "not done yet"
    elif row.is_done:
        answer = f"up to date: {row.status}, {row.rows:,} rows, {row.backend}".rstrip(", ")
    else:
        answer = f"{row.status} after {row.attempts} attempt(s): {row.cause}: {row.message}"
    if as_json:
        print_json({"video": video, "digest": digest, "node": node, "answer": answer})
    else:
        typer.echo(f"{video} in {node}: {answer}\ncontent {digest or 'unknown'}")
