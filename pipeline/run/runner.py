"""Run a pipeline: plan it, do what is not up to date, remember what is; what became of it, and how it is stopped."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from types import FrameType

from reelwright.pipeline.config.pipeline_file import PipelineFile
from reelwright.pipeline.plan.data_warnings import length_notes
from reelwright.pipeline.plan.dataset import load_dataset
from reelwright.pipeline.plan.graph import FRESH, Graph, NodePlan, build_graph
from reelwright.pipeline.plan.lockfile import lock_path, write_lock
from reelwright.pipeline.plan.plan import Planner
from reelwright.pipeline.plan.reasons import write_input_videos
from reelwright.pipeline.run.results import FAILED, SKIPPED, Failure, NodeResult, Observer, RunOptions
from reelwright.storage.errors import ConfigError, Interrupted, StoreError
from reelwright.storage.ledger.records import remember_record
from reelwright.storage.store_errors import why_unusable


def open_planner(
    file: PipelineFile, *, graph: Graph | None = None, forced: Iterable[str] = (), read: bool = False
) -> Planner:
    """A planner over what the store knows now; ``graph`` is that of the file, where it was just built.

    With ``read``, for an answer that people wait for, files that are touched or moved are known by their content (see
    `Dataset.reading`); else none is read. What is not known then is in no key: nodes that read it have none.
    """
    file.store.backend.forget()
    graph, dataset = graph or build_graph(file), load_dataset(file)
    dataset = dataset.reading(quick=file.videos.digest == "quick") if read else dataset
    return Planner(file, graph, dataset, graph.all_named(forced))


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What became of a whole run."""

    nodes: tuple[NodeResult, ...]
    failures: tuple[Failure, ...]
    notes: tuple[str, ...] = ()  # what a person should know, though nothing is wrong
    warnings: tuple[str, ...] = ()  # what is most likely wrong with videos and labels

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


def run_pipeline(file: PipelineFile, observer: Observer, options: RunOptions | None = None) -> RunResult:
    """Bring the nodes of a pipeline up to date.

        settings -> videos and labels as known -> plan -> all is up to date: done
                                                       -> else checks, new videos, node by node (pipeline/run/nodes.py)

    Raises ConfigError or InputError before any heavy work; Interrupted when the scheduler asks to stop.
    """
    _check_alone()
    _calm_threads()
    options = options or RunOptions()
    graph = build_graph(file)
    selected, forced = graph.selected(only=options.only, until=options.until), graph.all_named(options.force)
    file.store.backend.check_writable()
    makes_videos = file.videos.synthesize is not None  # before any label of theirs can be read
    planner = None if makes_videos else open_planner(file, graph=graph, forced=forced)
    with contextlib.ExitStack() as stack:
        if planner is not None and _is_done(planner, selected, options):
            result = _nothing_to_do(planner, observer, [planner.plan(name) for name in graph.nodes if name in selected])
        else:
            from reelwright.pipeline.run.nodes import run_nodes  # all that work needs comes with it

            done = run_nodes(file, graph, planner, observer, options, stack)
            planner = done.planner
            result = RunResult(
                nodes=tuple(done.results.values()),
                failures=tuple(done.failures),
                notes=done.notes,
                warnings=done.warnings,
            )
        read = [(planner.dataset_of(node), [*map(planner.plan, node.parents)]) for node in graph.nodes.values()]
        notes = (*planner.dataset.notes, *length_notes(read, rows_of=planner.rows), *result.notes)
        is_whole = not any(node.state in {FAILED, SKIPPED} for node in result.nodes)
        left = [node.node for node in result.nodes if node.state == FRESH]
        unwritten = _finish_run(planner, left, with_lock=not options.frozen and is_whole)
    return replace(result, notes=(*notes, *unwritten))


def _is_done(planner: Planner, selected: Collection[str], options: RunOptions) -> bool:
    """Whether nothing is to be done, noted or told of the nodes ``selected``, nor any video to be read.

    What is asked for, whatever is to do, is looked at all the same: a lock file, a cluster.
    """
    is_elsewhere = bool(planner.file.cluster) or any(value is not None for value in options.cluster.values())
    if planner.dataset.unread or options.frozen or is_elsewhere:
        return False
    try:
        return all(planner.plan(name).is_done for name in selected)
    except ConfigError:  # checks tell all that is wrong in the settings at once
        return False


def _nothing_to_do(planner: Planner, observer: Observer, plans: Sequence[NodePlan]) -> RunResult:
    """What becomes of a run with nothing to do; who watches hears of it as of any."""
    warnings = planner.warnings
    observer.warned(warnings)
    observer.planned(plans)
    nodes = [
        NodeResult(
            node=plan.node.name,
            stage=plan.node.stage,
            state=FRESH,
            num_items=len(plan.wanted),
            outputs=plan.outputs,
        )
        for plan in plans
    ]
    for node in nodes:
        observer.finished(node)
    return RunResult(nodes=tuple(nodes), failures=(), warnings=warnings)


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
    """Note what the file has now under nodes that were up to date, so that later changes are told against it.

    What lies beside a record for the same, and `verify --repair` took out, is written again.
    """
    for plan in map(planner.plan, names):
        if plan.record is None:
            continue
        last = planner.last(plan.node)
        if last is None or last.key != plan.key:
            remember_record(plan.record, project=planner.project, node=plan.node.name)
        if plan.keeps_inputs and not (planner.file.store.node(plan.key) / "samples.json").exists():
            write_input_videos(planner.file.store, plan.key, planner.inputs_now(plan))


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


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """While the block runs, the scheduler's signals end it as `Interrupted`."""
    previous = {number: signal.signal(number, _interrupt) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    del frame
    raise Interrupted(f"stopped by {signal.Signals(number).name}; what was done is kept, run again to go on")
