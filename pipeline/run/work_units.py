"""Units of work: everything a stage needs to do a node, or some of its videos, as plain data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reelwright.pipeline.plan.graph import Node
from reelwright.pipeline.plan.keys import named_videos, samples
from reelwright.pipeline.plan.why import explain_video, read_videos
from reelwright.stages.base.work import RUN_WEIGHTS, InputRef, VideoItem, Work

if TYPE_CHECKING:
    from reelwright.pipeline.plan.graph import NodePlan
    from reelwright.pipeline.plan.plan import Planner

LEFT_OUT_LISTED = 200  # videos that a table does not have, of which it is told why


def build_work(planner: Planner, plan: NodePlan, items: tuple[VideoItem, ...] | None = None) -> Work:
    """The unit of work of a node that is ready; of ``items``, or of all that are to be done."""
    assert plan.material is not None
    dataset = planner.dataset_of(plan.node)
    return Work(
        node=plan.node.name,
        stage=plan.node.stage,
        key=plan.spec_key,
        config=_config(planner, plan.node),
        spec=dict(plan.material),
        store=planner.file.store.place,
        inputs=_input_refs(planner, plan.node),
        items=plan.todo if items is None else items,
        payload={
            "classes": list(dataset.labels.classes),
            "background": dataset.background,
            "heads": [list(head) for head in dataset.labels.heads],
            **_videos(planner, plan),
            **_left_out(planner, plan),
        },
        plugins=planner.plugins.behind(plan.node),
    )


def _videos(planner: Planner, plan: NodePlan) -> dict[str, Any]:
    """Names, splits and annotations, for stages that need them."""
    dataset = planner.dataset_of(plan.node)
    if plan.node.config.kind == "run":
        fields = ("video_id", "digest", "split", "annotation")
        entries = samples(dataset, plan.node, plan.wanted)
        videos = [dict(zip(fields, entry, strict=True)) for entry in entries]
        return {"videos": sorted(videos, key=lambda video: (video["digest"], video["split"]))}
    if plan.node.config.kind == "items" and not plan.node.config.publishes:
        return {}
    paths, probes = {video.video_id: video.path for video in dataset.videos}, dataset.probes
    return {
        "videos": [
            {
                "video_id": video_id,
                "digest": digest,
                "split": split,
                "annotation": annotation,
                "path": paths[video_id],
                "duration_seconds": None if probes[digest].is_of_images else dataset.items[digest].duration_seconds,
            }
            for video_id, digest, split, annotation in named_videos(dataset, plan.node, plan.wanted)
        ]
    }


def _left_out(planner: Planner, plan: NodePlan) -> dict[str, Any]:
    """Videos in the splits of a table that it does not have, and why."""
    if plan.node.config.kind != "table":
        return {}
    dataset, splits = planner.dataset, plan.node.config.wanted_splits()
    there = read_videos(planner, plan)
    names = [
        (video.video_id, video.split)
        for video in dataset.videos
        if (splits is None or video.split in splits) and dataset.digests[video.video_id] not in there
    ]
    listed = [
        {"video_id": name, "split": split, "why": "; ".join(explain_video(planner, plan.node.name, name).reasons)}
        for name, split in names[:LEFT_OUT_LISTED]
    ]
    return {"left_out": listed, "num_left_out": len(names)}


def _input_refs(planner: Planner, node: Node) -> dict[str, tuple[InputRef, ...]]:
    return {name: tuple(_input_ref(planner, parent) for parent in names) for name, names in node.inputs.items()}


def _input_ref(planner: Planner, name: str) -> InputRef:
    plan = planner.plan(name)
    known = {} if plan.material is None else plan.material["inputs"]
    files = {name: known[name] for name in (*plan.node.config.sources(), "weights") if name in known}
    is_run = plan.node.config.kind == "run"
    return InputRef(
        node=name,
        stage=plan.node.stage,
        key=plan.key if plan.node.config.publishes else plan.spec_key,
        config=_config(planner, plan.node),
        inputs=_input_refs(planner, plan.node),
        files=files | ({RUN_WEIGHTS: plan.record.outputs["weights"]} if plan.record and is_run else {}),
    )


def _config(planner: Planner, node: Node) -> dict[str, Any]:
    """Plain settings; files as absolute paths."""
    config = node.config.plain()
    config.update({name: str(planner.file.resolve(path)) for name, path in node.config.sources().items()})
    return config
