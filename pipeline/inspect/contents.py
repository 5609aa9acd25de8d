"""What a manifest holds: classes, durations, sizes and codecs by split, and contents that several splits have."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reelwright.pipeline.config.adhoc import adhoc_pipeline, videos_block
from reelwright.storage.bucket.download_cache import local_file
from reelwright.storage.ledger.digest_cache import VideoProbe
from reelwright.storage.ledger.items import DONE
from reelwright.storage.tables.annotations import UNKNOWN
from reelwright.storage.tables.manifest import ManifestVideo, scan_folder
from reelwright.storage.tables.text_tables import read_columns

if TYPE_CHECKING:
    from reelwright.pipeline.config.pipeline_file import PipelineFile
    from reelwright.pipeline.plan.dataset import Dataset

ByName = Mapping[str, Mapping[str, float]]  # name -> split -> number
_RATES = (10.0, 15.0, 23.976, 24.0, 25.0, 29.97, 30.0, 50.0, 59.94, 60.0)


@dataclass(frozen=True, kw_only=True)
class SplitContents:
    """One split."""

    videos: int
    usable: int
    labelled: int  # videos of which anything is known
    durations_seconds: tuple[float, ...]  # of usable videos, ascending; none of files of features

    @property
    def total_seconds(self) -> float:
        """Of all videos together."""
        return sum(self.durations_seconds)


@dataclass(frozen=True, kw_only=True)
class SameContent:
    """Videos whose content is identical."""

    digest: str
    videos: tuple[tuple[str, str], ...]  # (video_id, split), in manifest order

    @property
    def is_leak(self) -> bool:
        """Whether they lie in different splits."""
        return len({split for _, split in self.videos}) > 1


@dataclass(frozen=True, kw_only=True)
class Contents:
    """All of it."""

    splits: Mapping[str, SplitContents]  # in the order of the manifest
    labels: ByName = field(default_factory=dict)  # class -> split -> videos, segments, steps or frames
    label_unit: str = "videos"  # what `labels` counts
    label_seconds: ByName = field(default_factory=dict)  # of segments
    sizes: ByName = field(default_factory=dict)
    codecs: ByName = field(default_factory=dict)
    rates: ByName = field(default_factory=dict)
    same: tuple[SameContent, ...] = ()

    @property
    def leaks(self) -> tuple[SameContent, ...]:
        """Contents that occur in several splits."""
        return tuple(entry for entry in self.same if entry.is_leak)

    def plain(self) -> dict[str, Any]:
        """For machines."""
        return {
            "splits": {
                name: {field: getattr(split, field) for field in ("videos", "usable", "labelled", "total_seconds")}
                for name, split in self.splits.items()
            },
            "label_unit": self.label_unit,
            **{name: getattr(self, name) for name in ("labels", "label_seconds", "sizes", "codecs", "rates")},
            "same_content": [{"digest": entry.digest, "videos": entry.videos} for entry in self.same],
            "leaks": len(self.leaks),
        }


def contents_of(dataset: Dataset) -> Contents:
    """Sum up videos that were read and probed before."""
    by_split: dict[str, list[ManifestVideo]] = defaultdict(list)
    by_digest: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for video in dataset.videos:
        by_split[video.split].append(video)
        by_digest[dataset.digests[video.video_id] or ""].append((video.video_id, video.split))
    by_digest.pop("", None)
    probed = [(video, dataset.probes[dataset.digests[video.video_id] or ""]) for video in dataset.videos]
    usable = [(video, probe) for video, probe in probed if probe.status in DONE]
    measured = [(video.split, probe) for video, probe in usable if probe.num_frames]
    labels, unit, seconds = _labels(dataset)
    return Contents(
        splits={name: _split(name, videos, dataset, usable) for name, videos in by_split.items()},
        labels=labels,
        label_unit=unit,
        label_seconds=seconds,
        sizes=_counts((f"{probe.width}x{probe.height}", split) for split, probe in measured),
        codecs=_counts((probe.codec, video.split) for video, probe in usable),
        rates=_counts((_rate(probe), split) for split, probe in measured),
        same=tuple(
            SameContent(digest=digest, videos=tuple(videos)) for digest, videos in by_digest.items() if len(videos) > 1
        ),
    )


def source_file(source: str, overrides: Sequence[str]) -> PipelineFile:
    """A pipeline file without nodes for a manifest (with its label column), a folder of videos or features, a pattern.

    Raises ConfigError when there is no such thing.
    """
    block, labels = videos_block(source), None
    if "folder" in block and Path(source).is_dir() and not scan_folder(Path(source), default_split="train"):
        block = {"features": source}
    if "manifest" in block:
        columns = read_columns(local_file(source), required=["path"]).cells
        block["splits"] = list(dict.fromkeys(["train", "val", "test", *filter(None, columns.get("split", []))]))
        if any(columns.get("label", [])) and not any(entry.startswith("labels.") for entry in overrides):
            labels = {"column": "label"}
    return adhoc_pipeline("data", block, {}, overrides, labels=labels)


def _split(
    name: str, videos: list[ManifestVideo], dataset: Dataset, usable: list[tuple[ManifestVideo, VideoProbe]]
) -> SplitContents:
    own = [probe for video, probe in usable if video.split == name]
    return SplitContents(
        videos=len(videos),
        usable=len(own),
        labelled=sum(dataset.labels.of(video.video_id).is_known for video in videos),
        durations_seconds=tuple(sorted(probe.duration_seconds for probe in own if probe.num_frames)),
    )


def _labels(dataset: Dataset) -> tuple[ByName, str, ByName]:
    """How often each class occurs in each split, what was counted, and seconds of segments."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in dataset.labels.classes}
    seconds: dict[str, Counter[str]] = {name: Counter() for name in dataset.labels.classes}
    classes, unit = dataset.labels.classes, "videos"
    for video in dataset.videos:
        known = dataset.labels.of(video.video_id)
        for start, stop, label in known.segments:
            unit = "segments"
            counts[classes[label]][video.split] += 1
            seconds[classes[label]][video.split] += stop - start  # type: ignore[assignment]
        for _, label in known.steps:
            unit = "steps"
            counts[classes[label]][video.split] += 1
        for _, label in (*known.frames, *known.times):
            unit = "rows"
            counts[classes[label]][video.split] += 1
        if known.label != UNKNOWN:
            counts[classes[known.label]][video.split] += 1
    return counts, unit, seconds if unit == "segments" else {}


def _counts(entries: Iterable[tuple[str, str]]) -> ByName:
    """Name -> split -> number, the commonest first."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for name, split in entries:
        found[name][split] += 1
    return dict(sorted(found.items(), key=lambda entry: (-entry[1].total(), entry[0])))


def _rate(probe: VideoProbe) -> str:
    if probe.variable_frame_rate:
        return "variable"
    near = min(_RATES, key=lambda rate: abs(rate - probe.fps))
    return f"{near if abs(near - probe.fps) < 0.02 else round(probe.fps, 1):g}"
