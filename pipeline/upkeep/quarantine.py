"""Quarantine: videos that failed so often that `run` leaves them alone, and how they are let go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from reelwright.pipeline.plan.graph import NodePlan
from reelwright.pipeline.plan.plan import Planner
from reelwright.storage.ledger.digest_cache import KnownProbes
from reelwright.storage.ledger.items import ItemLedger
from reelwright.storage.locks.locks import exclusive
from reelwright.storage.store_errors import usable

Released = tuple[str, str]  # node (or `videos`) and video_id


def release(planner: Planner, video_ids: Sequence[str] = ()) -> list[Released]:
    """Let quarantined videos go, these or all: their attempts count from 0 again. Returns what was let go.

    Raises ConfigError for a video that is not in the manifest, and UnusableStoreError.
    """
    dataset, store = planner.dataset, planner.file.store
    for name in video_ids:
        dataset.check_video(name)
    wanted = {dataset.digests[name] for name in video_ids or dataset.digests}
    released: list[Released] = []
    with usable(store.root):
        probes = [digest for video in dataset.quarantined if (digest := dataset.digests[video.video_id]) in wanted]
        KnownProbes(store.videos).add({name: dataset.probes[name]._replace(attempts=0) for name in probes if name})
        released += [("videos", name) for digest in dict.fromkeys(probes) for name in dataset.names_of(digest or "")]
        for plan in planner.plans():
            digests = [row.digest for row in plan.quarantined if row.digest in wanted]
            if digests:
                _forget_attempts(plan, digests, planner)
            released += [(plan.node.name, name) for digest in digests for name in dataset.names_of(digest)]
    planner.forget()
    return released


def _forget_attempts(plan: NodePlan, digests: Sequence[str], planner: Planner) -> None:
    """While no run works on the node."""
    store = planner.file.store
    with exclusive(store.lock(plan.spec_key), report=lambda _: None, what=f"release of {plan.node.name}"):
        ledger = ItemLedger(store.node(plan.spec_key))
        rows = ledger.load()
        for digest in digests:
            ledger.commit(replace(rows[digest], attempts=0))
        ledger.compact()
