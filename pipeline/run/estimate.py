"""How long a run will take and how much it will store, from what earlier runs of the same kind did in this store.

The largest earlier run is taken, since the time to start up is the smallest part there: one with the same settings,
else one whose settings cost the same. Where there is none, nothing is said. Another machine may be quicker or slower.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reelwright.pipeline.plan.graph import FRESH, WAITING, Node, NodePlan
from reelwright.pipeline.plan.plan import Planner
from reelwright.pipeline.plan.synthetic import NODE as VIDEOS
from reelwright.stages.synthesize.source import STAGE as SYNTHESIZE
from reelwright.storage.ledger.records import Record, read_records

MAKING = "making"
_ROWS = ("frames", "embeddings")  # inputs that rows are made of
_FREE = ("seed", "num_classes")  # settings of synthetic videos on which their cost does not depend


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a node will cost."""

    node: str
    stage: str
    kind: str  # items, run or table, as of the stage; MAKING of synthetic videos
    num_todo: int  # videos to do; of runs and tables, videos they read
    num_videos: int  # in all
    num_unread: int  # of num_todo: their content is not known yet
    seconds: float | None = None  # None: nothing like it was run in this store
    bytes: float | None = None  # None: not known, or next to nothing


@dataclass(frozen=True, kw_only=True)
class _Amount:
    """How much of a node is to be done."""

    videos: int
    video_seconds: float


def estimates(planner: Planner) -> dict[str, Estimate]:
    """By name, the nodes that will run, as far as that is known now.

    A video whose content is not known is taken for a new one of average length.
    """
    known = read_records(planner.file.store)
    by_spec = {record.spec_key: record for record in known}
    records = [record for record in known if record.work.get("videos")]
    found: dict[str, Estimate] = {}
    making = _making(planner, records)
    if making is not None:
        found[making.node] = making
    anew: set[str] = set()  # nodes whose result will be another, so that what reads them is done whole
    for plan in planner.plans():
        if not plan.node.config.stores:
            continue
        amount = _amount(plan, planner, found=found, anew=anew)
        if amount is None:
            continue
        unread = _num_unread(plan.node, planner)
        base = _base(plan, records)
        factors = None if base is None else _factors(plan, base, planner, by_spec)
        seconds = size = None
        if base is not None and factors is not None:
            share = _share(amount, base.work)
            whole_seconds = base.work["seconds"] / base.work.get("share", 1.0)
            seconds = whole_seconds * share * factors[0] if share is not None else None
            size = base.work.get("bytes", 0) * share * factors[1] if share is not None else None
        found[plan.node.name] = Estimate(
            node=plan.node.name,
            stage=plan.node.stage,
            kind=plan.node.config.kind,
            num_todo=amount.videos,
            num_videos=len(plan.wanted) + unread,
            num_unread=unread,
            seconds=seconds,
            bytes=size or None,
        )
    return found


def _making(planner: Planner, records: Sequence[Record]) -> Estimate | None:
    """What synthetic videos cost that are still to be made, by the rate of the largest earlier making of their kind."""
    wanted = planner.dataset.synthetic
    if wanted is None or not planner.dataset.num_to_make:
        return None
    spec = {name: value for name, value in wanted.material["spec"].items() if name not in _FREE}
    alike = [
        record
        for record in records
        if record.stage == SYNTHESIZE
        and {name: value for name, value in record.material["spec"].items() if name not in _FREE} == spec
    ]
    exact = [record for record in alike if record.key == wanted.key]
    base = max(exact or alike, key=lambda record: record.work["videos"], default=None)
    num_todo = planner.dataset.num_to_make
    size = base.bytes / base.items["done"] * num_todo if base is not None and base.items.get("done") else None
    return Estimate(
        node=VIDEOS,
        stage=SYNTHESIZE,
        kind=MAKING,
        num_todo=num_todo,
        num_videos=wanted.config.samples,
        num_unread=0,
        seconds=None if base is None else base.work["seconds"] / base.work["videos"] * num_todo,
        bytes=size,
    )


def _amount(plan: NodePlan, planner: Planner, *, found: Mapping[str, Estimate], anew: set[str]) -> _Amount | None:
    """What is to be done of a node; None when nothing is. Adds to ``anew``."""
    node, unread = plan.node, _num_unread(plan.node, planner)
    whole = plan.state == WAITING or bool(anew.intersection(node.parents))
    if node.config.kind == "items":
        items = plan.wanted if whole else plan.todo
        runs = bool(items or unread) or plan.state != FRESH
    else:
        items = plan.wanted
        reads_changed = node.config.kind == "table" and any(parent in found for parent in node.parents)
        runs = whole or plan.state != FRESH or bool(unread) or reads_changed
    if not runs:
        return None
    if whole or node.config.kind == "run":
        anew.add(node.name)
    known = [item.duration_seconds or 0.0 for item in planner.dataset.items.values()]
    mean = sum(known) / len(known) if known else 0.0
    seconds = sum(item.duration_seconds or mean for item in items) + mean * unread
    return _Amount(videos=len(items) + unread, video_seconds=seconds)


def _num_unread(node: Node, planner: Planner) -> int:
    """Videos whose content is not known; those that are still to be made are taken to be of the node's splits."""
    splits = node.config.wanted_splits()
    new = sum(splits is None or video.split in splits for video in planner.dataset.new)
    return new + planner.dataset.num_to_make


def _base(plan: NodePlan, records: Sequence[Record]) -> Record | None:
    """The earlier run to reckon from."""
    same = [record for record in records if record.stage == plan.node.stage and _reads_same(record, plan.node)]
    exact = [record for record in same if record.spec_key == plan.spec_key]
    costs, spec = plan.node.config.costs, plan.node.config.spec()
    alike = [
        record
        for record in same
        if costs is not None and all(record.material["spec"].get(name) == spec.get(name) for name in costs)
    ]
    return max(exact or alike, key=lambda record: record.work["video_seconds"], default=None)


def _reads_same(record: Record, node: Node) -> bool:
    """Whether it read the same kinds of things: scores out of frames cost other than scores out of embeddings."""
    inputs = record.material["inputs"]
    return {name for name in inputs if name in node.inputs} == {name for name, names in node.inputs.items() if names}


def _factors(
    plan: NodePlan, base: Record, planner: Planner, by_spec: Mapping[str, Record]
) -> tuple[float, float] | None:
    """(of time, of size) for a second of video against ``base``; None when they cannot be compared."""
    config = plan.node.config
    if config.time_grows_with:
        return config.spec()[config.time_grows_with] / base.material["spec"][config.time_grows_with], 1.0
    if not config.rate_counts or base.spec_key == plan.spec_key:
        return 1.0, 1.0
    now, then = _rate(plan.node, planner), _rate_then(base, by_spec)
    if not now or not then:
        return None
    return (now / then if config.rate_counts == "time and size" else 1.0), now / then


def _rate(node: Node, planner: Planner) -> Any:
    """Frames a second of the node of frames that a node is, or rests on."""
    while node.config.produces != "frames" and node.parents:
        node = planner.graph.nodes[next(names[0] for names in (node.inputs.get(field, ()) for field in _ROWS) if names)]
    return node.config.spec().get("fps")


def _rate_then(record: Record | None, by_spec: Mapping[str, Record]) -> Any:
    """The same of an earlier run; None where its frames are not known any more."""
    while record is not None and (read := [record.material["inputs"].get(field) for field in _ROWS]) != [None, None]:
        record = by_spec.get(next(values[0] for values in read if values))
    return None if record is None else record.material["spec"].get("fps")


def _share(amount: _Amount, work: Mapping[str, Any]) -> float | None:
    """The amount as a multiple of the work that was done; None when lengths are not known."""
    if work["video_seconds"] > 0 and amount.video_seconds > 0:
        return float(amount.video_seconds / work["video_seconds"])
    return None
