"""What is asked of a run, what becomes of its nodes, which videos failed, and who watches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from reelwright.pipeline.plan.dataset import Dataset
from reelwright.pipeline.plan.graph import NodePlan
from reelwright.pipeline.plan.synthetic import NODE as VIDEOS
from reelwright.stages.base.work import Reporter
from reelwright.stages.synthesize.source import DEGENERATE
from reelwright.storage.ledger.items import ItemRow

if TYPE_CHECKING:
    from reelwright.pipeline.plan.plan import Planner

RAN, FAILED, SKIPPED = "ran", "failed", "not run"


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One video that a node could not do."""

    node: str
    video_ids: tuple[str, ...]
    row: ItemRow
    is_quarantined: bool = False  # it failed so often that it is left alone


@dataclass(frozen=True, kw_only=True)
class NodeResult:
    """What became of one node in a run."""

    node: str
    stage: str
    state: str  # RAN, FRESH, FAILED or SKIPPED
    reasons: tuple[str, ...] = ()
    num_items: int = 0  # in all
    num_done: int = 0  # items done in this run
    rows: int = 0  # of this run
    bytes: int = 0  # of this run
    seconds: float = 0.0
    outputs: dict[str, Any] = field(default_factory=dict)
    message: str = ""  # why it failed or was not run


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Which part of a pipeline runs, and how."""

    only: str | tuple[str, ...] = ()  # just these nodes
    until: str | tuple[str, ...] = ()  # these and what they depend on
    force: str | tuple[str, ...] = ()  # as if never done
    keep_going: bool = False  # after a node failed, go on with those that do not depend on it
    limit: int | None = None  # at most so many videos a node; what depends on an incomplete node is not run
    jobs: int | None = None  # decoding processes
    frozen: bool = False  # refuse to differ from the lock file, and leave it as it is
    retries: int = 0  # within this run, times that a video is tried again after it failed
    retry_failed: bool = True  # try again what failed in earlier runs; false leaves those videos as they are
    retry_quarantined: bool = False  # also what failed so often that it is left alone otherwise
    cluster: Mapping[str, Any] = field(default_factory=dict)  # over the file's `cluster:` block, as executor, scheduler
    ask: Callable[[str], bool] | None = (
        None  # a question for a person, as whether to cancel a job; None: nobody is there
    )


class Observer(Protocol):
    """Who watches a run."""

    def warned(self, texts: Sequence[str]) -> None:
        """What is most likely wrong with videos and labels, before anything runs."""

    def planned(self, plans: Sequence[NodePlan]) -> None:
        """The plan, before anything runs."""

    def started(self, plan: NodePlan) -> Reporter:
        """A node starts; what it says goes to the reporter that is returned."""

    def finished(self, result: NodeResult) -> None:
        """A node is done, was up to date, failed, or was not run."""

    def making(self, num_videos: int) -> Reporter:
        """Synthetic videos are made."""

    def indexing(self, num_videos: int) -> Reporter:
        """Videos are read for the first time, or again after a change."""


def all_failures(planner: Planner) -> list[Failure]:
    """Every video that failed in any node, or could not even be probed, as the store knows it."""
    plans = [plan for plan in planner.plans() if plan.spec_key]
    return [*unusable_videos(planner), *(failure for plan in plans for failure in item_failures(planner, plan))]


def unusable_videos(planner: Planner) -> list[Failure]:
    """Videos that could not even be made or probed."""
    found = [
        Failure(node=VIDEOS, video_ids=(row.name,), row=row, is_quarantined=row.cause == DEGENERATE)
        for row in planner.dataset.not_made
    ]
    for video in planner.dataset.unusable:
        row = probe_row(planner.dataset, video.video_id)
        assert row is not None
        is_left = planner.dataset.is_quarantined(row.attempts)
        found.append(Failure(node=VIDEOS, video_ids=(video.video_id,), row=row, is_quarantined=is_left))
    return found


def probe_row(dataset: Dataset, video_id: str) -> ItemRow | None:
    """What became of a video that was read and cannot be used; None for others."""
    digest = dataset.digests[video_id]
    probe = None if digest is None or digest in dataset.items else dataset.probes.get(digest)
    if probe is None:
        return None
    return ItemRow(
        digest=probe.digest,
        status=probe.status,
        cause=probe.cause,
        message=probe.message,
        attempts=probe.attempts,
    )


def item_failures(planner: Planner, plan: NodePlan) -> list[Failure]:
    """Videos of a node without rows, and those of which only a part could be done."""
    if not plan.has_ledger or plan.is_whole:
        return []
    rows = planner.rows(plan)
    bad = [
        rows[item.digest]
        for item in plan.wanted
        if item.digest in rows and rows[item.digest].status not in {"ok", "skipped"}
    ]
    left = {row.digest for row in plan.quarantined}
    return [
        Failure(
            node=plan.node.name,
            video_ids=tuple(planner.dataset.names_of(row.digest)),
            row=row,
            is_quarantined=row.digest in left,
        )
        for row in bad
    ]
