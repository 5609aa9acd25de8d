"""`verify --repair`: take out what is broken, under the locks of its keys, and let an ordinary run make it again.

A whole item goes with its row of the ledger, a whole table or report, of a run what cannot be gone on from. What is
marked as done goes with its mark, so that nothing half there looks whole.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from reelwright.pipeline.config.pipeline_file import PipelineFile
from reelwright.pipeline.plan.graph import FRESH
from reelwright.pipeline.plan.keys import hub_file
from reelwright.pipeline.plan.plan import Planner
from reelwright.pipeline.run.reading import read_videos
from reelwright.pipeline.run.results import NodeResult, Observer, RunOptions
from reelwright.pipeline.run.runner import open_planner, run_pipeline
from reelwright.pipeline.upkeep.verify import AREAS, Scope, copied, found_in, verify
from reelwright.storage.errors import StoreError, UnusableStoreError
from reelwright.storage.files import folder_bytes, remove
from reelwright.storage.integrity.check import (
    FOREIGN,
    Problem,
    check_item,
    check_item_scores,
    is_key,
    item_rows,
    kept_item,
    scored_rows,
)
from reelwright.storage.kinds import GROUPED, KINDS, LISTED, RECORDED, WITH_ITEMS
from reelwright.storage.ledger.items import ItemLedger, ItemRow
from reelwright.storage.ledger.records import load_record, save_record
from reelwright.storage.locks.locks import collecting, exclusive, holdings, uses
from reelwright.storage.store import Store

_ROUNDS = 4  # what is repaired may show more: a ledger that was damaged hides broken items
_NEEDED_ONLY_WHILE_TRAINING = ("checkpoints/", "events.out.tfevents", "wandb/")
_CHECKPOINT = ("checkpoints/last/", "checkpoints/best-")  # of use together only


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

    Items that are not broken, and nodes that lost nothing, are left as they are; so is what is foreign. ``report`` is
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


def is_ledger(store: Store, path: Path) -> bool:
    """Whether a file is part of a ledger, which is listed again (`relist`) and not made again."""
    parts = path.relative_to(store.root).parts
    return parts[0] == "nodes" and parts[2:3] in {("items.parquet",), ("items",)}


def take_out(store: Store, paths: Iterable[Path]) -> list[str]:
    """Remove what is broken: files that `verify` named, none of a ledger. Says what it did, for people."""
    messages, runs = [], defaultdict(set)
    items: dict[str, set[str]] = defaultdict(set)
    for path in paths:
        area, *rest = path.relative_to(store.root).parts
        if area in GROUPED and rest[1:] != ["zarr.json"]:
            remove(store.root / area / rest[0] / rest[1])
            items[rest[0].removesuffix(".zarr")].add(rest[1])
        elif area in WITH_ITEMS and rest[1:] and (digest := rest[1].partition(".")[0]) and is_key(digest):
            for name in (f"{digest}.parquet", f"{digest}.rows.parquet"):
                remove(store.predictions(rest[0]) / name)
            items[rest[0]].add(digest)
        elif area in LISTED and rest[1:]:
            remove(path)
            rows = ItemLedger(store.node(rest[0])).load().values()
            items[rest[0]].update(row.digest for row in rows if row.file == "/".join(rest[1:]))
        elif area == KINDS["run"].folder:
            runs[rest[0]].add("/".join(rest[1:]))
        elif area in RECORDED:
            remove(store.root / area / rest[0])
            messages.append(f"{area}/{rest[0]}: removed")
        elif rest[1:] == ["record.json"] and _restore(store, path):
            messages.append(f"nodes/{rest[0]}/record.json: copied from the last record of its pipeline file")
        else:  # small files, weights: what they are made of says how they are made again
            remove(path)
            messages.append(f"{path.relative_to(store.root)}: removed")
    for key, digests in items.items():
        ItemLedger(store.node(key)).drop(digests)
        messages.append(f"nodes/{key}: {len(digests)} videos removed")
    return [*messages, *(_take_out_of_run(store, key, names) for key, names in runs.items())]


def intact_rows(store: Store, key: str) -> Iterator[ItemRow]:
    """Rows of the items of a spec key whose data is there and intact, for a ledger that is not.

    What only the ledger knew of them (seconds, backend, that a video was truncated) is lost.
    """
    for group in (store.output(name, key) for name, kind in KINDS.items() if kind.is_rows and not kind.beside):
        for item in sorted(group.iterdir()) if group.is_dir() else ():
            if is_key(item.name) and not list(check_item(item)):
                yield ItemRow(digest=item.name, status="ok", rows=item_rows(item), bytes=folder_bytes(item))
    scores = store.predictions(key)
    for digest in sorted({path.name.partition(".")[0] for path in scores.iterdir()}) if scores.is_dir() else ():
        kept = kept_item(scores, digest)
        is_whole = is_key(digest) and not list(check_item_scores(scores, digest))
        if is_whole and not (kept.is_dir() and list(check_item(kept))):
            files = (scores / f"{digest}.parquet", scores / f"{digest}.rows.parquet", kept)
            sizes = [folder_bytes(path) for path in files]
            yield ItemRow(digest=digest, status="ok", rows=scored_rows(scores, digest), bytes=sum(sizes))


def _take_out_of_run(store: Store, key: str, names: set[str]) -> str:
    """Files that only training needs go alone; else the run becomes unfinished, and goes on from its last checkpoint.

    Without an intact checkpoint it starts anew.
    """
    folder, record = store.run(key), load_record(store.node(key) / "record.json")
    is_of_checkpoint = any(name.startswith(_CHECKPOINT) for name in names)
    if record is not None and all(name.startswith(_NEEDED_ONLY_WHILE_TRAINING) for name in names):
        if is_of_checkpoint:
            listed = {name.removeprefix(f"runs/{key}/") for name in record.files}
            names = names | {name for name in listed if name.startswith(_CHECKPOINT)}
        for name in sorted(names):
            remove(folder / name)
        gone = {f"runs/{key}/{name}" for name in names}
        kept = {name: entry for name, entry in record.files.items() if name not in gone}
        save_record(store.node(key) / "record.json", replace(record, files=kept))
        return f"runs/{key}: {', '.join(sorted(names))} removed; a finished run does not need them"
    remove(folder / "model.safetensors")
    for name in sorted(names):
        remove(folder / name)
    if is_of_checkpoint:
        remove(folder)
    return f"runs/{key}: {', '.join(sorted(names))} removed" + (", and all of the run" if is_of_checkpoint else "")


def _restore(store: Store, path: Path) -> bool:
    """Put a damaged record back from the copy that its pipeline file has; False where there is none."""
    for copy in sorted((store.root / "projects").glob("*/*.json")):
        with contextlib.suppress(StoreError):
            record = load_record(copy)
            if record is not None and record.key == path.parent.name:
                save_record(path, record)
                return True
    return False


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
