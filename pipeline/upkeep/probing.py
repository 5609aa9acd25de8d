"""How long decoding and embedding will take, from one video that is done for it in a store that is thrown away."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from reelwright.pipeline.config.pipeline_file import PipelineFile
from reelwright.pipeline.plan.dataset import Dataset
from reelwright.pipeline.plan.graph import Graph
from reelwright.pipeline.project import Project, SilentObserver
from reelwright.pipeline.run.results import FAILED
from reelwright.pipeline.run.runner import open_planner
from reelwright.pipeline.upkeep.doctor import NOTE, Check
from reelwright.pipeline.upkeep.file_checks import total_seconds
from reelwright.stages.base.registry import load
from reelwright.stages.index.config import VideosConfig
from reelwright.storage.ledger.items import DONE, WORK_STEPS, ItemRow
from reelwright.storage.store import Store, is_url
from reelwright.storage.tables.manifest import ManifestVideo

_LOOKED_AT = 200  # videos, of which the smallest is done
_OPENED = 8  # of the smallest ones, until one can be read: those that are damaged are small, too


def probed(file: PipelineFile) -> Iterator[Check]:
    """What each node that makes rows of videos will take for all of them, by what one video takes now.

    Nothing that is stored is looked at, nor counted as done. What needs a trained run, or weights that are still at a
    hub, is left out. All is done on this machine, whatever the file's `cluster:` says.
    """
    planner = open_planner(file)
    wanted, missing = _from_videos(planner.graph, file.store)
    if missing:
        yield Check(
            "estimate", NOTE, f"of {', '.join(missing)} there is none before its weights are here", "Run `fetch`"
        )
    video, video_seconds = _smallest(planner.dataset, file.videos), total_seconds(planner.dataset)
    if wanted and (video is None or not video_seconds):
        yield Check("estimate", NOTE, "there is none: it is of one video file on this machine, and none could be read")
    if not wanted or video is None or not video_seconds:
        return
    with tempfile.TemporaryDirectory(prefix="reelwright-probe-") as folder:
        small = _of_one_video(file, video, wanted, Path(folder))
        result = Project(small).run(observer=SilentObserver())
        if result.failures or any(node.state == FAILED for node in result.nodes):
            reasons = [failure.row.message for failure in result.failures] + [node.message for node in result.nodes]
            yield Check(
                "estimate", NOTE, f"{video.video_id} could not be done for it: {next(filter(None, reasons), '')}"
            )
            return
        done = open_planner(small)
        (item,) = done.dataset.items.values()
        for name in wanted:
            rows = done.rows(done.plan(name)) if small.nodes[name].stores else {}
            if rows and item.duration_seconds:
                seconds = _spent(rows[item.digest]) * video_seconds / item.duration_seconds
                yield Check(
                    name, NOTE, f"about {_about(seconds)} of work for all videos (estimate: {video.video_id} alone)"
                )


def _from_videos(graph: Graph, store: Store) -> tuple[list[str], list[str]]:
    """Nodes with rows of single videos that need no run; and those of them whose weights are not here yet."""
    found: list[str] = []
    missing: list[str] = []
    for node in graph.nodes.values():
        reads = set(node.parents)
        if node.config.kind != "items" or not reads <= set(found) or not (reads or node.config.produces == "frames"):
            continue
        hub = node.config.hub_weights()
        here = hub is None or store.backend.ensure_local(store.weights(hub))
        (found if here else missing).append(node.name)
    return found, missing


def _smallest(dataset: Dataset, settings: VideosConfig) -> ManifestVideo | None:
    """The smallest video that can be read."""
    here = [video for video in dataset.videos if not is_url(video.path) and Path(video.path).is_file()]
    small = sorted(here[:_LOOKED_AT], key=lambda video: Path(video.path).stat().st_size)[:_OPENED]
    probe_videos = load("reelwright.stages.index.probe:probe_videos")
    probes = probe_videos([video.path for video in small], quick=True, timeout_seconds=settings.timeout_seconds)
    usable = {str(path) for path, probe in probes if probe.status in DONE}
    return next((video for video in small if video.path in usable), None)


def _of_one_video(file: PipelineFile, video: ManifestVideo, nodes: Sequence[str], folder: Path) -> PipelineFile:
    """The nodes alone, over one video and a store of their own."""
    table = folder / "videos.csv"
    with table.open("w", newline="", encoding="utf-8") as opened:
        csv.writer(opened).writerows([("video_id", "path", "split"), (video.video_id, video.path, video.split)])
    store = Store.at(folder / "store")
    for hub in {hub for name in nodes if (hub := file.nodes[name].hub_weights()) is not None}:
        store.weights(hub).parent.mkdir(parents=True, exist_ok=True)
        store.weights(hub).symlink_to(file.store.weights(hub).resolve())
    kept = file.videos.model_dump(include={"splits", "timeout_seconds"})
    videos = VideosConfig(manifest=str(table), **kept)
    own = {name: file.nodes[name] for name in nodes}
    return replace(file, videos=videos, labels=None, nodes=own, store=store, cluster={})


def _spent(row: ItemRow) -> float:
    """Seconds of work on a video: of embed, all its steps one after the other."""
    return float(max(row.seconds, sum(getattr(row, f"{step}_seconds") for step in WORK_STEPS)))


def _about(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
