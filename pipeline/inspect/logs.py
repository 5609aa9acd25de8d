"""What is known of one video everywhere: its row in every node, and what was said in which log; the logs of a node."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from reelwright.pipeline.plan.plan import Planner
from reelwright.pipeline.plan.synthetic import NODE as VIDEOS
from reelwright.pipeline.run.results import probe_row
from reelwright.storage.ledger.items import ItemRow
from reelwright.storage.store import Store


@dataclass(frozen=True, kw_only=True)
class Said:
    """One node's account of a video."""

    node: str
    row: ItemRow | None  # None: not tried yet
    files: tuple[Path, ...]  # logs of workers that had it, oldest first


def account(planner: Planner, video_id: str) -> list[Said]:
    """What every node with items knows of a video. Raises ConfigError for one that is not in the manifest."""
    digests = planner.dataset.digests
    store, synthetic = planner.file.store, planner.dataset.synthetic
    not_made = next((row for row in planner.dataset.not_made if row.name == video_id), None)
    if not_made is not None and synthetic is not None:
        return [Said(node=VIDEOS, row=not_made, files=logs_of(store, synthetic.key, not_made.digest))]
    planner.dataset.check_video(video_id)
    digest, unusable = digests[video_id], probe_row(planner.dataset, video_id)
    found = [] if unusable is None else [Said(node=VIDEOS, row=unusable, files=())]
    for plan in planner.plans():
        if digest is None or plan.node.config.kind != "items" or not plan.spec_key:
            continue
        row = planner.rows(plan).get(digest)
        files = logs_of(store, plan.spec_key, digest)
        if row is not None or files:
            found.append(Said(node=plan.node.name, row=row, files=files))
    return found


def logs_of_node(planner: Planner, name: str) -> tuple[Path, ...]:
    """Logs of all units of a node that did not go well, and of the SLURM job that trains it."""
    plan, store = planner.plan(name), planner.file.store
    if not plan.spec_key:
        return ()
    job = store.job(plan.key)
    store.backend.pull(job)
    return (*_logs(store, plan.spec_key), *(path for path in [job / "job.log"] if path.is_file()))


def logs_of(store: Store, spec_key: str, digest: str) -> tuple[Path, ...]:
    """Logs of units that had a video; a unit whose videos all went well leaves none."""
    head = f"# video {digest} "
    return tuple(path for path in _logs(store, spec_key) if head in path.read_text(encoding="utf-8", errors="replace"))


def _logs(store: Store, spec_key: str) -> list[Path]:
    """Oldest first."""
    folder = store.logs(spec_key)
    store.backend.pull(folder)
    return sorted(folder.glob("*.log"), key=lambda path: path.stat().st_mtime)
