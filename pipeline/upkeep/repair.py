"""`verify --repair`: take out what is broken, under the locks of its keys, and let an ordinary run make it again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from reelwright.pipeline.config.pipeline_file import PipelineFile
from reelwright.pipeline.plan.graph import FRESH
from reelwright.pipeline.plan.keys import hub_file
from reelwright.pipeline.plan.plan import Planner
from reelwright.pipeline.run.reading import read_videos
from reelwright.pipeline.run.results import NodeResult, Observer, RunOptions
from reelwright.pipeline.run.runner import open_planner, run_pipeline
from reelwright.pipeline.upkeep.bucket_copy import Scope, copied
from reelwright.pipeline.upkeep.verify import AREAS, found_in, verify
from reelwright.storage.errors import StoreError, UnusableStoreError
from reelwright.storage.integrity.check import FOREIGN, Problem, is_key
from reelwright.storage.integrity.removal import intact_rows, is_ledger, take_out
from reelwright.storage.kinds import GROUPED, LISTED, WITH_ITEMS
from reelwright.storage.ledger.items import ItemLedger
from reelwright.storage.ledger.records import load_record
from reelwright.storage.locks.locks import collecting, exclusive, holdings, uses
from reelwright.storage.store import Store

_ROUNDS = 4  # what is repaired may show more: a ledger that was damaged hides broken items


@dataclass(frozen=True)
class Repair:
    """What was taken out, what was made again, and what is still wrong."""

    messages: tuple[str, ...]
    results: tuple[NodeResult, ...]
    problems: tuple[Problem, ...]


def repair(
    file: PipelineFile,
    observer: Observer,
    options: RunOptions | None = None,
    *,
    whole: bool = False,
    report: Callable[[str], None] = lambda _: None,
) -> Repair:
    """Take out what is broken of what the pipeline file reaches, or of the whole store, and make again what it reaches.

    Items that are not broken, and nodes that lost nothing, are left as they are; so is what is foreign. ``tell`` is
    called before another process is waited for. Raises StoreError while one uses what is broken, and what
    `run_pipeline` raises.
    """
    messages: list[str] = []
    results: list[NodeResult] = []
    for rounds_left in reversed(range(_ROUNDS + 1)):
        file.store.backend.forget()
        problems = tuple(problem for problem in verify(file, whole=whole).problems if problem.is_wrong)
        broken = [problem for problem in problems if _is_broken(problem)]
        if not broken or not rounds_left:
            break
        messages += _take_out(file, broken, report)
        results += _make_again(file, broken, observer, options or RunOptions())
    return Repair(tuple(messages), tuple(results), problems)


def _is_broken(problem: Problem) -> bool:
    return problem.is_wrong and problem.kind != FOREIGN


def _take_out(file: PipelineFile, broken: Sequence[Problem], report: Callable[[str], None]) -> list[str]:
    """Remove what is broken, and still so when nobody else can write or begin to use it; list damaged ledgers again."""
    store, what = file.store, f"repair of {file.path.name}"
    with collecting(store.locks, report=report, what=what), contextlib.ExitStack() as held:
        store.backend.forget()
        keys = {problem.path: _lock_of(store, problem.path) for problem in broken}
        _check_unused(store, {*keys.values(), *(problem.path.name for problem in broken)})
        for key in sorted(set(keys.values()) - {""}):
            held.enter_context(exclusive(store.lock(key), report=report, what=what, is_kept=False))
        still = {problem.path for problem in found_in(store, _narrowed(store, broken)) if _is_broken(problem)}
        paths = [path for path in keys if path in still or path.parent == store.root / "nodes"]
        messages = [
            relist(store, key) for key in sorted({_key_of(store, path) for path in paths if is_ledger(store, path)})
        ]  # first: what is broken beside it is taken out of it, too
        messages += take_out(store, [path for path in paths if not is_ledger(store, path)])
    store.backend.forget()
    return messages


def relist(store: Store, key: str) -> str:
    """List again the items of a ledger that is damaged: its intact part, and what is intact of their data."""
    scope = Scope({area: {key: None} for area in WITH_ITEMS})
    whole = contextlib.nullcontext(store) if store.url is None else copied(store, scope)
    with whole as copy:
        num_found = ItemLedger(store.node(key)).relist(list(intact_rows(copy, key)))
    return f"nodes/{key}/items.parquet: {num_found} videos listed again from their data"


def _make_again(
    file: PipelineFile, broken: Sequence[Problem], observer: Observer, options: RunOptions
) -> list[NodeResult]:
    """Run the nodes that lost something, in running order."""
    read_videos(file, observer, anew=False)
    lost = {_key_of(file.store, problem.path) for problem in broken} | {problem.path.name for problem in broken}
    try:
        planner = open_planner(file)
        names = [name for name in planner.graph.nodes if not lost.isdisjoint(_names_of(planner, name))]
    except UnusableStoreError:
        raise
    except StoreError:  # what was taken out hid more that is damaged: the next look finds it
        return []
    if not names:
        return []
    run = run_pipeline(file, observer, replace(options, only=tuple(names)))
    return [result for result in run.nodes if result.state != FRESH]


def _names_of(planner: Planner, name: str) -> set[str]:
    """What problems of a node's outputs are called by: its keys, its file of weights, its last record."""
    plan = planner.plan(name)
    hub = hub_file(plan.node, planner.file)
    return {plan.key, plan.spec_key, f"{name}.json", "" if hub is None else hub.name} - {""}


def _key_of(store: Store, path: Path) -> str:
    """The key that a path of the store belongs to; empty for what belongs to none, such as weights."""
    area, *rest = path.relative_to(store.root).parts
    return rest[0].removesuffix(".zarr") if area in AREAS and area not in {"projects", "weights"} else ""


def _lock_of(store: Store, path: Path) -> str:
    """The key whose lock whoever writes a path holds: of published tables that of the scores they are made of."""
    key = _key_of(store, path)
    try:
        record = load_record(store.node(key) / "record.json") if key else None
    except StoreError:
        record = None
    return key if record is None else record.spec_key


def _check_unused(store: Store, keys: set[str]) -> None:
    """Raise StoreError while another process uses one of ``keys``, which are names of files of weights too."""
    for use in [*uses(store.locks), *holdings(store.locks)]:
        if not use.is_dead and not keys.isdisjoint((*use.owner.keys, use.key) if use.key else use.owner.keys):
            raise StoreError(f"{use.owner} works on this since {use.owner.since} ({use.owner.what}); wait for its end")


def _narrowed(store: Store, broken: Sequence[Problem]) -> Scope:
    """What to look at to know whether all this is still broken."""
    scope = Scope()
    for path in (problem.path for problem in broken):
        area, *rest = path.relative_to(store.root).parts
        key = _key_of(store, path)
        name = rest[1].partition(".")[0] if area in WITH_ITEMS else ""
        if area in {"projects", "weights"}:
            scope.add(area, "/".join(rest))
        elif area in LISTED:
            scope.add(area, key)
            scope.add("nodes", key)
        elif area in WITH_ITEMS and (area in GROUPED or is_key(name)):
            scope.add(area, key, frozenset({name}))
            scope.add("nodes", key)
        elif key:
            scope.add("outputs", key)
            scope.add("nodes", key)
    return scope
