"""A run of which something may be to do: checks before any work, videos that are not read yet, then node by node."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from reelwright.pipeline.config.pipeline_file import PipelineFile
from reelwright.pipeline.config.profiles import cluster_settings
from reelwright.pipeline.executors.executors import Executor, executing
from reelwright.pipeline.plan.graph import FRESH, WAITING, Graph, NodePlan
from reelwright.pipeline.plan.keys import hub_file
from reelwright.pipeline.plan.lockfile import Frozen
from reelwright.pipeline.plan.plan import Planner
from reelwright.pipeline.plan.synthetic import synthetic_set_of
from reelwright.pipeline.run.checks import check_plans, check_settings, check_videos
from reelwright.pipeline.run.execute import execute, is_settled, note_record, ready_plan
from reelwright.pipeline.run.reading import read_for_run
from reelwright.pipeline.run.results import (
    FAILED,
    SKIPPED,
    Failure,
    NodeResult,
    Observer,
    RunOptions,
    item_failures,
    unusable_videos,
)
from reelwright.storage.errors import Interrupted, ReelwrightError, StoreError, UnusableStoreError
from reelwright.storage.ledger.digest_cache import KnownFiles
from reelwright.storage.ledger.records import note_schema
from reelwright.storage.locks.locks import exclusive, using
from reelwright.storage.store_errors import is_full, room, usable


@dataclass(kw_only=True)
class NodesRun:
    """What all nodes of a run share, and what became of them."""

    planner: Planner  # of the videos as they are at the end
    observer: Observer
    options: RunOptions
    frozen: Frozen | None
    executor: Executor
    stack: contextlib.ExitStack  # what ends with the run
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    results: dict[str, NodeResult] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    used: set[str] = field(default_factory=set)  # keys that `note_use` has told of

    @functools.cached_property
    def note_use(self) -> Callable[[Collection[str]], None]:
        """Tells other processes what must stay, once there is something to do."""
        file = self.planner.file
        return self.stack.enter_context(using(file.store.locks, what=f"run of {file.path.name}"))


def run_nodes(
    file: PipelineFile,
    graph: Graph,
    known: Planner | None,
    observer: Observer,
    options: RunOptions,
    stack: contextlib.ExitStack,
) -> NodesRun:
    """Bring the nodes that ``options`` select up to date; what is started for them ends with ``stack``.

    ``known`` goes by the videos as they were just found; None: they were not looked at. Raises as `run_pipeline`.
    """
    selected = graph.selected(only=options.only, until=options.until)
    settings = cluster_settings(file, options.cluster)  # wrong ones are told before videos are read
    check_settings(file, graph, selected, executor=settings.executor)
    frozen = Frozen(file) if options.frozen else None
    if frozen is not None:
        frozen.check_settings(graph)
        frozen.check_videos(synthetic_set_of(file, KnownFiles(file.store.files)))
    executor = stack.enter_context(executing(file, settings, ask=options.ask))
    found = None if known is None else known.dataset
    check = functools.partial(check_videos, file, graph, selected=selected)
    dataset = read_for_run(file, observer, options, found=found, executor=executor, check=check)
    if known is None or dataset is not found:
        file.store.backend.forget()
        known = Planner(file, graph, dataset, graph.all_named(options.force))
    run = NodesRun(planner=known, observer=observer, options=options, frozen=frozen, executor=executor, stack=stack)
    _run_all(run, [name for name in graph.nodes if name in selected], is_local=settings.executor == "local")
    return run


def _run_all(run: NodesRun, names: Sequence[str], *, is_local: bool) -> None:
    """Run nodes that come after what they read; ``is_local``: on this machine."""
    planner, frozen = run.planner, run.frozen
    if frozen is not None:
        frozen.check_plans(planner)
    run.warnings = (*planner.warnings, *check_plans(planner, names, is_local=is_local))
    run.observer.warned(run.warnings)
    run.observer.planned([plan for plan in planner.plans() if plan.node.name in names])
    run.failures += unusable_videos(planner)
    for name in names:
        result, failed = _run_node(name, run)
        run.results[name] = result
        run.failures += failed
        run.observer.finished(result)
        if result.state == FAILED and not run.options.keep_going:
            break
    run.notes = () if frozen is None else frozen.notes(planner)


def _run_node(name: str, run: NodesRun) -> tuple[NodeResult, list[Failure]]:
    planner, results = run.planner, run.results
    node = planner.graph.nodes[name]
    broken = [parent for parent in node.parents if parent in results and results[parent].state in {FAILED, SKIPPED}]
    if broken:
        message = f"{', '.join(broken)} did not finish"
        return NodeResult(node=name, stage=node.stage, state=SKIPPED, message=message), []
    started, root = time.monotonic(), planner.file.store.root
    try:
        with usable(root):
            return _run_stale_node(name, run)
    except Interrupted:
        raise
    except (ReelwrightError, OSError) as error:
        message = str(error)
        if isinstance(error, StoreError) and not isinstance(error, UnusableStoreError) and is_full(root):
            message = f"{message} {room(root)}."
        seconds = time.monotonic() - started
        planner.forget()  # it may have done some of its work
        return NodeResult(node=name, stage=node.stage, state=FAILED, message=message, seconds=seconds), []


def _run_stale_node(name: str, run: NodesRun) -> tuple[NodeResult, list[Failure]]:
    """Run a node, or leave it as it is, alone among all processes."""
    planner, options = run.planner, run.options
    if planner.plan(name).state == WAITING:
        _report_use(run)  # of weights, before they are fetched
    plan = ready_plan(name, planner)
    if run.frozen is not None:
        run.frozen.check_node(plan, planner)
    if _needs_nothing(plan, options):
        return _left_as_is(plan, planner)
    _report_use(run)
    plan = ready_plan(name, planner)
    store = planner.file.store

    def report(message: str) -> None:
        run.observer.started(plan).note(message)

    with exclusive(store.lock(plan.spec_key), report=report, what=f"{name} of {planner.file.path.name}"):
        store.backend.forget()  # another run may have done some or all of it, `gc` removed some of it
        planner.renew(name)
        plan = ready_plan(name, planner)
        if _needs_nothing(plan, options):
            return _left_as_is(plan, planner)
        note_schema(store)
        return execute(plan, planner, run.observer, options, executor=run.executor)


def _report_use(run: NodesRun) -> None:
    """Say what the run uses; where it was planned with outputs that `gc` may have removed before, plan anew."""
    needed = _needed(run.planner)
    if needed <= run.used:
        return
    new = needed - run.used
    run.note_use(needed)
    run.used.update(new)
    run.planner.file.store.backend.forget()
    for plan in run.planner.plans():
        hub = hub_file(plan.node, run.planner.file)
        named = {plan.key, plan.spec_key, *([] if hub is None else [hub.name])}
        if named & new and (plan.record is not None or plan.rows or hub is not None):
            run.planner.renew(plan.node.name)


def _needed(planner: Planner) -> set[str]:
    """Keys of all nodes, as far as known, and names of fetched weights, for `gc`; and whose run it is, for `watch`."""
    keys = {key for plan in planner.plans() for key in (plan.key, plan.spec_key) if key} | {planner.project.name}
    keys |= {planner.dataset.synthetic.key} if planner.dataset.synthetic is not None else set()
    hubs = (hub_file(node, planner.file) for node in planner.graph.nodes.values())
    return keys | {hub.name for hub in hubs if hub is not None}


def _needs_nothing(plan: NodePlan, options: RunOptions) -> bool:
    if options.retry_quarantined and plan.quarantined:
        return False
    return plan.state == FRESH or (not options.retry_failed and is_settled(plan))


def _left_as_is(plan: NodePlan, planner: Planner) -> tuple[NodeResult, list[Failure]]:
    if plan.record is None:
        rows = planner.rows(plan) if plan.has_ledger else None
        note_record(plan, planner, rows=rows, outputs={}, seconds=0.0)
        planner.renew(plan.node.name)
    node, outputs = plan.node, plan.outputs
    left = NodeResult(node=node.name, stage=node.stage, state=FRESH, num_items=len(plan.wanted), outputs=outputs)
    return left, item_failures(planner, plan)
