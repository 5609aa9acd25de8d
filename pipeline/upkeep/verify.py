"""What is wrong in a store: everything that a pipeline file reaches, or the whole store, against what was written.

Of a store in a bucket a fresh copy is looked at: the working copy says nothing of the bucket's bytes.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa

from reelwright.pipeline.config.pipeline_file import PipelineFile
from reelwright.pipeline.plan.keys import hub_file
from reelwright.pipeline.plan.plan import Planner
from reelwright.pipeline.run.runner import open_planner
from reelwright.storage.bucket import remote
from reelwright.storage.constants import LOGGERS, SCHEMA, URLS, VIDEOS
from reelwright.storage.digests import broken_seal
from reelwright.storage.errors import ConfigError, InputError, ReelwrightError, StoreError, UnusableStoreError
from reelwright.storage.integrity.check import (
    LEFTOVER,
    MISSING,
    Problem,
    Rows,
    check_items,
    check_node,
    check_outputs,
    check_sealed,
    check_tables,
    check_weights,
    is_key,
    ledger_is_whole,
    unexpected,
)
from reelwright.storage.kinds import GROUPED, KINDS, RECORDED, WITH_ITEMS
from reelwright.storage.ledger.items import ItemLedger
from reelwright.storage.ledger.records import Record, check_schema, load_record
from reelwright.storage.store import Store, cache_folder

AREAS = (*GROUPED, *RECORDED, "nodes", "projects", "weights")
_OF_CLUSTERS = ("claims", "jobs", "logs", "progress")
_FILES = (SCHEMA, "files.json", VIDEOS, URLS)
_OURS = frozenset({*AREAS, "scratch", "tuning", "frame_index", "locks", *_OF_CLUSTERS, *_FILES, LOGGERS})
_TABLES = frozenset({VIDEOS, URLS, SCHEMA})
_NOT_WRITTEN_ONCE = ("locks/", "claims/", "logs/")  # they come and go while others work
_FILES_AT_ONCE = 500
_TRIES = 5
Digests = frozenset[str] | None  # of videos; None: all
_Check = Callable[[Store, str, Digests], Iterator[Problem]]


@dataclass
class Scope:
    """What is looked at."""

    # area -> names in it: keys, paths of files in projects and weights; of frames, embeddings and cached predictions
    # which videos. "outputs" are those of the records with these keys, in whatever area.
    names: dict[str, dict[str, Digests]] = field(default_factory=dict)
    is_whole: bool = False  # also what belongs to nothing

    def add(self, area: str, name: str, digests: Digests = None) -> None:
        """Look at this too, and at these videos besides those that are looked at."""
        before = self.of(area).get(name, frozenset())
        self.names.setdefault(area, {})[name] = None if digests is None or before is None else before | digests

    def of(self, area: str) -> Mapping[str, Digests]:
        """What is looked at of an area."""
        return self.names.get(area, {})


@dataclass(frozen=True)
class Report:
    """What `verify` found."""

    problems: tuple[Problem, ...]
    note: str = ""  # when something else was looked at than asked for

    @property
    def is_whole(self) -> bool:
        """Whether nothing is wrong; leftovers are not."""
        return not any(problem.is_wrong for problem in self.problems)


def verify(file: PipelineFile, *, whole: bool = False) -> Report:
    """Check what the pipeline file reaches, or the whole store of it; of a store in a bucket, a copy made for this.

    Where damage keeps the pipeline from being planned, the whole store is checked. Raises ConfigError and InputError
    when pipeline file, manifest or labels are wrong.
    """
    if whole:
        with contextlib.suppress(StoreError):  # damaged: it is found with the rest
            check_schema(file.store)
        return Report(found_in(file.store, None))
    try:
        scope = reachable(open_planner(file, read=True))
    except (ConfigError, InputError, UnusableStoreError):
        raise
    except (ReelwrightError, OSError, pa.ArrowException, ValueError, KeyError, TypeError) as error:
        problems = found_in(file.store, None)
        return Report(problems, f"the pipeline cannot be planned ({error}), so the whole store was checked")
    return Report(found_in(file.store, scope))


def found_in(store: Store, scope: Scope | None) -> tuple[Problem, ...]:
    """Problems within a scope, or in all of the store for None."""
    if store.url is None:
        return tuple(dict.fromkeys(find_problems(store, scope or everything(store))))
    with copied(store, scope) as copy:
        found = dict.fromkeys(find_problems(copy, scope or everything(copy)))
        return tuple(replace(problem, path=store.root / problem.path.relative_to(copy.root)) for problem in found)


def reachable(planner: Planner) -> Scope:
    """What the pipeline file needs as it is set now."""
    store, scope = planner.file.store, Scope()
    store.backend.pull(planner.project)
    for path in planner.project.glob("*.json"):
        scope.add("projects", f"{path.parent.name}/{path.name}")
    if planner.dataset.synthetic is not None:
        scope.add("nodes", planner.dataset.synthetic.key)
        scope.add(KINDS["videos"].folder, planner.dataset.synthetic.key)
    for plan in planner.plans():
        hub = hub_file(plan.node, planner.file)
        if hub is not None and store.backend.has(hub):
            scope.add("weights", hub.name)
        if plan.key:
            scope.add("nodes", plan.key)
            scope.add("nodes", plan.spec_key)
            scope.add("outputs", plan.key)
        if plan.spec_key and plan.node.config.kind == "items" and plan.node.config.stores:
            for kind in (plan.node.config.produces, *plan.node.config.also_produces):
                scope.add(KINDS[kind].folder, plan.spec_key, frozenset(item.digest for item in plan.wanted))
    return scope


def everything(store: Store) -> Scope:
    """All that lies in the store."""
    nodes = {path.name for path in _listed(store, "nodes") if is_key(path.name)}
    names: dict[str, Iterable[str]] = {
        "nodes": nodes,
        "outputs": {key for key in nodes if (store.node(key) / "record.json").exists()},
        "projects": [f"{at.name}/{path.name}" for at in _listed(store, "projects") for path in at.glob("*.json")],
        "weights": [path.name for path in _listed(store, "weights")],
    }
    ledgers = {key for key in nodes if _has_ledger(store, key)}
    for area, kind in WITH_ITEMS.items():
        keys = [path.name.removesuffix(kind.ending) for path in _listed(store, area)]
        names[area] = [key for key in keys if (is_key(key) if kind.is_rows else key in ledgers)]
    return Scope({area: dict.fromkeys(found) for area, found in names.items()}, is_whole=True)


def find_problems(store: Store, scope: Scope) -> Iterator[Problem]:
    """Everything that is not as it was written, small files first."""
    yield from check_tables(store)
    for area, check in _CHECKS.items():
        for name, digests in sorted(scope.of(area).items()):
            yield from check(store, name, digests)
    if scope.is_whole:
        yield from _belongs_to_nothing(store, scope)


def _items(area: str) -> _Check:
    name, kind = next((name, kind) for name, kind in KINDS.items() if kind.folder == area)
    return lambda store, key, digests: check_items(kind, store.output(name, key), _done(store, key), digests)


def _outputs(store: Store, key: str) -> Iterator[Problem]:
    record = _whole_record(store, key)
    return iter(()) if record is None else check_outputs(store, record)


def _whole_record(store: Store, key: str) -> Record | None:
    """The record of a key when it is there and intact."""
    path = store.node(key) / "record.json"
    return load_record(path) if broken_seal(path) is None else None


def _done(store: Store, key: str) -> Rows | None:
    """Rows of the items that are done; None when the ledger is damaged."""
    folder = store.node(key)
    if not ledger_is_whole(folder):
        return None
    return {name: row for name, row in ItemLedger(folder).load().items() if row.is_done}


def _belongs_to_nothing(store: Store, scope: Scope) -> Iterator[Problem]:
    """Files that nothing of ours wrote, runs that never ended, items whose data is gone as a whole."""
    for path in sorted(store.root.iterdir()) if store.root.is_dir() else ():
        if path.name not in _OURS:
            yield unexpected(path)
    records = [record for key in scope.of("outputs") if (record := _whole_record(store, key)) is not None]
    named = {"/".join(name.split("/")[:2]) for record in records for name in record.files}
    for area in (*RECORDED, "nodes", *GROUPED):
        for path in _listed(store, area):
            key = path.name.removesuffix(WITH_ITEMS[area].ending) if area in WITH_ITEMS else path.name
            if not is_key(key):
                yield unexpected(path)
            elif area in RECORDED and key not in scope.of(area) and f"{area}/{key}" not in named:
                yield Problem(path, LEFTOVER, "was never finished, or its record is damaged")
    keys = {key for area in WITH_ITEMS for key in scope.of(area)}
    for key in sorted(name for name in scope.of("nodes").keys() - keys if _has_ledger(store, name)):
        if _done(store, key):
            yield Problem(store.node(key), MISSING, "lists items, but none of their data is there")


def _has_ledger(store: Store, key: str) -> bool:
    return (store.node(key) / "items.parquet").exists() or (store.node(key) / "items").is_dir()


def _listed(store: Store, area: str) -> list[Path]:
    folder = store.root / area
    return sorted(folder.iterdir()) if folder.is_dir() else []


@contextlib.contextmanager
def copied(store: Store, scope: Scope | None) -> Iterator[Store]:
    """The copy of what ``scope`` looks at, of everything for None, as a store in a folder that is removed again."""
    cache_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="verify-", dir=cache_folder()) as folder:
        found = (name for name, _ in store.backend.entries(store.root) if not name.startswith(_NOT_WRITTEN_ONCE))
        names = found if scope is None else sorted(_named(store, scope))
        _download({store.backend.name_of(store.root / name): Path(folder) / name for name in names}, store)
        yield Store(Path(folder))


def _download(files: dict[str, Path], store: Store) -> None:
    """Download objects (by URL); those that are not there (any more) are left out, as they are of the copy."""
    urls = list(files)
    for start in range(0, len(urls), _FILES_AT_ONCE):
        part = urls[start : start + _FILES_AT_ONCE]
        for _ in range(_TRIES):
            try:
                remote.download({url: files[url] for url in part})
                break
            except FileNotFoundError:  # another process replaces or removes it just now
                there = remote.look_at(part)
                part = [url for url in part if there[url] is not None]
        else:
            raise StoreError(f"{store.url} is changed by others all the time, so that no copy can be made. Run again")


def _named(store: Store, scope: Scope) -> Iterator[str]:
    """Names of the objects that a scope looks at."""
    yield from _TABLES & store.backend.names(store.root)
    folders = {f"nodes/{key}" for key in scope.of("nodes")}
    folders |= {f"{area}/{key}" for area in RECORDED for key in scope.of("outputs")}
    for area, kind in WITH_ITEMS.items():
        for key, digests in scope.of(area).items():
            folder = f"{area}/{key}{kind.ending}"
            if not kind.is_rows:
                folders.add(folder)
                continue
            for name, _ in store.backend.entries(store.root / folder):
                if digests is None or name == kind.marker or name.partition("/")[0] in digests:
                    yield f"{folder}/{name}"
    for folder in sorted(folders):
        yield from (f"{folder}/{name}" for name, _ in store.backend.entries(store.root / folder))
    yield from (f"{area}/{name}" for area in ("projects", "weights") for name in scope.of(area))


_CHECKS: Mapping[str, _Check] = {
    "projects": lambda store, name, _: check_sealed(store.root / "projects" / name),
    "nodes": lambda store, key, _: check_node(store.node(key)),
    "weights": lambda store, name, _: check_weights(store, store.root / "weights" / name),
    **{area: _items(area) for area in sorted(WITH_ITEMS)},
    "outputs": lambda store, key, _: _outputs(store, key),
}
