"""The pipeline file that fits a folder: which videos and labels lie there, how long they are, what follows from it."""

from __future__ import annotations

import csv
import json
import math
import re
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reelwright.stages.base.registry import load
from reelwright.storage.digests import digest
from reelwright.storage.errors import InputError
from reelwright.storage.files import replacing
from reelwright.storage.ledger.digest_cache import VideoProbe
from reelwright.storage.tables.manifest import ManifestVideo, is_table_name, read_manifest, scan_folder
from reelwright.storage.tables.text_tables import read_columns

_PROBED = 24  # videos whose length is asked for, evenly chosen
_RATES = (10, 5, 2, 1)  # frames a second that are chosen from
_ROWS = 32  # of a usual video, about, where it has one label
_MOST_ROWS = 64  # of a window
_UPDATES = 400  # in all, about
_UPDATES_AN_EPOCH = 8
_LEARN, _CHECK, _TEST = "train", "val", "test"

_LABEL_TABLES = (  # setting of `labels`, and the columns by which a table is known; the first that fits
    ("segments", {"video_id", "start_seconds", "stop_seconds", "label"}),
    ("rows", {"video_id", "frame", "label"}),
    ("rows", {"video_id", "time_seconds", "label"}),
)


@dataclass(frozen=True, kw_only=True)
class OwnData:
    """What lies in a folder."""

    folder: Path
    videos: tuple[ManifestVideo, ...]  # with the splits and labels that the file will have
    source: str  # the block `videos`, as YAML
    manifest: Path | None  # is to be written for the splits or labels; None: what is there says all
    labels: str  # the block `labels`, as YAML; empty where there are none
    probes: tuple[VideoProbe, ...]  # of some of the videos, those that can be used
    said: tuple[str, ...]  # what was seen, for people

    @property
    def has_video_labels(self) -> bool:
        """Whether a whole video has one label."""
        return self.labels.startswith("{column")


def look_at(folder: Path) -> OwnData | None:
    """What lies in ``folder``; None where there is no video. Raises InputError for a table that cannot be used."""
    tables = dict(_tables(folder))
    manifests = [path for path, columns in tables.items() if "path" in columns]
    listed = min(manifests, key=lambda path: "split" not in tables[path], default=None)  # one with splits, if there is
    videos = _named(listed, folder)
    if not videos:
        return None
    said = [f"{len(videos):,} videos in {listed.name if listed else f'{folder}/'}"]
    found = [(kind, path) for kind, needed in _LABEL_TABLES for path, columns in tables.items() if needed <= columns]
    labels, own = "", False
    if found:
        kind, path = found[0]
        labels = f"{{{kind}: {_quoted(path.name)}}}"
        said.append(f"labels of {kind} in {path.name}")
    else:
        labelled, where = _video_labels(videos, tables, folder)
        if labelled:
            own = any(video.label != labelled[video.video_id] for video in videos)
            videos = [video._replace(label=labelled[video.video_id]) for video in videos]
            counts = Counter(filter(None, labelled.values()))
            labels = "{column: label}"
            shown = ", ".join(f"{name} {count}" for name, count in sorted(counts.items())[:8])
            said.append(
                f"a label of each video in {where}: {len(counts)} classes ({shown}{', ...' * (len(counts) > 8)})"
            )
    if not labels:
        said.append(
            "no labels: no table video_id, start_seconds, stop_seconds, label, no column label, no folders by class"
        )
    is_split = len({video.split for video in videos}) > 1
    if is_split or not labels:
        _check_splits({video.split for video in videos}, str(listed or folder), is_learnt=bool(labels))
    if labels and not is_split:
        videos = _split(videos)
        own = True
    counted = Counter(video.split for video in videos)
    order = dict.fromkeys([name for name in (_LEARN, _CHECK, _TEST) if name in counted] + sorted(counted))
    parts = ", ".join(f"{name} {counted[name]}" for name in order)
    said.append(f"splits: {parts}" + ("" if is_split or not labels else " (made here, each class apart)"))
    manifest = folder / ("videos.csv" if listed is None else f"{listed.stem}_split.csv") if own else None
    named = manifest or listed
    source = f"{{manifest: {_quoted(named.name)}}}" if named else "{folder: .}"
    probes = _probed(videos)
    usable = [probe for probe in probes if probe.status == "ok" and probe.duration_seconds > 0]
    if not usable:
        reasons = "; ".join(dict.fromkeys(probe.message for probe in probes))
        raise InputError(f"{folder}: of {len(probes)} videos that were tried none can be used: {reasons}")
    seconds, rates = [probe.duration_seconds for probe in usable], [probe.fps for probe in usable]
    said.append(
        f"{min(seconds):.1f} to {max(seconds):.1f} s, half of them below {statistics.median(seconds):.1f} s; "
        f"{min(rates):.3g} to {max(rates):.3g} frames/s (of {len(usable)} that were opened)"
    )
    if len(usable) < len(probes):
        said.append(f"{len(probes) - len(usable)} of {len(probes)} cannot be used: `reelwright index` says why")
    return OwnData(
        folder=folder,
        videos=tuple(videos),
        source=source,
        manifest=manifest,
        labels=labels,
        probes=tuple(usable),
        said=tuple(said),
    )


def pipeline_text(data: OwnData) -> tuple[str, list[str]]:
    """The pipeline file as text, and what was chosen and why, a line each."""
    seconds = sorted(probe.duration_seconds for probe in data.probes)
    median, slowest = statistics.median(seconds), min(probe.fps for probe in data.probes)
    wanted = 5.0 if data.labels and not data.has_video_labels else _ROWS / median
    fps = next((rate for rate in _RATES if rate <= min(wanted, slowest) + 0.01), 1)
    chose = [
        f"{fps} frames/s: {median * fps:.0f} rows of a usual video; frames are not stored, they go straight to embed"
    ]
    head = [f"videos: {data.source}", *([f"labels: {data.labels}"] if data.labels else []), "stages:"]
    body = [
        f"  frames: {{uses: decode, fps: {fps}, materialize: false}}   # true stores frames; fine-tuning needs that",
        "  embed: {uses: embed, frames: frames, encoder: timm/vit_small_patch16_224.augreg_in21k_ft_in1k}",
    ]
    if not data.labels:
        return "\n".join([*head, *body, ""]), chose
    num_learnt = sum(video.split == _LEARN for video in data.videos)
    splits = {video.split for video in data.videos}
    is_val_scored = _TEST not in splits and _CHECK in splits
    if is_val_scored:
        chose.append("scores of val, which chooses the weights too, since no video is in test: they are too good")
    if data.has_video_labels:
        length, num_windows = max(2, min(16, int(median * fps))), num_learnt
        window, task = f"{{length: {length}, sampling: segments}}", "video"
        model = "{name: transformer, layers: 2, width: 64}"
        chose.append(f"window of {length} rows, one somewhere in each of {length} parts: a clip stands for its video")
    else:
        short = seconds[len(seconds) // 5] * fps
        length = max(4, min(_MOST_ROWS, int(short)))
        hop = max(1, length // 8)
        num_windows = num_learnt * max(1, int((median * fps - length) / hop) + 1)
        window, task = f"{{length: {length}, hop: {hop}}}", "per_row"
        model = f"{{name: ms_tcn, width: 64, layers: {max(2, min(8, int(math.log2(length)) + 1))}}}"
        chose.append(f"window of {length} rows ({length / fps:.1f} s): four in five videos are as long as that")
    batch = max(2, min(64, num_windows // _UPDATES_AN_EPOCH))
    updates = math.ceil(num_windows / batch)
    epochs = max(20, min(100, math.ceil(_UPDATES / updates)))
    chose.append(f"batches of {batch}: about {updates} updates an epoch, {updates * epochs} in {epochs} epochs")
    body += [
        "  train:",
        "    uses: train",
        "    embeddings: [embed]",
        f"    task: {task}",
        f"    window: {window}",
        f"    model: {model}",
        f"    batch_size: {batch}",
        f"    epochs: {epochs}",
        "  predict: {uses: predict, run: train}",
        f"  scores: {{uses: evaluate, predictions: predict{', splits: [val]' if is_val_scored else ''}}}",
    ]
    return "\n".join([*head, *body, ""]), chose


def write_manifest(data: OwnData) -> None:
    """Write the manifest that the file names, where one is to be written; what is there stays."""
    if data.manifest is None:
        return
    base = data.folder.absolute()
    with replacing(data.manifest) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        has_label = data.has_video_labels
        more = list(data.videos[0].extra)
        writer.writerow(["video_id", "path", "split", *(["label"] if has_label else []), *more])
        for video in data.videos:
            path = Path(video.path)
            inside = path.relative_to(base).as_posix() if path.is_relative_to(base) else video.path
            label = [video.label] if has_label else []
            writer.writerow([video.video_id, inside, video.split, *label, *(video.extra[name] for name in more)])


def _check_splits(names: set[str], place: str, *, is_learnt: bool) -> None:
    """Raise InputError for splits that a pipeline file does not know unless told, and where there is none to learn."""
    wrong = sorted(names - {_LEARN, _CHECK, _TEST})
    if wrong or (is_learnt and _LEARN not in names):
        what = f"splits {', '.join(wrong)} are not known" if wrong else "no video is in train"
        raise InputError(
            f"{place}: {what}; name them train, val and test, leave the column out, or take `init --recipe default` "
            "and say in its file which is which (videos.splits, train.train_splits, train.val_splits, scores.splits)"
        )


def _quoted(name: str) -> str:
    """As it stands in YAML between braces."""
    return name if re.fullmatch(r"[\w.-]+", name) else json.dumps(name, ensure_ascii=False)


def _tables(folder: Path) -> Iterator[tuple[Path, set[str]]]:
    """Tables in the folder, by name, with their columns."""
    for path in sorted(folder.iterdir() if folder.is_dir() else ()):
        if path.is_file() and is_table_name(path.name):
            yield path, set(read_columns(path, required=[]).cells)


def _named(listed: Path | None, folder: Path) -> list[ManifestVideo]:
    if listed is not None:
        return read_manifest(listed, root=listed.parent.absolute(), default_split=_LEARN)
    return scan_folder(folder, default_split=_LEARN) if folder.is_dir() else []


def _video_labels(
    videos: Sequence[ManifestVideo], tables: Mapping[Path, set[str]], folder: Path
) -> tuple[dict[str, str], str]:
    """The label of each video by id, and where it stands; nothing where videos have none, or all the same."""
    own = {video.video_id: video.label for video in videos}
    if len(set(filter(None, own.values()))) > 1:
        return own, "column label"
    for path, columns in tables.items():
        if {"video_id", "label"} <= columns and "path" not in columns:
            cells = read_columns(path, required=["video_id", "label"]).cells
            given = dict(zip(cells["video_id"], cells["label"], strict=True))
            if len(set(given.values())) > 1 and set(given) & set(own):
                return {name: given.get(name, "") for name in own}, path.name
    places = {video.video_id: Path(video.path).parent for video in videos}
    names = {name: "" if place == folder.absolute() else place.name for name, place in places.items()}
    counts = Counter(names.values())
    if (
        len(counts) > 1
        and "" not in counts
        and 2 * len(counts) <= len(videos)
        and set(counts) - {_LEARN, _CHECK, _TEST}
    ):
        return names, "the names of their folders"
    return {}, ""


def _split(videos: Sequence[ManifestVideo]) -> list[ManifestVideo]:
    """A fifth of each class to test and a tenth to val, one at least where it has three; by a digest of the id."""
    by_label: dict[str, list[ManifestVideo]] = {}
    for video in sorted(videos, key=lambda video: digest(video.video_id)):
        by_label.setdefault(video.label, []).append(video)
    splits: dict[str, str] = {}
    for members in by_label.values():
        num_test = max(int(len(members) > 1), round(len(members) / 5))
        num_val = max(int(len(members) > 2), round(len(members) / 10))
        names = [_TEST] * num_test + [_CHECK] * num_val
        splits |= {
            video.video_id: names[place] if place < len(names) else _LEARN for place, video in enumerate(members)
        }
    return [video._replace(split=splits[video.video_id]) for video in videos]


def _probed(videos: Sequence[ManifestVideo]) -> list[VideoProbe]:
    """Probes of some videos, evenly chosen."""
    count = min(_PROBED, len(videos))
    paths = [videos[place * len(videos) // count].path for place in range(count)]
    return [probe for _, probe in load("reelwright.stages.index.probe:probe_videos")(paths, quick=True)]
