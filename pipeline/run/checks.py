"""What is wrong with the settings of nodes and can be known before any work: `run` and `run -n` alike.

    names, options, packages    before anything else
    splits                      before a video is read
    windows, devices            of nodes that would run, before a frame is decoded; labels of videos too

The pipeline file itself is checked where it is read. What a stage asks for is declared beside its settings
(`StageConfig.check_names`, `packages`, `named_splits`, `named_videos`, `video_label_setting`, `window_rows`,
`most_rows`); nothing here loads torch.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from ctypes import CDLL, byref, c_uint
from importlib.util import find_spec

from reelwright.pipeline.config.pipeline_file import PipelineFile
from reelwright.pipeline.config.profiles import cluster_settings
from reelwright.pipeline.plan.data_warnings import check_shares, no_video_label
from reelwright.pipeline.plan.dataset import Dataset
from reelwright.pipeline.plan.graph import FRESH, Graph, Node
from reelwright.pipeline.plan.keys import listed_videos
from reelwright.pipeline.plan.plan import Planner
from reelwright.pipeline.run.results import RunOptions
from reelwright.stages.base.plugins import check_plugin, find_plugin
from reelwright.storage.errors import ConfigError, nearest
from reelwright.storage.ledger.digest_cache import VideoProbe

_GPU = re.compile(r"cuda(?::(\d+))?")
_OTHER_DEVICES = re.compile(r"(auto|cpu|mps|xpu|hpu|xla|mtia)(:\d+)?")
_OTHER_SIDE = {
    word: other
    for one, two in (("left", "right"), ("Left", "Right"), ("LEFT", "RIGHT"))
    for word, other in ((one, two), (two, one))
}
_SIDE = re.compile(rf"(?<![^\W_])({'|'.join(_OTHER_SIDE)})(?![^\W_])")


def check_before_run(planner: Planner, options: RunOptions) -> tuple[str, ...]:
    """What a run would refuse before it works, raised as it would; returns what it would warn of."""
    selected = planner.graph.selected(only=options.only, until=options.until)
    settings = cluster_settings(planner.file, options.cluster)
    check_settings(planner.file, planner.graph, selected, executor=settings.executor)
    check_videos(planner.file, planner.graph, planner.dataset, selected)
    return check_plans(planner, selected, is_local=settings.executor == "local")


def check_settings(file: PipelineFile, graph: Graph, selected: Collection[str], *, executor: str) -> None:
    """Raise ConfigError that lists what names nothing in the nodes ``selected``: encoders, options, packages."""
    problems = []
    if executor == "slurm" and find_spec("dask_jobqueue") is None:
        problems.append("executor slurm needs the package dask-jobqueue: pip install 'reelwright[slurm]'")
    for node in _chosen(graph, selected):
        problems += [f"stages.{node.name}: {text}" for text in (*_names(node), *_packages(node, ()))]
        problems += [f"stages.{node.name}.{text}" for text in _plugins(node, file)]
    _raise(file, problems)


def check_videos(file: PipelineFile, graph: Graph, dataset: Dataset, selected: Collection[str]) -> None:
    """Raise ConfigError for splits and videos of the nodes ``selected`` that are not there, and packages missing.

    Raises InputError where labels fit too little (`check_shares`).
    """
    if dataset.num_to_make or not dataset.videos:
        return
    check_shares(dataset)
    counts = Counter(video.split for video in dataset.videos)
    tails = {video.path.rpartition(".")[2] for video in dataset.videos}  # of 100,000 paths: splitext takes ten times
    endings = {f".{tail.lower()}" for tail in tails if "/" not in tail}
    problems = []
    for node in _chosen(graph, selected):
        problems += [f"stages.{node.name}: {text}" for text in _packages(node, endings)]
        problems += [f"stages.{node.name}.{text}" for text in _splits(node, counts, file.videos.splits)]
        problems += [f"stages.{node.name}.{text}" for text in _splits_not_made(node, graph)]
        node.config.check_files(file.resolve)
        named = {**node.config.named_videos(), **listed_videos(node, file)}
        problems += [f"stages.{node.name}.{text}" for text in _named(named, dataset.digests)]
    _raise(file, problems)


def _chosen(graph: Graph, selected: Collection[str]) -> list[Node]:
    return [node for node in graph.nodes.values() if node.name in selected]


def check_plans(planner: Planner, selected: Collection[str], *, is_local: bool) -> tuple[str, ...]:
    """Raise ConfigError for windows that no video holds, labels that no video has or that forbid flips, and devices.

    Of nodes that would run.

    Returns warnings. Devices are looked at where the work ``is_local``: another machine has others.
    """
    nodes = [plan.node for plan in planner.plans() if plan.state != FRESH and plan.node.name in selected]
    problems = [f"stages.{node.name}: {text}" for node in nodes if is_local for text in _device(node)]
    problems += [f"stages.{node.name}: {text}" for node in nodes for text in _flips(node, planner)]
    warnings: list[str] = []
    for node in nodes:
        problems += [f"stages.{node.name}.{text}" for text in no_video_label(node.config, planner.dataset_of(node))]
        for text, is_fatal in _windows(node, planner):
            (problems if is_fatal else warnings).append(f"stages.{node.name}: {text}")
    _raise(planner.file, problems)
    return tuple(warnings)


def _raise(file: PipelineFile, problems: list[str]) -> None:
    if problems:
        raise ConfigError("\n  ".join([f"{file.path}: {len(problems)} problem(s) in the settings", *problems]))


def _names(node: Node) -> Iterator[str]:
    try:
        node.config.check_names()
    except ConfigError as error:
        yield str(error)


def _plugins(node: Node, file: PipelineFile) -> Iterator[str]:
    """Plug-ins that are not there, cannot be imported, or do not take their options."""
    for field, use in node.config.plugins().items():
        try:
            check_plugin(use, find_plugin(use.group, use.name, folder=file.folder))
        except ConfigError as error:
            yield f"{field}: {error}"


def _packages(node: Node, endings: Collection[str]) -> Iterator[str]:
    for package, message in node.config.packages(endings).items():
        if find_spec(package) is None:
            what, _, remedy = message.partition(";")
            yield f"{what} needs the package {package}, which is not installed:{remedy}"


def _splits(node: Node, counts: Mapping[str, int], allowed: Collection[str]) -> Iterator[str]:
    """Splits that no video can be in, and those that some video has to be in but none is."""
    there = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    for setting, (splits, is_needed) in node.config.named_splits().items():
        unknown = [split for split in splits if split not in allowed and split not in counts]
        if unknown and (is_needed or setting in node.config.model_fields_set):
            yield f"{setting}: {unknown[0]!r} is no split.{nearest(unknown[0], allowed)} Known: {', '.join(allowed)}"
        elif is_needed and not any(counts.get(split) for split in splits):
            yield (
                f"{setting}: no video is in {' or '.join(splits)} (there are: {there}); look at the split column of "
                f"the manifest, at videos.split, or set {setting}"
            )


def _splits_not_made(node: Node, graph: Graph) -> Iterator[str]:
    """Splits that some video has to be in, but of which a node that is read makes nothing."""
    needed = {setting: splits for setting, (splits, is_needed) in node.config.named_splits().items() if is_needed}
    for parent in map(graph.nodes.__getitem__, node.parents):
        there = parent.config.wanted_splits()
        if there is None or parent.config.kind == "run":
            continue
        for setting, splits in needed.items():
            missing = [split for split in splits if split not in there]
            if missing:
                yield (
                    f"{setting}: {missing[0]!r} is read, but {parent.name} is of {', '.join(there)} alone; add it to "
                    f"the splits of {parent.name}, or leave it out"
                )


def _named(named: Mapping[str, Sequence[str]], video_ids: Collection[str]) -> Iterator[str]:
    """Videos that a setting, or the table that it names, has, but that are not there."""
    for setting, names in named.items():
        for name in dict.fromkeys(name for name in names if name not in video_ids):
            yield f"{setting}: there is no video {name!r}.{nearest(name, video_ids)}"


def _windows(node: Node, planner: Planner) -> Iterator[tuple[str, bool]]:
    """Windows that are longer than every video whose length is known, and whether the node refuses that."""
    window = node.config.window_rows()
    if window is None:
        return
    learned = node.config.named_splits().get("train_splits")
    splits, dataset = node.config.wanted_splits() if learned is None else learned[0], planner.dataset
    videos = [video for video in dataset.videos if splits is None or video.split in splits]
    probes = (dataset.probes.get(dataset.digests[video.video_id] or "") for video in videos)
    rows = [most_rows(node, planner.graph, probe) for probe in probes]
    known = [count for count in rows if count is not None]
    span, short = window
    if not known or len(known) < len(rows) or max(known) + 1 >= span:  # a row more or less: times are rounded
        return
    message = (
        f"a window reaches over {span:,} rows, but the longest of {len(known):,} videos has about {max(known):,.0f}; "
        "shorten window.length (or dilation), or take more frames a second"
    )
    if short == "leave_out":
        yield f"{message}. window.short: leave_out leaves every video out", True
    elif short == "pad" and learned is not None:
        yield f"{message}. With window.short: pad every window that is learned from would be padded", True
    else:
        yield f"{message}: every video is filled up (window.short: {short})", False


def most_rows(node: Node, graph: Graph, probe: VideoProbe | None) -> float | None:
    """No more rows of a video than this come to a node; None where that is not known."""
    counts = [_rows_made(graph.nodes[name], graph, probe) for name in node.parents]
    return min((count for count in counts if count is not None), default=None)


def _rows_made(node: Node, graph: Graph, probe: VideoProbe | None) -> float | None:
    if node.config.produces == "embeddings":
        rows = most_rows(node, graph, probe)
        return None if rows is None else node.config.most_rows(rows)
    if probe is None or not probe.is_exact or not probe.num_frames or not probe.duration_seconds:
        return None
    return node.config.rows_of_video(
        num_frames=probe.num_frames, duration_seconds=probe.duration_seconds, start_seconds=probe.start_seconds
    )


def _flips(node: Node, planner: Planner) -> Iterator[str]:
    """Mirrored frames whose labels would be wrong then: in training, or in stored views that are learned from."""
    if node.config.kind != "run" or not node.config.learns_labels:
        return
    read = {f"stages.{name}.": planner.plan(name).node.config for name in node.parents}
    stored = [where + config.mirrors for where, config in read.items() if config.kind == "items" and config.mirrors]
    mirrors = [*stored, *([node.config.mirrors] if node.config.mirrors else [])]
    if not mirrors:
        return
    dataset = planner.dataset_of(node)
    settings, names = dataset.label_settings, dataset.labels.classes
    directed = None if settings is None else settings.directed
    pair = next(((name, other) for name in names if (other := mirrored(name)) != name and other in names), None)
    if directed or (directed is None and pair is not None):
        why = "labels.directed is true" if directed else f"classes {pair[0]!r} and {pair[1]!r} differ by it alone"  # type: ignore[index]
        rest = "" if directed else ", or labels.directed: false if a mirror image keeps its class"
        yield f"{mirrors[0]} mirrors frames left and right, but {why}; set {mirrors[0].rpartition('.')[2]}: 0{rest}"


def mirrored(name: str) -> str:
    """The name of a class with left and right exchanged."""
    return _SIDE.sub(lambda found: _OTHER_SIDE[found[0]], name)


def _device(node: Node) -> Iterator[str]:
    if node.config.needs_gpu and num_gpus() == 0:
        yield f"{node.config.needs_gpu}; this machine has no GPU that torch can use"
    name = getattr(node.config, "device", "auto")
    gpu = _GPU.fullmatch(name)
    if gpu is None:
        if _OTHER_DEVICES.fullmatch(name) is None:
            yield f"device: {name!r} is not known; allowed: auto, cpu, cuda, cuda:1"
        return
    found = num_gpus()
    if found is not None and int(gpu[1] or 0) >= found:
        yield f"device: {name!r}, but this machine has {found} GPU(s) that torch can use; set device: auto or cpu"


def num_gpus() -> int | None:
    """GPUs that torch could use here, asked of the driver; None where only torch can tell (AMD's)."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        build = version("torch")
    except PackageNotFoundError:
        return None
    if "rocm" in build:
        return None
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if "+cpu" in build or visible in {"", "-1"}:
        return 0
    try:
        driver = CDLL("nvml.dll" if os.name == "nt" else "libnvidia-ml.so.1")
    except OSError:
        return 0
    count = c_uint()
    if driver.nvmlInit_v2() != 0 or driver.nvmlDeviceGetCount_v2(byref(count)) != 0:
        return 0
    driver.nvmlShutdown()
    # parts of a GPU (MIG) are named one by one, and there may be more of them than GPUs
    return count.value if visible is None else min(len(visible.split(",")), max(count.value, visible.count("MIG")))
