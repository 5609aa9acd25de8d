"""Run one node: get it ready, do its work, publish, leave a record."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from reelwright.pipeline.plan import STALE, WAITING, NodePlan, Planner
from reelwright.pipeline.reasons import write_samples
from reelwright.pipeline.results import RAN, Failure, NodeResult, Observer, RunOptions
from reelwright.pipeline.selection import samples
from reelwright.pipeline.units import build_work
from reelwright.stages.registry import STAGES, load
from reelwright.stages.work import VideoItem, Work
from reelwright.storage.errors import InputError, StageError
from reelwright.storage.items import ItemLedger, ItemRow
from reelwright.storage.records import Record, write_record

_VERSIONED = ("reelwright", "torch", "torchvision", "timm", "zarr", "numpy", "decord", "av", "torchcodec")


def ready_plan(name: str, planner: Planner) -> NodePlan:
    """The plan once everything its key needs is there; fetches hub weights. Raises StageError when that cannot be."""
    plan = planner.plan(name)
    hub = plan.node.config.hub_weights()
    if plan.state == WAITING and hub is not None and not planner.file.store.weights(hub).is_file():
        load("reelwright.stages.embed.fetch:fetch")(hub, planner.file.store)
        planner.forget()
        plan = planner.plan(name)
    if plan.state == WAITING:
        raise StageError(f"cannot run: {'; '.join(plan.reasons)}. Run it with --until {name}")
    stale = [parent for parent in plan.node.parents if _incomplete(planner.plan(parent))]
    if plan.state == STALE and stale:
        raise StageError(f"{', '.join(stale)} is not complete. Run it with --until {name}")
    return plan


def _incomplete(plan: NodePlan) -> bool:
    """Whether items were never tried; items that failed are left out downstream, with a row that says why."""
    return plan.state == STALE and (
        plan.node.config.kind != "items" or len(plan.failed) < len(plan.todo) or not plan.todo
    )


def execute(
    plan: NodePlan, planner: Planner, observer: Observer, options: RunOptions
) -> tuple[NodeResult, list[Failure]]:
    """Do what is to be done of a stale node. Returns what became of it and its failed videos.

    Raises InputError when no video is left to do, and what the stage raises.
    """
    reporter = observer.started(plan)
    started = time.monotonic()
    outputs: dict[str, Any] = {}
    stage = STAGES[plan.node.stage]
    if plan.node.config.kind == "items":
        if not plan.wanted:
            raise InputError(
                f"{plan.node.name}: no video to do: every one failed before, or none is in the splits asked for"
            )
        todo = plan.todo if options.limit is None else plan.todo[: options.limit]
        if todo:
            load(stage.work)(_with_jobs(build_work(planner, plan, todo), options.jobs), reporter)
        done = _finish_items(plan, todo, planner)
        planner.forced -= {plan.node.name}
        planner.forget()
        plan = planner.plan(plan.node.name)
        if stage.publish is not None and len(plan.failed) == len(plan.todo):
            load(stage.publish)(build_work(planner, plan, plan.wanted), planner.file.store.predictions(plan.key))
    else:
        outputs = dict(load(stage.work)(build_work(planner, plan), reporter))
        done = []
        planner.forced -= {plan.node.name}
    seconds = time.monotonic() - started
    if len(plan.failed) == len(plan.todo):
        note_record(plan, planner, outputs=outputs, seconds=seconds)
    planner.forget()
    result = NodeResult(
        node=plan.node.name,
        stage=plan.node.stage,
        state=RAN,
        reasons=plan.reasons,
        num_items=len(plan.wanted),
        num_done=len(done),
        rows=sum(row.rows for row in done),
        bytes=sum(row.bytes for row in done),
        seconds=seconds,
        outputs=outputs,
    )
    return result, item_failures(planner, planner.plan(plan.node.name))


def _finish_items(plan: NodePlan, todo: Sequence[VideoItem], planner: Planner) -> list[ItemRow]:
    """The rows of the items that were done now. Raises StageError when the stage said nothing of an item."""
    rows = ItemLedger(planner.file.store.node(plan.spec_key)).load()
    silent = [item.video_id for item in todo if item.digest not in rows]
    if silent:
        raise StageError(
            f"{plan.node.name}: nothing was reported of {len(silent)} videos, {silent[0]!r} first. Run again"
        )
    return [rows[item.digest] for item in todo if rows[item.digest].is_done]


def _with_jobs(work: Work, jobs: int | None) -> Work:
    if jobs is None or "workers" not in work.config:
        return work
    return replace(work, config={**work.config, "workers": jobs})


def note_record(plan: NodePlan, planner: Planner, *, outputs: dict[str, Any], seconds: float) -> None:
    """Leave the record of a finished node, after all it made is in place."""
    rows: list[ItemRow] = []
    if plan.node.config.kind == "items" and plan.node.config.stores:
        ledger = ItemLedger(planner.file.store.node(plan.spec_key)).load()
        rows = [ledger[item.digest] for item in plan.wanted if item.digest in ledger]
    done = [row for row in rows if row.is_done]
    assert plan.material is not None
    record = Record(
        node=plan.node.name,
        stage=plan.node.stage,
        key=plan.key,
        spec_key=plan.spec_key,
        material=dict(plan.material),
        items={"total": len(plan.wanted), "done": len(done), "failed": len(rows) - len(done)} if rows else {},
        outputs=outputs,
        rows=sum(row.rows for row in done),
        bytes=sum(row.bytes for row in done),
        seconds=round(seconds, 3),
        versions=_versions(),
        finished=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    )
    if plan.node.config.kind == "run":
        write_samples(
            planner.file.store, plan.key, [entry[1:] for entry in samples(planner.dataset, plan.node, plan.wanted)]
        )
    write_record(planner.file.store, record, project=planner.project)


def item_failures(planner: Planner, plan: NodePlan) -> list[Failure]:
    """Videos of a node without rows, and those of which only a part could be done."""
    if plan.node.config.kind != "items" or not plan.node.config.stores:
        return []
    rows = ItemLedger(planner.file.store.node(plan.spec_key)).load()
    bad = [
        rows[item.digest]
        for item in plan.wanted
        if item.digest in rows and rows[item.digest].status not in {"ok", "skipped"}
    ]
    return [Failure(node=plan.node.name, video_ids=tuple(planner.dataset.names_of(row.digest)), row=row) for row in bad]


def _versions() -> dict[str, str]:
    installed = {}
    for name in _VERSIONED:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed
