"""Run what is not up to date, node by node, and leave a record of each."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from reelwright.pipeline.dataset import load_dataset
from reelwright.pipeline.file import PipelineFile
from reelwright.pipeline.graph import Graph, build_graph
from reelwright.pipeline.plan import FRESH, STALE, WAITING, NodePlan, Planner
from reelwright.pipeline.reasons import write_samples
from reelwright.stages.registry import STAGES, load
from reelwright.stages.work import Reporter, VideoItem, Work
from reelwright.storage.errors import InputError, Interrupted, ReelwrightError, StageError
from reelwright.storage.items import ItemLedger, ItemRow
from reelwright.storage.known import KnownFiles
from reelwright.storage.records import Record, write_record

RAN, FAILED, SKIPPED = "ran", "failed", "not run"
_VERSIONED = ("reelwright", "torch", "torchvision", "timm", "zarr", "numpy", "decord", "av", "torchcodec")


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One video that a node could not do."""

    node: str
    video_ids: tuple[str, ...]
    row: ItemRow


@dataclass(frozen=True, kw_only=True)
class NodeResult:
    """What became of one node in a run."""

    node: str
    stage: str
    state: str  # RAN, FRESH, FAILED or SKIPPED
    reasons: tuple[str, ...] = ()
    num_items: int = 0  # in all
    num_done: int = 0  # items done in this run
    rows: int = 0  # of this run
    bytes: int = 0  # of this run
    seconds: float = 0.0
    outputs: dict[str, Any] = field(default_factory=dict)
    message: str = ""  # why it failed or was not run


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What became of a whole run."""

    nodes: tuple[NodeResult, ...]
    failures: tuple[Failure, ...]

    @property
    def exit_code(self) -> int:
        """0 all done, 1 a node failed, 3 finished but some videos failed."""
        if any(node.state in {FAILED, SKIPPED} for node in self.nodes):
            return 1
        return 3 if self.failures else 0

    @property
    def nothing_to_do(self) -> bool:
        """Whether everything was up to date."""
        return all(node.state == FRESH for node in self.nodes)


class Observer(Protocol):
    """Who watches a run."""

    def planned(self, plans: Sequence[NodePlan]) -> None:
        """The plan, before anything runs."""

    def started(self, plan: NodePlan) -> Reporter:
        """A node starts; what it says goes to the reporter that is returned."""

    def finished(self, result: NodeResult) -> None:
        """A node is done, was up to date, failed, or was not run."""

    def indexing(self, num_videos: int) -> Reporter:
        """Videos are read for the first time, or again after a change."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Which part of a pipeline runs, and how."""

    only: tuple[str, ...] = ()  # just these nodes
    until: tuple[str, ...] = ()  # these and what they depend on
    force: tuple[str, ...] = ()  # as if never done
    keep_going: bool = False  # after a node failed, go on with those that do not depend on it
    limit: int | None = None  # at most so many videos a node; what depends on an incomplete node is not run
    jobs: int | None = None  # decoding processes


def open_planner(file: PipelineFile, *, forced: Sequence[str] = ()) -> Planner:
    """A planner over what the store knows now; reads no video."""
    graph = build_graph(file)
    forced_names = frozenset(graph.check_name(name) for name in forced)
    return Planner(file, graph, load_dataset(file), KnownFiles(file.store.files), forced_names)


def run_pipeline(file: PipelineFile, observer: Observer, options: RunOptions | None = None) -> RunResult:
    """Bring the nodes of a pipeline up to date.

    Raises ConfigError or InputError before any heavy work; Interrupted when the scheduler asks to stop.
    """
    options = options or RunOptions()
    graph = build_graph(file)
    selected = _selected(graph, options)
    read_videos(file, observer, jobs=options.jobs)
    planner = open_planner(file, forced=options.force)
    observer.planned([plan for plan in planner.plans() if plan.node.name in selected])
    results: dict[str, NodeResult] = {}
    failures: list[Failure] = _unusable(planner)
    for name in graph.nodes:
        if name not in selected:
            continue
        result, failed = _run_node(name, planner, observer, options, results)
        results[name] = result
        failures += failed
        observer.finished(result)
        if result.state == FAILED and not options.keep_going:
            break
    planner.known.save()
    return RunResult(nodes=tuple(results.values()), failures=tuple(failures))


def read_videos(file: PipelineFile, observer: Observer, *, jobs: int | None = None, anew: bool = True) -> None:
    """Digest and probe the videos that are new or changed; with ``anew`` also those that were not usable."""
    dataset = load_dataset(file)
    unread = dataset.unread if anew else dataset.new
    if unread:
        index_videos = load("reelwright.stages.index.work:index_videos")
        index_videos(
            [video.path for video in unread],
            file.store,
            quick=file.videos.digest == "quick",
            workers=jobs or file.videos.workers,
            timeout_seconds=file.videos.timeout_seconds,
            reporter=observer.indexing(len(unread)),
        )


def _selected(graph: Graph, options: RunOptions) -> set[str]:
    for name in (*options.only, *options.until, *options.force):
        graph.check_name(name)
    if options.only:
        return set(options.only)
    return graph.upstream(options.until) if options.until else set(graph.nodes)


def _run_node(
    name: str, planner: Planner, observer: Observer, options: RunOptions, results: dict[str, NodeResult]
) -> tuple[NodeResult, list[Failure]]:
    node = planner.graph.nodes[name]
    broken = [parent for parent in node.parents if parent in results and results[parent].state in {FAILED, SKIPPED}]
    if broken:
        message = f"{', '.join(broken)} did not finish"
        return NodeResult(node=name, stage=node.stage, state=SKIPPED, message=message), []
    started = time.monotonic()
    try:
        plan = _ready_plan(name, planner)
        if plan.state == FRESH:
            if plan.record is None:
                _note_record(plan, planner, outputs={}, seconds=0.0)
            fresh = NodeResult(
                node=name, stage=node.stage, state=FRESH, num_items=len(plan.wanted), outputs=_outputs(plan)
            )
            return fresh, _failures(planner, plan)
        return _execute(plan, planner, observer, options)
    except Interrupted:
        raise
    except (ReelwrightError, OSError) as error:
        seconds = time.monotonic() - started
        return NodeResult(node=name, stage=node.stage, state=FAILED, message=str(error), seconds=seconds), []


def _ready_plan(name: str, planner: Planner) -> NodePlan:
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


def _execute(
    plan: NodePlan, planner: Planner, observer: Observer, options: RunOptions
) -> tuple[NodeResult, list[Failure]]:
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
            load(stage.work)(_with_jobs(planner.work(plan, todo), options.jobs), reporter)
        done = _finish_items(plan, todo, planner)
        planner.forced -= {plan.node.name}
        planner.forget()
        plan = planner.plan(plan.node.name)
        if stage.publish is not None and len(plan.failed) == len(plan.todo):
            load(stage.publish)(planner.work(plan, plan.wanted), planner.file.store.predictions(plan.key))
    else:
        outputs = dict(load(stage.work)(planner.work(plan), reporter))
        done = []
        planner.forced -= {plan.node.name}
    seconds = time.monotonic() - started
    if len(plan.failed) == len(plan.todo):
        _note_record(plan, planner, outputs=outputs, seconds=seconds)
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
    return result, _failures(planner, planner.plan(plan.node.name))


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


def _note_record(plan: NodePlan, planner: Planner, *, outputs: dict[str, Any], seconds: float) -> None:
    rows: list[ItemRow] = []
    if plan.node.config.kind == "items" and getattr(plan.node.config, "materialize", True):
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
        write_samples(planner.file.store, plan.key, planner.samples(plan))
    write_record(planner.file.store, record, project=planner.project)


def _failures(planner: Planner, plan: NodePlan) -> list[Failure]:
    """Videos of a node without rows, and those of which only a part could be done."""
    if plan.node.config.kind != "items" or not getattr(plan.node.config, "materialize", True):
        return []
    rows = ItemLedger(planner.file.store.node(plan.spec_key)).load()
    bad = [
        rows[item.digest]
        for item in plan.wanted
        if item.digest in rows and rows[item.digest].status not in {"ok", "skipped"}
    ]
    return [Failure(node=plan.node.name, video_ids=tuple(planner.dataset.names_of(row.digest)), row=row) for row in bad]


def _unusable(planner: Planner) -> list[Failure]:
    """Videos that could not even be probed."""
    found = []
    for video in planner.dataset.unusable:
        digest = planner.dataset.digests[video.video_id] or ""
        probe = planner.dataset.probes[digest]
        row = ItemRow(digest=digest, status=probe["status"], cause=probe["cause"], message=probe["message"])
        found.append(Failure(node="videos", video_ids=(video.video_id,), row=row))
    return found


def _outputs(plan: NodePlan) -> dict[str, Any]:
    return dict(plan.record.outputs) if plan.record else {}


def _versions() -> dict[str, str]:
    installed = {}
    for name in _VERSIONED:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed
