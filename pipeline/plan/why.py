"""Why one video is or is not up to date in one node."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from reelwright.pipeline.plan.graph import FRESH, STALE, WAITING, NodePlan
from reelwright.pipeline.plan.plan import Planner
from reelwright.pipeline.plan.reasons import UNREAD as WHY_UNREAD
from reelwright.pipeline.plan.reasons import InputVideo, why_unread
from reelwright.storage.ledger.items import ItemRow

UNREAD, UNUSABLE, LEFT_OUT, TO_DO, FAILED = "not read yet", "unusable", "left out", "to do", "failed"


@dataclass(frozen=True, kw_only=True)
class VideoWhy:
    """What is known of one video in one node."""

    state: str  # FRESH, STALE, WAITING or one of the above
    reasons: tuple[str, ...] = ()
    content: str | None = None  # digest; None while it is not known
    row: ItemRow | None = None  # what became of it, in nodes with items


def explain_video(planner: Planner, name: str, video_id: str) -> VideoWhy:
    """State and reasons of a video in the node ``name``. Raises ConfigError when the manifest has no such video."""
    dataset = planner.dataset
    dataset.check_video(video_id)
    content, plan = dataset.digests[video_id], planner.plan(name)
    if content is None or content not in dataset.probes:
        return VideoWhy(state=UNREAD, reasons=(_unread(planner, video_id),))
    if content not in dataset.items:
        probe = dataset.probes[content]
        return VideoWhy(state=UNUSABLE, reasons=(f"{probe.cause}: {probe.message}",), content=content)
    left_out = _left_out(planner, plan, video_id, content)
    if left_out:
        return VideoWhy(state=LEFT_OUT, reasons=(left_out,), content=content)
    if plan.state == WAITING:
        return VideoWhy(state=WAITING, reasons=plan.reasons, content=content)
    if plan.node.config.kind != "items" or not plan.node.config.stores:
        reasons = (*_read_otherwise(planner, plan, content), *plan.reasons)
        return VideoWhy(state=plan.state, reasons=tuple(dict.fromkeys(reasons)), content=content)
    return _of_item(planner, plan, content)


def _of_item(planner: Planner, plan: NodePlan, content: str) -> VideoWhy:
    row = planner.rows(plan).get(content)
    is_left = content in {entry.digest for entry in plan.quarantined}
    if not is_left and content not in {item.digest for item in plan.todo}:
        # The plan is stale where its tables are to be written anew with scores that are there.
        is_whole = plan.state == FRESH or plan.todo or not plan.node.config.publishes
        reasons = () if is_whole else plan.reasons
        return VideoWhy(state=STALE if reasons else FRESH, reasons=reasons, content=content, row=row)
    if row is not None and not row.is_done:
        message = f"{row.status}{', quarantined' if is_left else ''} after {row.attempts} attempt(s): {row.cause}: "
        message += row.message
        again = "`run` tries it again, `run --no-retry` leaves it"
        if is_left:
            again = "`run` leaves it alone until its content changes, or `logs --release` lets it go"
        return VideoWhy(state=FAILED, reasons=(message, again), content=content, row=row)
    return VideoWhy(state=TO_DO, reasons=tuple(_why_to_do(planner, plan, row)), content=content, row=row)


def _why_to_do(planner: Planner, plan: NodePlan, row: ItemRow | None) -> Iterator[str]:
    differences, last = planner.differences(plan), planner.last(plan.node)
    yield from differences
    if plan.node.name in planner.forced:
        yield "forced"
    elif row is not None or (last is not None and last.key == plan.key):
        yield "gone from the store"
    elif last is None:
        yield "never ran"
    elif last.spec_key == plan.spec_key:
        yield "new since the last run: another video, or other content"
    elif not differences:
        yield "not done yet"


def _unread(planner: Planner, video_id: str) -> str:
    path = next(video.path for video in planner.dataset.videos if video.video_id == video_id)
    why = why_unread(planner.known, path, planner.dataset.digests[video_id])
    return f"{WHY_UNREAD[why]}: `run` reads its content first"


def _left_out(planner: Planner, plan: NodePlan, video_id: str, content: str) -> str:
    """Why a node does not read a usable video; empty when it does."""
    split = next(video.split for video in planner.dataset.videos if video.video_id == video_id)
    splits = plan.node.config.wanted_splits()
    if splits is not None and split not in splits:
        return f"its split is {split}; {plan.node.name} reads {', '.join(splits)}"
    if content in read_videos(planner, plan):
        return ""
    for parent in map(planner.plan, plan.node.parents):
        if parent.node.config.kind == "run":  # the videos that it learned from say nothing of those that it is used on
            continue
        row = next((row for row in (*parent.failed, *parent.quarantined) if row.digest == content), None)
        if row is not None:
            return f"{row.status} in {parent.node.name}: {row.cause}: {row.message}"
        if content not in read_videos(planner, parent):
            return _left_out(planner, parent, video_id, content) or f"{parent.node.name} leaves it out"
    return ""


def read_videos(planner: Planner, plan: NodePlan) -> set[str]:
    """Digests of the videos that are in what a node reads; of one that reads tables, those that have lines in all."""
    parents = map(planner.plan, plan.node.parents)
    tables = [parent for parent in parents if parent.is_one_thing and parent.node.config.kind != "run"]
    if not tables:
        return {item.digest for item in plan.wanted}
    return set.intersection(*(read_videos(planner, parent) & parent.available for parent in tables))


def _read_otherwise(planner: Planner, plan: NodePlan, content: str) -> Iterator[str]:
    """What a run reads of this video that it did not when it ran last."""
    before = planner.inputs_before(plan) if plan.node.config.kind == "run" and plan.state == STALE else []
    if not before:
        return
    then = [entry for entry in before if entry.content == content]
    now = [entry for entry in planner.inputs_now(plan) if entry.content == content]
    if not then:
        yield "this video: new content since the last run"
    for name, aspect in (("split", "split"), ("labels", "labels")):
        if then and _values(then, aspect) != _values(now, aspect):
            sides = [", ".join(sorted(_values(side, aspect))) for side in (then, now)]
            yield f"this video: {name}: {sides[0]} -> {sides[1]}" if name == "split" else "this video: labels changed"


def _values(videos: list[InputVideo], aspect: str) -> set[str]:
    return {getattr(entry, aspect) for entry in videos}
