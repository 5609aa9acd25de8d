"""Is a pipeline file likely to give what is hoped for? Looked at before it runs: windows, updates, sizes, labels.

Lengths are those of the videos that were read; where none was, some are opened for it. How long decoding and embedding
will take is told by one video that is done for it in a store that is thrown away.
"""

from __future__ import annotations

import csv
import statistics
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from reelwright.pipeline.config.pipeline_file import PipelineFile
from reelwright.pipeline.plan.dataset import Dataset
from reelwright.pipeline.plan.graph import Graph, Node
from reelwright.pipeline.plan.plan import Planner
from reelwright.pipeline.project import Project, SilentObserver
from reelwright.pipeline.run.checks import check_before_run, most_rows
from reelwright.pipeline.run.results import FAILED, RunOptions
from reelwright.pipeline.run.runner import open_planner
from reelwright.pipeline.upkeep.doctor import BAD, GOOD, NOTE, Check
from reelwright.stages.base.registry import load, stage_of
from reelwright.stages.index.config import VideosConfig
from reelwright.storage.errors import ConfigError, InputError
from reelwright.storage.ledger.digest_cache import VideoProbe
from reelwright.storage.ledger.items import DONE, WORK_STEPS, ItemRow
from reelwright.storage.store import Store, is_url
from reelwright.storage.tables.annotations import UNKNOWN, Annotation
from reelwright.storage.tables.manifest import ManifestVideo

_OPENED = 24  # videos, where none was read yet
_SHORT_SHARE = 0.5  # of videos shorter than a window
_FEW_UPDATES = 200
_TIMES, _MANY_BYTES = 4, 100_000_000  # stored frames against the videos, and in all
_LISTED = 6
_LOOKED_AT = 200  # videos, of which the smallest is done for an estimate
_TRIED = 8  # of the smallest ones, until one can be read: those that are damaged are small, too


@dataclass(frozen=True)
class _Measured:
    """A video whose length is known."""

    split: str
    annotation: Annotation
    probe: VideoProbe
    num_bytes: int


def examine_file(file: PipelineFile) -> Iterator[Check]:
    """All checks of a pipeline file; what a run would refuse is BAD, what is likely a mistake a NOTE."""
    try:
        planner = open_planner(file)
        warnings = (*planner.warnings, *check_before_run(planner, RunOptions()))
    except (ConfigError, InputError) as error:
        yield Check("file", BAD, str(error), "A run would stop here")
        return
    yield from (Check("file", NOTE, text) for text in warnings)
    dataset = planner.dataset
    yield from _classes(dataset, learnt=_learnt(planner.graph) or file.videos.splits[:1])
    measured, share = _measure(dataset)
    if not measured:
        yield Check("lengths", NOTE, "of no video is the length known, so windows and updates were not looked at")
        return
    found = [check for node in planner.graph.nodes.values() for check in _node(node, planner, measured, share)]
    yield from found
    if not any(check.state == NOTE for check in found):
        seconds = statistics.median(video.probe.duration_seconds for video in measured)
        yield Check("file", GOOD, f"fits its videos (half of {len(measured):,} are longer than {seconds:.1f} s)")


def _measure(dataset: Dataset) -> tuple[list[_Measured], float]:
    """Videos whose length is known, or some that are opened now; and how many videos each of them stands for."""
    probes = {video.path: dataset.probes.get(dataset.digests[video.video_id] or "") for video in dataset.videos}
    if not any(probes.values()):
        here = [video.path for video in dataset.videos if not is_url(video.path)]
        count = min(_OPENED, len(here))
        chosen = [here[place * len(here) // count] for place in range(count)]
        probes = {
            str(path): probe for path, probe in load("reelwright.stages.index.probe:probe_videos")(chosen, quick=True)
        }
    found = []
    for video in dataset.videos:
        probe = probes.get(video.path)
        if probe is not None and probe.status in DONE and probe.duration_seconds > 0:
            size = Path(video.path).stat().st_size if Path(video.path).is_file() else 0
            found.append(_Measured(video.split, dataset.labels.of(video.video_id), probe, size))
    return found, len(dataset.videos) / max(1, len(found))


def _node(node: Node, planner: Planner, measured: Sequence[_Measured], share: float) -> Iterator[Check]:
    config = node.config
    wanted = config.wanted_splits()
    videos = [video for video in measured if wanted is None or video.split in wanted]
    rows = [(video, most_rows(node, planner.graph, video.probe)) for video in videos]
    known = sorted(count for _, count in rows if count is not None)
    window = config.window_rows()
    if window is not None and known:
        span, short = window
        num_short = sum(count + 1 < span for count in known)  # a row more or less: times are rounded
        if num_short > _SHORT_SHARE * len(known):
            yield Check(
                node.name,
                NOTE,
                f"its window of {span:,} rows is longer than {num_short / len(known):.0%} of the videos, half of which "
                f"have {statistics.median(known):.0f} rows or fewer; these are {_SHORT[short]}",
                f"Set window.length to about {max(2, int(known[len(known) // 5]))}, or take more frames a second",
            )
    learnt = [(video, count) for video, count in rows if count is not None]
    if config.learns_labels:
        learnt = [(video, count) for video, count in learnt if video.annotation.is_known]
    updates = config.num_updates([(video.split, count) for video, count in learnt], times=share) if learnt else None
    if updates is not None and updates < _FEW_UPDATES:
        yield Check(
            node.name,
            NOTE,
            f"learns in about {updates:,} updates in all",
            f"Few networks learn in fewer than {_FEW_UPDATES:,}: more epochs, a smaller batch_size, or a smaller hop",
        )
    yield from _frames(node, planner, videos, share)


_SHORT = {"pad": "filled up", "repeat": "filled up with their last row", "leave_out": "left out"}


def _frames(node: Node, planner: Planner, videos: Sequence[_Measured], share: float) -> Iterator[Check]:
    """Stored frames that take many times the room of the videos."""
    sizes = []
    for video in videos if node.config.stores else ():
        probe = video.probe
        count = node.config.rows_of_video(
            num_frames=probe.num_frames, duration_seconds=probe.duration_seconds, start_seconds=probe.start_seconds
        )
        one = node.config.bytes_of_row(probe.height, probe.width)
        if count is not None and one is not None:
            sizes.append(count * one)
    total, given = share * sum(sizes), share * sum(video.num_bytes for video in videos)
    if total > max(_MANY_BYTES, _TIMES * given):
        readers = [other for other in planner.graph.nodes.values() if node.name in other.parents]
        streams = bool(readers) and all(stage_of(other.stage).streams for other in readers)
        yield Check(
            node.name,
            NOTE,
            f"its frames take up to {total / 1e6:,.0f} MB, uncompressed, for {given / 1e6:,.0f} MB of videos",
            "materialize: false stores none: what reads them takes them as they come"
            if streams
            else "A smaller short_side, fewer frames a second, or codec: jpeg",
        )


def _learnt(graph: Graph) -> tuple[str, ...]:
    """The splits whose labels any node learns from; of folds all."""
    runs = (node.config for node in graph.nodes.values() if node.config.kind == "run" and node.config.learns_labels)
    return tuple(dict.fromkeys(split for config in runs for split in getattr(config, "train_splits", ())))


def _classes(dataset: Dataset, *, learnt: Sequence[str]) -> Iterator[Check]:
    """Classes with one video in a split, and those that are scored but in none of the splits that are ``learnt``."""
    names = dataset.labels.classes
    counts: dict[str, Counter[int]] = {}
    for video in dataset.videos:
        counts.setdefault(video.split, Counter()).update(_ids(dataset.labels.of(video.video_id)))
    once = [f"{names[c]} ({split})" for split, found in counts.items() for c, n in sorted(found.items()) if n == 1]
    if once:
        yield Check(
            "labels",
            NOTE,
            f"classes with one video in a split: {_listed(once)}",
            "A score of one video is 0 or 1: add videos, or join classes",
        )
    for split, found in counts.items():
        unexpected = [names[c] for c in sorted(found) if not any(c in counts.get(name, ()) for name in learnt)]
        if unexpected and not counts.keys().isdisjoint(learnt):
            message = f"classes of split {split} that no video of {' or '.join(learnt)} has: {_listed(unexpected)}"
            yield Check(
                "labels", NOTE, message, "They cannot be learned: move videos to another split, or leave them out"
            )


def _ids(annotation: Annotation) -> set[int]:
    timed = (annotation.segments, annotation.times, annotation.frames)
    return ({annotation.label} | {entry[-1] for entries in timed for entry in entries}) - {UNKNOWN}


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"{', '.join(names[:_LISTED])}{more}"


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
    video, video_seconds = _smallest(planner.dataset, file.videos), _total_seconds(planner.dataset)
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


def _total_seconds(dataset: Dataset) -> float:
    """How long all videos are together, about; 0 where no length is known."""
    measured, share = _measure(dataset)
    return share * sum(video.probe.duration_seconds for video in measured)


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
    small = sorted(here[:_LOOKED_AT], key=lambda video: Path(video.path).stat().st_size)[:_TRIED]
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
