"""Run one node: get it ready, do its work, publish, leave a record."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from reelwright.pipeline.executors.executors import Executor
from reelwright.pipeline.executors.progress_file import LiveReporter, reporting
from reelwright.pipeline.plan.graph import STALE, WAITING, NodePlan, has_rows
from reelwright.pipeline.plan.plan import Planner
from reelwright.pipeline.plan.reasons import TARGETS, targets_by_split, write_input_videos
from reelwright.pipeline.run.failed_share import check_share
from reelwright.pipeline.run.results import RAN, Failure, NodeResult, Observer, RunOptions, item_failures
from reelwright.pipeline.run.work_units import build_work
from reelwright.stages.base.registry import fetch_weights, load, stage_of
from reelwright.stages.base.work import VideoItem, Work
from reelwright.storage.backend import is_unfinished
from reelwright.storage.digests import file_digest
from reelwright.storage.errors import InputError, StageError
from reelwright.storage.files import remove_files
from reelwright.storage.ledger.items import WORK_STEPS, ItemLedger, ItemRow
from reelwright.storage.ledger.records import Record, write_record
from reelwright.storage.results.runs import RunFolder
from reelwright.storage.store import Store

_VERSIONED = ("reelwright", "torch", "torchvision", "timm", "zarr", "numpy", "decord", "av", "torchcodec")


def ready_plan(name: str, planner: Planner) -> NodePlan:
    """The plan once everything its key needs is there; fetches hub weights. Raises StageError when that cannot be."""
    plan = planner.plan(name)
    hub, store = plan.node.config.hub_weights(), planner.file.store
    if plan.state == WAITING and hub is not None and not store.backend.ensure_local(store.weights(hub)):
        fetch_weights(plan.node.config, store)
        plan = planner.renew(name)
    if plan.state == WAITING or not plan.key:
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
    plan: NodePlan, planner: Planner, observer: Observer, options: RunOptions, *, executor: Executor
) -> tuple[NodeResult, list[Failure]]:
    """Do what is to be done of a stale node. Returns what became of it and its failed videos.

    Raises InputError when no video is left to do, StageError when too many failed before, and what the stage raises.
    """
    warning, config, store = check_share(plan, planner), plan.node.config, planner.file.store
    is_forced = plan.node.name in planner.forced
    todo = _todo(plan, planner, options) if config.kind == "items" else ()
    reporter = observer.started(replace(plan, todo=todo))
    if warning:
        reporter.note(warning)
    outputs: dict[str, Any] = {}
    rows: Mapping[str, ItemRow] | None = None
    done: list[ItemRow] = []
    with reporting(reporter, store, key=plan.spec_key, node=plan.node.name, items=todo) as live:
        started = time.monotonic()
        if is_forced and store.url:
            remove_files([store.node(plan.key) / "record.json"])  # others would take half of it for whole
        if config.kind == "items":
            rows = _do_items(plan, todo, planner=planner, reporter=live, options=options, executor=executor)
            done = _done_now(plan, todo, rows)
        else:
            if config.kind == "run" and is_forced:
                RunFolder(store.run(plan.key)).clear()  # else it goes on, or finds that it has ended
            outputs = executor.whole(build_work(planner, plan), live)
        planner.forced -= {plan.node.name}
        is_whole = rows is None or planner.all_tried(plan, rows)
        publish = stage_of(plan.node.stage).publish
        if is_whole and publish is not None:
            load(publish)(build_work(planner, plan, plan.wanted), store.output(config.produces, plan.key))
        seconds = time.monotonic() - started
        if is_whole:
            share = live.progress.share if config.kind == "run" else 1.0
            note_record(plan, planner, rows=rows, outputs=outputs, seconds=seconds, done=done, share=share)
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
    return result, item_failures(planner, planner.renew(plan.node.name, rows))


def is_settled(plan: NodePlan) -> bool:
    """Whether a stale node lacks nothing but videos that failed in an earlier run."""
    return not plan.lacks_group and bool(plan.failed) and len(plan.failed) == len(plan.todo) and plan.record is not None


def _todo(plan: NodePlan, planner: Planner, options: RunOptions) -> tuple[VideoItem, ...]:
    """The videos to do in this run; those that failed before only when they are to be tried again, or forced."""
    todo = plan.todo
    if options.retry_quarantined and plan.quarantined:
        again = {row.digest for row in plan.quarantined} | {item.digest for item in todo}
        todo = tuple(item for item in plan.wanted if item.digest in again)
    if not options.retry_failed and plan.node.name not in planner.forced:
        failed = {row.digest for row in plan.failed}
        todo = tuple(item for item in todo if item.digest not in failed)
    return todo if options.limit is None else todo[: options.limit]


def _do_items(
    plan: NodePlan,
    todo: tuple[VideoItem, ...],
    *,
    planner: Planner,
    reporter: LiveReporter,
    options: RunOptions,
    executor: Executor,
) -> Mapping[str, ItemRow]:
    """Do ``todo``, and as often as asked for again what failed of it; the ledger counts attempts over all runs.

    Returns the rows of the ledger then.
    """
    if not plan.wanted:
        raise InputError(
            f"{plan.node.name}: no video to do: every one failed before, or none is in the splits asked for"
        )
    if plan.lacks_group:
        load(stage_of(plan.node.stage).work)(build_work(planner, plan, ()), reporter)  # writes it, for no video
    ledger = ItemLedger(planner.file.store.node(plan.spec_key))
    rows = {} if todo else dict(planner.rows(plan))
    tried_before = {row.digest: row.attempts for row in (*plan.failed, *plan.quarantined)}
    for attempt in range(1 + options.retries if todo else 0):
        if attempt:
            reporter.note(f"{len(todo)} failed; trying again, {attempt} of {options.retries}")
        executor.items(_with_jobs(build_work(planner, plan, todo), options.jobs), reporter)
        rows = ledger.load()
        for digest in tried_before.keys() & {item.digest for item in todo} & rows.keys():
            row = rows[digest]
            rows[digest] = replace(row, attempts=row.attempts + tried_before[digest])
            ledger.commit(rows[digest])
        ledger.compact()
        todo = tuple(item for item in todo if item.digest in rows and not rows[item.digest].is_done)
        tried_before = {item.digest: rows[item.digest].attempts for item in todo}
        if not todo:
            break
    return rows


def _done_now(plan: NodePlan, todo: Sequence[VideoItem], rows: Mapping[str, ItemRow]) -> list[ItemRow]:
    """The rows of the items that were done now. Raises StageError when the stage said nothing of an item."""
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


def note_record(
    plan: NodePlan,
    planner: Planner,
    *,
    rows: Mapping[str, ItemRow] | None,
    outputs: dict[str, Any],
    seconds: float,
    done: Sequence[ItemRow] = (),
    share: float = 1.0,
) -> None:
    """Leave the record of a finished node, after all it made is in place; ``done`` are the items of this run.

    ``rows`` are those of its ledger now, None where it has none. ``share`` of the training was done in ``seconds``:
    less than all where it went on, or stopped early.
    """
    items = [rows[item.digest] for item in plan.wanted if item.digest in rows] if rows else []
    present = [row for row in items if row.is_done]
    assert plan.material is not None
    reads = planner.inputs_now(plan) if plan.keeps_inputs else []
    dataset = planner.dataset_of(plan.node)
    if plan.node.config.publishes:
        outputs = {**outputs, TARGETS: targets_by_split(reads, dataset.labels, dataset.background)}
    record = Record(
        node=plan.node.name,
        stage=plan.node.stage,
        key=plan.key,
        spec_key=plan.spec_key,
        material=dict(plan.material),
        items=_counts(plan, items),
        outputs=outputs,
        rows=sum(row.rows for row in present),
        bytes=sum(row.bytes for row in present),
        seconds=round(seconds, 3),
        work=_work_done(plan, done, seconds, share) if seconds and share else {},
        files=_files(plan, planner.file.store),
        versions=_versions(),
        finished=dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds"),
    )
    if reads:
        write_input_videos(planner.file.store, plan.key, reads)
    write_record(planner.file.store, record, project=planner.project)


def _counts(plan: NodePlan, rows: Sequence[ItemRow]) -> dict[str, int]:
    if not rows:
        return {}
    done, truncated = sum(row.is_done for row in rows), sum(row.status == "truncated" for row in rows)
    return {"total": len(plan.wanted), "done": done, "failed": len(rows) - done, "truncated": truncated}


def _files(plan: NodePlan, store: Store) -> dict[str, list[Any]]:
    """[bytes, digest] of the files of a run, of published tables or of a report, by their path in the store."""
    if has_rows(plan.node):
        return {}
    folder = store.output(plan.node.config.produces, plan.key)
    store.backend.push_changed(folder)
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not is_unfinished(path, folder))
    return {path.relative_to(store.root).as_posix(): [path.stat().st_size, file_digest(path)] for path in paths}


def _work_done(plan: NodePlan, done: Sequence[ItemRow], seconds: float, share: float) -> dict[str, float]:
    """How much was done in how long, so that a later run can be estimated."""
    digests = {row.digest for row in done}
    is_whole = plan.node.config.kind != "items"
    items = [item for item in plan.wanted if is_whole or item.digest in digests]
    steps = {name: round(sum(getattr(row, name) for row in done), 3) for name in map("{}_seconds".format, WORK_STEPS)}
    return {
        "videos": len(items),
        "video_seconds": round(sum(item.duration_seconds or 0.0 for item in items), 3),
        "rows": sum(row.rows for row in done),
        "bytes": sum(row.bytes for row in done),
        "seconds": round(seconds, 3),
        "share": share,
        **{name: spent for name, spent in steps.items() if spent},
    }


def _versions() -> dict[str, str]:
    import importlib.metadata

    installed = {}
    for name in _VERSIONED:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed
