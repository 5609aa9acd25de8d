"""`gc`: what no pipeline file reaches any more may go, oldest first.

Roots are the pipeline files given: the keys of their nodes as they are set now and, of items, those of the manifest's
videos; while synthetic videos are still to be made, all. The key of a node that waits for another is not known: what
it left last stays until it runs. Other pipeline files that ran on this store (their last records lie in projects/) are
roots too, as they were when they ran last, with all items under their spec keys, since their manifests are not known;
`only_these` gives them up. Unfinished work of a node that is still wanted stays, since the next run goes on from it.
What a running process says it uses (storage/locks) stays with all its items and with what is not whole of it yet,
whoever runs it, wherever it runs.

Of a store in a bucket, what counts lies there. One listing tells sizes and, by the clock of the service, when what was
changed; services refuse machines whose clocks differ by more than minutes. What only this machine has is told apart.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from reelwright.pipeline.config.pipeline_file import PipelineFile
from reelwright.pipeline.plan.keys import hub_file
from reelwright.pipeline.plan.plan import Planner
from reelwright.pipeline.run.reading import read_videos
from reelwright.pipeline.run.results import Observer
from reelwright.pipeline.run.runner import open_planner
from reelwright.storage.backend import Backend
from reelwright.storage.errors import ConfigError
from reelwright.storage.integrity.garbage import Garbage, Listing, Roots, delete, find_garbage
from reelwright.storage.ledger.records import load_record
from reelwright.storage.locks.locks import COLLECTING, collecting, holdings, uses
from reelwright.storage.store import Store

_IN_USE = "another process works on it"
GUARD_SECONDS = 3600  # what was changed since may be in use by a running job


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Which garbage may go."""

    older_than_seconds: float = 0.0
    max_bytes: int | None = None  # of the whole store: oldest garbage goes until it fits; None: all goes
    guard_seconds: float = GUARD_SECONDS


@dataclass(frozen=True)
class Sweep:
    """What would go, and what stays though nothing reaches it."""

    going: tuple[Garbage, ...]
    kept: tuple[tuple[Garbage, str], ...]  # with the reason
    store_bytes: int
    projects: tuple[str, ...]  # other pipeline files whose last outputs are kept
    copies: tuple[Garbage, ...] = ()  # of a store in a bucket: what goes too, and lies in this machine's copy only

    @property
    def num_bytes(self) -> int:
        """How much goes."""
        return sum(garbage.num_bytes for garbage in self.going)


def sweep(
    files: Sequence[PipelineFile], observer: Observer, *, limits: Limits | None = None, only_these: bool = False
) -> Sweep:
    """Find what may go. Reads videos that are new or moved, so that what they reach is known.

    Raises ConfigError when the pipeline files are not of one store.
    """
    store = files[0].store
    others = sorted({file.store.place for file in files} - {store.place})
    if others:
        raise ConfigError(
            f"gc works on one store, but the pipeline files use {store.root} and {', '.join(others)}; give those of "
            "one store"
        )
    for file in files:
        read_videos(file, observer, anew=False, make=False)
    return _sweep(files, limits or Limits(), only_these=only_these)


def collect(
    files: Sequence[PipelineFile],
    observer: Observer,
    *,
    limits: Limits | None = None,
    only_these: bool = False,
    report: Callable[[str], None] = lambda _: None,
) -> Sweep:
    """`sweep`, and remove what may go. From the look at who uses what until the last removal nobody begins to use more.

    ``report`` is called before another one is waited for. Raises as `sweep`, and LostLockError.
    """
    sweep(files, observer, limits=limits, only_these=only_these)  # videos are read before others have to wait
    store = files[0].store
    with collecting(store.locks, report=report, what="gc"):
        store.backend.forget()
        found = _sweep(files, limits or Limits(), only_these=only_these)
        gone = delete(store, found.going)
        Backend().delete_trees([garbage.path for garbage in found.copies])  # of this machine's copy alone
    kept = tuple((garbage, _IN_USE) for garbage in found.going if garbage not in gone)
    return replace(found, going=tuple(gone), kept=(*found.kept, *kept))


def _sweep(files: Sequence[PipelineFile], limits: Limits, *, only_these: bool) -> Sweep:
    store = files[0].store
    roots = find_roots([open_planner(file) for file in files], only_these=only_these)
    listing = Listing(store.backend, store.root)
    found = sorted(find_garbage(store, roots, listing), key=lambda garbage: (garbage.changed, str(garbage.path)))
    store_bytes = listing.size(store.root)[0]
    going, kept, left, now = [], [], store_bytes, time.time()
    for garbage in found:
        age = now - garbage.changed
        if age < limits.guard_seconds:
            kept.append((garbage, "changed within the last hour, a running job may use it (--now takes it too)"))
        elif age < limits.older_than_seconds:
            kept.append((garbage, "not old enough"))
        elif limits.max_bytes is not None and left <= limits.max_bytes:
            kept.append((garbage, "the store is within --max-bytes without it"))
        else:
            going.append(garbage)
            left -= garbage.num_bytes
    going.sort(key=lambda garbage: -garbage.num_bytes)
    copies = _only_copies(store, roots, {garbage.path for garbage in found}, guard_seconds=limits.guard_seconds)
    return Sweep(tuple(going), tuple(kept), store_bytes, roots.projects, copies)


def _only_copies(store: Store, roots: Roots, there: set[Path], *, guard_seconds: float) -> tuple[Garbage, ...]:
    """What this machine's copy of a bucket has and the roots do not reach, besides what is in the bucket too."""
    if store.url is None:
        return ()
    found = find_garbage(store, roots, Listing(Backend(), store.root))
    now = time.time()
    return tuple(garbage for garbage in found if garbage.path not in there and now - garbage.changed >= guard_seconds)


def find_roots(planners: Sequence[Planner], *, only_these: bool) -> Roots:
    """What the pipeline files reach as they are set now and, unless ``only_these``, what others left last."""
    roots = Roots()
    wanted: dict[str, set[str]] = defaultdict(set)
    remembered: list[Path] = []  # records whose keys are roots, with all their items
    for planner in planners:
        synthetic = planner.dataset.synthetic
        roots.keys |= {synthetic.key} if synthetic is not None else set()
        for plan in planner.plans():
            hub = hub_file(plan.node, planner.file)
            roots.weights.update(() if hub is None else (hub,))
            roots.keys.update({plan.key, plan.spec_key} - {""})
            if not plan.key:
                remembered.append(planner.project / f"{plan.node.name}.json")
            elif plan.node.config.kind == "items" and not planner.dataset.num_to_make:
                wanted[plan.spec_key].update(item.digest for item in plan.wanted)
    if not only_these:
        own = {planner.project.name for planner in planners}
        projects = planners[0].file.store.root / "projects"
        planners[0].file.store.backend.pull(projects)
        others = [path for path in sorted(projects.iterdir()) if path.name not in own] if projects.is_dir() else []
        remembered += [path for folder in others for path in sorted(folder.glob("*.json"))]
        roots.projects = tuple(folder.name for folder in others)
    if not roots.projects and not any(planner.dataset.num_to_make for planner in planners):
        digests = (planner.dataset.digests.values() for planner in planners)
        roots.videos = {digest for each in digests for digest in each if digest is not None}
    for record in map(load_record, remembered):
        if record is not None:
            roots.keys |= {record.key, record.spec_key}
            wanted.pop(record.spec_key, None)
            roots.weight_digests.update({record.material.get("inputs", {}).get("weights")} - {None})
    roots.in_use = frozenset(keys_in_use(planners[0].file.store))
    roots.keys |= roots.in_use
    roots.weights.update(planners[0].file.store.root / "weights" / name for name in roots.in_use)
    roots.items = {key: digests for key, digests in wanted.items() if key not in roots.in_use}
    return roots


def keys_in_use(store: Store) -> set[str]:
    """Keys, and names of files of weights, that running processes have told they use; `gc` itself uses none."""
    used = {key for use in uses(store.locks) if not use.is_dead for key in use.owner.keys}
    return used | {held.key for held in holdings(store.locks)} - {COLLECTING}
