"""`verify --repair`: take out what is broken, and do just that again, through the same code as a run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from reelwright.pipeline.bucket_copy import editable, editable_tables, moved
from reelwright.pipeline.cluster.executors import LocalExecutor
from reelwright.pipeline.execute import execute
from reelwright.pipeline.file import PipelineFile
from reelwright.pipeline.keys import hub_file
from reelwright.pipeline.noted import write_noted
from reelwright.pipeline.plan import WAITING, NodePlan, Planner
from reelwright.pipeline.results import NodeResult, Observer, RunOptions
from reelwright.pipeline.runner import open_planner, read_videos
from reelwright.pipeline.units import build_work
from reelwright.pipeline.verify import find_problems, found_in, reachable
from reelwright.stages.registry import STAGES, load
from reelwright.storage.bringing import look_again, refresh
from reelwright.storage.checking import FOREIGN, Problem
from reelwright.storage.errors import StoreError
from reelwright.storage.files import write_sealed
from reelwright.storage.locks import holdings, uses
from reelwright.storage.mending import Removed, mend_tables, remove_broken

_ROUNDS = 3  # what is mended may show more: a ledger that was damaged hides broken items


@dataclass(frozen=True)
class Repair:
    """What was mended, what was done again, and what is still wrong."""

    told: tuple[str, ...]
    results: tuple[NodeResult, ...]
    problems: tuple[Problem, ...]


def repair(file: PipelineFile, observer: Observer, options: RunOptions | None = None) -> Repair:
    """Mend everything that the pipeline file reaches; of a store in a bucket, by fresh copies of its bytes.

    Items that are not broken, and nodes that are stale for another reason, are left as they are; so is what is foreign,
    and what only other pipeline files reach. Raises what the stages raise.
    """
    store = file.store
    with editable_tables(store) as copy:
        told = mend_tables(copy)
    results: list[NodeResult] = []
    for _ in range(_ROUNDS):
        look_again(store.root)
        read_videos(file, observer, anew=False)
        planner = open_planner(file)
        _put_back(planner)
        problems, removed = _take_out(planner)
        if removed is None:
            break
        told += removed.told
        planner.forget()
        results += _do_again(planner, removed, observer, options or RunOptions())
        planner.known.save()
    else:
        found = found_in(store, reachable(open_planner(file)))
        problems = [problem for problem in found if problem.is_wrong]
    return Repair(tuple(told), tuple(results), tuple(problems))


def _take_out(planner: Planner) -> tuple[list[Problem], Removed | None]:
    """What is wrong; and what was removed of it, None where there was nothing to remove."""
    store, scope = planner.file.store, reachable(planner)
    with editable(store, scope) as copy:
        problems = [problem for problem in find_problems(copy, moved(scope, of=store, to=copy)) if problem.is_wrong]
        broken = [problem.path for problem in problems if problem.kind != FOREIGN]
        if broken:
            _check_unused(planner)
        removed = remove_broken(copy, broken) if broken else None
    look_again(store.root)
    if removed is not None:
        removed.weights = {store.root / path.relative_to(copy.root) for path in removed.weights}
    return [replace(problem, path=store.root / problem.path.relative_to(copy.root)) for problem in problems], removed


def _check_unused(planner: Planner) -> None:
    """Raise StoreError while another process uses what the pipeline file reaches."""
    keys = {key for plan in planner.plans() for key in (plan.key, plan.spec_key) if key}
    locks = planner.file.store.locks
    for use in [*uses(locks), *holdings(locks)]:
        if not use.is_dead and not keys.isdisjoint((*use.owner.keys, use.key)):
            raise StoreError(f"{use.owner} works on this since {use.owner.since} ({use.owner.what}); wait for its end")


def _put_back(planner: Planner) -> None:
    """Write again the small files that follow from others: copies of records, lists of samples."""
    store = planner.file.store
    refresh(planner.project)
    for plan in planner.plans():
        if plan.record is None:
            continue
        if not (planner.project / f"{plan.node.name}.json").exists():
            write_sealed(planner.project / f"{plan.node.name}.json", asdict(plan.record))
        is_noted = plan.node.config.kind == "run" or plan.node.config.publishes
        if is_noted and not (store.node(plan.key) / "samples.json").exists():
            write_noted(store, plan.key, planner.noted_now(plan))


def _do_again(planner: Planner, removed: Removed, observer: Observer, options: RunOptions) -> list[NodeResult]:
    """Run the nodes that lost something, in running order, on what they lost."""
    results = []
    groups, items = set(removed.groups), {key: set(digests) for key, digests in removed.items.items()}
    for name, node in planner.graph.nodes.items():
        hub = hub_file(node, planner.file)
        if hub in removed.weights and not hub.exists():
            load("reelwright.stages.embed.fetch:fetch")(node.config.hub_weights(), planner.file.store)
            planner.forget()
        plan = planner.plan(name)
        if plan.state == WAITING:
            continue
        lost = items.pop(plan.spec_key, set())
        broken = replace(plan, todo=tuple(item for item in plan.wanted if item.digest in lost))
        if plan.spec_key in groups:
            groups.discard(plan.spec_key)
            _make_group(broken, planner, observer)
        if broken.todo or plan.key in removed.nodes:
            result, _ = execute(broken, planner, observer, options, executor=LocalExecutor())
            observer.finished(result)
            results.append(result)
    return results


def _make_group(plan: NodePlan, planner: Planner, observer: Observer) -> None:
    """Let the stage write the attributes of its group, for no video."""
    load(STAGES[plan.node.stage].work)(build_work(planner, plan, ()), observer.started(plan))
    planner.forget()
