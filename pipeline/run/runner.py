"""Run what is not up to date, node by node."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from reelwright.pipeline.config.pipeline_file import PipelineFile
from reelwright.pipeline.config.profiles import cluster_settings
from reelwright.pipeline.executors.executors import Executor, executing
from reelwright.pipeline.plan.dataset import Dataset
from reelwright.pipeline.plan.graph import FRESH, WAITING, Graph, NodePlan, build_graph
from reelwright.pipeline.plan.keys import hub_file
from reelwright.pipeline.plan.load_dataset import NODE as VIDEOS
from reelwright.pipeline.plan.load_dataset import load_dataset, synthetic_set_of
from reelwright.pipeline.plan.lockfile import Frozen, lock_path, write_lock
from reelwright.pipeline.plan.plan import Planner
from reelwright.pipeline.run.checks import check_plans, check_settings, check_videos, length_notes
from reelwright.pipeline.run.execute import complete_notes, execute, is_settled, item_failures, note_record, ready_plan
from reelwright.pipeline.run.reading import read_for_run
from reelwright.pipeline.run.results import FAILED, SKIPPED, Failure, NodeResult, Observer, RunOptions, RunResult
from reelwright.stages.synthesize.source import DEGENERATE
from reelwright.storage.errors import ConfigError, Interrupted, ReelwrightError, StoreError, UnusableStoreError
from reelwright.storage.ledger.digest_cache import KnownFiles
from reelwright.storage.ledger.records import remember_record
from reelwright.storage.ledger.schema import note_schema
from reelwright.storage.locks.locks import exclusive, using
from reelwright.storage.store_errors import is_full, room, usable, why_unusable


def open_planner(
    file: PipelineFile, *, forced: Sequence[str] = (), dataset: Dataset | None = None, read: bool = False
) -> Planner:
    """A planner over what the store knows now, or ``dataset``, when it was just read.

    With ``read``, for an answer that people wait for, files that are touched or moved are known by their content (see
    `Dataset.reading`); else none is read. What is not known then is in no key: nodes that read it have none.
    """
    file.store.backend.forget()
    graph = build_graph(file)
    forced_names = frozenset(node for name in forced for node in graph.named(name))
    known = dataset or load_dataset(file)
    return Planner(file, graph, known.reading(quick=file.videos.digest == "quick") if read else known, forced_names)


def run_pipeline(file: PipelineFile, observer: Observer, options: RunOptions | None = None) -> RunResult:
    """Bring the nodes of a pipeline up to date.

    Raises ConfigError or InputError before any heavy work; Interrupted when the scheduler asks to stop.
    """
    _check_alone()
    _calm_threads()
    options = options or RunOptions()
    graph = build_graph(file)
    selected = _selected(graph, options)
    settings = cluster_settings(file, options.cluster)  # wrong ones are told before videos are read
    file.store.backend.check_writable()
    check_settings(file, graph, selected, executor=settings.executor)
    check = functools.partial(check_videos, file, graph, selected=selected)
    frozen, known = Frozen(file) if options.frozen else None, KnownFiles(file.store.files)
    if frozen is not None:
        frozen.check_settings(graph)
        frozen.check_videos(synthetic_set_of(file, known))
    with executing(file, settings, ask=options.ask) as executor:
        dataset = read_for_run(file, observer, options, known=known, executor=executor, check=check)
        planner = open_planner(file, forced=options.force, dataset=dataset)
        if frozen is not None:
            frozen.check_plans(planner)
        warnings = (*planner.warnings, *check_plans(planner, selected, is_local=settings.executor == "local"))
        observer.warned(warnings)
        observer.planned([plan for plan in planner.plans() if plan.node.name in selected])
        results: dict[str, NodeResult] = {}
        failures: list[Failure] = _unusable(planner)
        with contextlib.ExitStack() as stack:
            run = _Run(planner, observer, options, frozen, executor, stack)
            for name in graph.nodes:
                if name not in selected:
                    continue
                result, failed = _run_node(name, run, results)
                results[name] = result
                failures += failed
                observer.finished(result)
                if result.state == FAILED and not options.keep_going:
                    break
            notes = (*planner.dataset.notes, *length_notes(planner), *(() if frozen is None else frozen.notes(planner)))
            is_whole = not any(result.state in {FAILED, SKIPPED} for result in results.values())
            left = [name for name, result in results.items() if result.state == FRESH]
            notes = (*notes, *_finish_run(planner, left, with_lock=frozen is None and is_whole))
    return RunResult(nodes=tuple(results.values()), failures=tuple(failures), notes=notes, warnings=warnings)


def _finish_run(planner: Planner, left: Sequence[str], *, with_lock: bool) -> tuple[str, ...]:
    """Remember digests and the nodes ``left`` as they were, and write the lock file.

    What cannot be written is a note: all work is done and in place.
    """
    notes = []
    root = planner.file.store.root
    try:
        planner.known.save()
    except (OSError, StoreError) as error:
        message = (why_unusable(error, root) if isinstance(error, OSError) else None) or error
        notes.append(f"digests of files could not be remembered, so they are read again next time. {message}")
    try:
        _remember(planner, left)
    except (OSError, StoreError) as error:
        message = (why_unusable(error, root) if isinstance(error, OSError) else None) or error
        notes.append(f"what was up to date could not be remembered; changes are told against an older run. {message}")
    try:
        if with_lock:
            write_lock(planner)
    except OSError as error:
        path = lock_path(planner.file)
        notes.append(f"the lock file was not written. {why_unusable(error, path.parent) or error}")
    return tuple(notes)


def _remember(planner: Planner, names: Sequence[str]) -> None:
    """Note what the file has now under nodes that were up to date, so that later changes are told against it."""
    for plan in map(planner.plan, names):
        if plan.record is None:
            continue
        last = planner.last(plan.node)
        if last is None or last.key != plan.key:
            remember_record(plan.record, project=planner.project, node=plan.node.name)
        complete_notes(plan, planner)


def all_failures(planner: Planner) -> list[Failure]:
    """Every video that failed in any node, or could not even be probed, as the store knows it."""
    plans = [plan for plan in planner.plans() if plan.spec_key]
    return [*_unusable(planner), *(failure for plan in plans for failure in item_failures(planner, plan))]


def _check_alone() -> None:
    """Raises ConfigError in one of several processes that torchrun started: they would wait for one another.

    The processes that a run starts itself, and those of a SLURM job, train one run and never come here.
    """
    size = os.environ.get("WORLD_SIZE", "1")
    if "RANK" in os.environ and size != "1":
        raise ConfigError(
            f"this is one of {size} processes that torchrun or the like started (RANK={os.environ['RANK']}, "
            f"WORLD_SIZE={size} in the environment). A run starts its own: `reelwright train --nproc {size}` on one "
            "machine, `cluster: {executor: slurm, training: {nodes: N}}` on several; leave torchrun out"
        )


def _calm_threads() -> None:
    """Let OpenMP threads of torch sleep while they wait, unless the user said otherwise.

    Spinning, they take the cores from the decoding processes: embedding on two busy cores was 3.5 times slower.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is loaded


def check_before_run(planner: Planner, options: RunOptions) -> tuple[str, ...]:
    """What a run would refuse before it works, raised as it would; returns what it would warn of."""
    selected, settings = _selected(planner.graph, options), cluster_settings(planner.file, options.cluster)
    check_settings(planner.file, planner.graph, selected, executor=settings.executor)
    check_videos(planner.file, planner.graph, planner.dataset, selected)
    return check_plans(planner, selected, is_local=settings.executor == "local")


def _selected(graph: Graph, options: RunOptions) -> set[str]:
    only, until, _ = (
        [node for name in names for node in graph.named(name)] for names in (options.only, options.until, options.force)
    )
    if only:
        return set(only)
    return graph.upstream(until) if until else set(graph.nodes)


@dataclass(frozen=True)
class _Run:
    """What all nodes of a run share."""

    planner: Planner
    observer: Observer
    options: RunOptions
    frozen: Frozen | None
    executor: Executor
    stack: contextlib.ExitStack  # what ends with the run
    message: set[str] = field(default_factory=set)  # keys that `note_use` has told of

    @functools.cached_property
    def note_use(self) -> Callable[[Collection[str]], None]:
        """Tells other processes what must stay, once there is something to do."""
        file = self.planner.file
        return self.stack.enter_context(using(file.store.locks, what=f"run of {file.path.name}"))


def _run_node(name: str, run: _Run, results: Mapping[str, NodeResult]) -> tuple[NodeResult, list[Failure]]:
    planner = run.planner
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


def _run_stale_node(name: str, run: _Run) -> tuple[NodeResult, list[Failure]]:
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


def _report_use(run: _Run) -> None:
    """Say what the run uses; where it was planned with outputs that `gc` may have removed before, plan anew."""
    needed = _needed(run.planner)
    if needed <= run.message:
        return
    new = needed - run.message
    run.note_use(needed)
    run.message.update(new)
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
    node = plan.node
    if plan.record is None:
        has_ledger = node.config.kind == "items" and node.config.stores
        note_record(plan, planner, rows=planner.rows(plan) if has_ledger else None, outputs={}, seconds=0.0)
        planner.renew(node.name)
    outputs = dict(plan.record.outputs) if plan.record else {}
    left = NodeResult(node=node.name, stage=node.stage, state=FRESH, num_items=len(plan.wanted), outputs=outputs)
    return left, item_failures(planner, plan)


def _unusable(planner: Planner) -> list[Failure]:
    """Videos that could not even be made or probed."""
    found = [
        Failure(node=VIDEOS, video_ids=(row.name,), row=row, is_quarantined=row.cause == DEGENERATE)
        for row in planner.dataset.not_made
    ]
    for video in planner.dataset.unusable:
        row = planner.dataset.probe_row(video.video_id)
        assert row is not None
        is_left = planner.dataset.is_quarantined(row.attempts)
        found.append(Failure(node=VIDEOS, video_ids=(video.video_id,), row=row, is_quarantined=is_left))
    return found
