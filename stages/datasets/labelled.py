"""Videos with what is known of them, as a node's payload has them, and their windows with a known target."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from reelwright.stages.datasets.sampling.clips import ClipSampling
from reelwright.stages.datasets.sampling.left_out import LeftOut
from reelwright.stages.datasets.sampling.windows import Windows, WindowShape, grid_windows
from reelwright.stages.datasets.tasks.labels import LabelSpace, Targets
from reelwright.stages.datasets.tasks.task import Task
from reelwright.storage.arrays.spans import Spans
from reelwright.storage.errors import InputError
from reelwright.storage.tables.annotations import UNKNOWN, Annotation


@dataclass(frozen=True)
class LabelledVideo:
    """A video with what is known of it."""

    video_id: str
    digest: str
    split: str
    annotation: Annotation


@dataclass(frozen=True)
class LabelledWindows:
    """N windows with a known target; ``windows.video`` counts in the digests that were given."""

    windows: Windows
    targets: Targets

    def __len__(self) -> int:
        return len(self.windows)


@dataclass(frozen=True)
class KnownRows:
    """Which videos have rows, and where these lie in time."""

    digests: tuple[str, ...]
    spans: tuple[Spans, ...]


def label_space(payload: Mapping[str, Any], *, node: str) -> LabelSpace:
    """The classes of a payload. Raises InputError when there is none."""
    if not payload["classes"]:
        raise InputError(f"{node}: the videos have no labels; give `labels:` or a label column in the manifest.")
    heads = tuple((name, int(size)) for name, size in payload.get("heads", ()))
    return LabelSpace(classes=tuple(payload["classes"]), background=payload["background"], heads=heads)


def payload_videos(payload: Mapping[str, Any], *, splits: Sequence[str] | None = None) -> list[LabelledVideo]:
    """The videos of a payload in their own order, of all splits or some."""
    return [
        LabelledVideo(entry["video_id"], entry["digest"], entry["split"], Annotation.from_plain(entry["annotation"]))
        for entry in payload["videos"]
        if splits is None or entry["split"] in splits
    ]


def distinct_videos(payload: Mapping[str, Any], *, splits: Sequence[str]) -> list[LabelledVideo]:
    """Videos of some splits, each content with each annotation once, in an order that no name and no row changes.

    Training on them gives the same run after a rename, a copy, or another order of the manifest.
    """
    found: dict[tuple[str, str], LabelledVideo] = {}
    for video in payload_videos(payload, splits=splits):
        found.setdefault((video.digest, json.dumps(video.annotation.plain(), sort_keys=True)), video)
    return [video for _, video in sorted(found.items(), key=lambda entry: entry[0])]


def label_groups(videos: Sequence[LabelledVideo], *, where: str) -> tuple[int, ...]:
    """A number for each video, the same for those whose own label is the same. Raises InputError where one has none."""
    known = [video.annotation.video_label or video.annotation.label for video in videos]
    without = [video.video_id for video, label in zip(videos, known, strict=True) if label == UNKNOWN]
    if without:
        raise InputError(
            f"{where}: views.one_label puts videos of one label into a batch, but {len(without)} have none of their "
            f"own: {', '.join(without[:5])}. Name a column of the manifest that has it in labels.column, or leave "
            "one_label out."
        )
    return tuple(np.unique(np.array(known), return_inverse=True)[1].tolist())


def _labels_rows(annotation: Annotation) -> bool:
    """Whether there is more than moments."""
    return bool(annotation.segments or annotation.times or annotation.frames) or annotation.label != UNKNOWN


def label_windows(
    videos: Sequence[LabelledVideo],
    rows: KnownRows,
    *,
    shape: WindowShape,
    task: Task,
    clips: ClipSampling | None = None,
) -> LabelledWindows:
    """The grid windows of ``videos`` whose target is known, video by video; videos without rows are left out.

    With ``clips`` each video has one window instead, the middle clip. Raises InputError for labels of steps where
    ``task`` needs labels of rows.
    """
    annotations = [video.annotation for video in videos]
    if task.traits.of_rows and any(each.steps for each in annotations) and not any(map(_labels_rows, annotations)):
        raise InputError(
            f"task {task.name} needs a label of each row, but steps are moments and label no row. Set task: "
            "multi_label, or give labels.segments or labels.rows."
        )
    positions = {digest: position for position, digest in enumerate(rows.digests)}
    parts = [
        _of_video(video, positions[video.digest], rows, (shape, task, clips))
        for video in videos
        if video.digest in positions
    ]
    if not parts:
        return LabelledWindows(Windows.joined([]), np.zeros(0, dtype=np.int64))
    windows = Windows.joined([part.windows for part in parts])
    return LabelledWindows(windows, np.concatenate([part.targets for part in parts]))


def no_windows(videos: Sequence[LabelledVideo], rows: KnownRows, shape: WindowShape) -> InputError:
    """What to do about an empty result of `label_windows`."""
    used = {video.digest for video in videos}
    if not used:
        why = "No video is in its splits; look at train_splits and the manifest's split column."
    elif 0 < _longest(videos, rows) < shape.span_rows and shape.short == "leave_out":
        why = f"{_too_long(videos, rows, shape)} Shorten window.length, or set window.short: pad or repeat."
    else:
        why = f"None of the {len(used)} videos has a label where a window needs one; look at the annotation table."
    return InputError(f"no window to train on. {why}")


def left_out_warnings(
    train: Sequence[LabelledVideo],
    val: Sequence[LabelledVideo],
    rows: KnownRows,
    *,
    shape: WindowShape,
    clips: ClipSampling | None,
    is_drawn: bool = False,
) -> list[str]:
    """What no window takes: rows off the grid (unless windows are drawn from every start), videos that are too short.

    Clips stand for their video, so that no row of it is missed.
    """
    found = LeftOut(shape=shape, block="window", rows="rows", fate="are in no window")
    known = {digest: len(spans.start_seconds) for digest, spans in zip(rows.digests, rows.spans, strict=True)}
    for videos, is_grid in ((train, clips is None and not is_drawn), (val, clips is None)):
        for video in videos:
            num_rows = known.get(video.digest, 0)
            if num_rows and not shape.num_windows(num_rows):
                found.add_short(video.video_id, num_rows=num_rows)
            elif is_grid:
                found.add(video.video_id, num_left=shape.num_left_out(num_rows), num_rows=num_rows)
    return list(found.warnings())


def check_reach(videos: Sequence[LabelledVideo], rows: KnownRows, shape: WindowShape) -> None:
    """Raise InputError where no video is as long as a window: a model would only ever see padding at its end.

    Not where short videos repeat their last row, which is no padding.
    """
    longest = _longest(videos, rows)
    if 0 < longest < shape.span_rows and shape.short == "pad":
        fitting = (longest - 1) // shape.dilation + 1
        raise InputError(
            f"{_too_long(videos, rows, shape)} Every window would be padded. Set window.length to at most {fitting}, "
            "or lessen window.dilation."
        )


def check_classes(counts: npt.NDArray[np.int64], labels: LabelSpace, *, balanced_by: str | None) -> str:
    """A warning about classes that no training window has; "" where each has some.

    Raises InputError where something (``balanced_by``, a setting) is to make all classes alike: these it cannot.
    """
    absent = [name for name, count in zip(labels.classes, counts, strict=True) if count == 0]
    if not absent:
        return ""
    said = f"no training window has the classes {', '.join(absent)}"
    if balanced_by is not None:
        raise InputError(
            f"{balanced_by} makes all classes count alike, but {said}. Annotate some, take these classes out, or "
            "do without balancing."
        )
    return f"warning: {said}; they cannot be learned. Annotate some, or take these classes out"


def beyond_warning(videos: Sequence[LabelledVideo], rows: KnownRows) -> list[str]:
    """A warning about videos whose labels reach further than their rows, by more than a row; none where none does."""
    spans = dict(zip(rows.digests, rows.spans, strict=True))
    found = {
        video.video_id: beyond
        for video in videos
        if video.digest in spans and (beyond := _seconds_beyond(video.annotation, spans[video.digest])) > 0
    }
    if not found:
        return []
    most, names = max(found.values()), ", ".join(list(found)[:5])
    message = f"warning: labels of {len(found)} video(s) reach beyond their last row, by up to {most:.2f} s: {names}. "
    return [message + "Are they of other files, or of another frame rate?"]


def _seconds_beyond(annotation: Annotation, spans: Spans) -> float:
    """How far labels reach beyond the last row; 0 where it is no more than that row is long."""
    if not len(spans.stop_seconds):
        return 0.0
    row_seconds = float(spans.stop_seconds[-1] - spans.start_seconds[-1])
    row_frames = int(spans.source_stop[-1] - spans.source_start[-1])
    stops = [stop for _, stop, _ in annotation.segments] + [time for time, _ in annotation.times]
    beyond = max(stops, default=0.0) - float(spans.stop_seconds[-1])
    if annotation.frames:
        frames = 1 + max(frame for frame, _ in annotation.frames) - int(spans.source_stop[-1])
        beyond = max(beyond, frames * row_seconds / max(row_frames, 1))
    return beyond if beyond > row_seconds else 0.0


def _longest(videos: Sequence[LabelledVideo], rows: KnownRows) -> int:
    used = {video.digest for video in videos}
    known = zip(rows.digests, rows.spans, strict=True)
    return max((len(spans.start_seconds) for digest, spans in known if digest in used), default=0)


def _too_long(videos: Sequence[LabelledVideo], rows: KnownRows, shape: WindowShape) -> str:
    return (
        f"A window reaches over {shape.span_rows} rows (length {shape.length}, dilation {shape.dilation}), but the "
        f"longest video has {_longest(videos, rows)}."
    )


def _of_video(
    video: LabelledVideo, position: int, rows: KnownRows, how: tuple[WindowShape, Task, ClipSampling | None]
) -> LabelledWindows:
    shape, task, clips = how
    spans = rows.spans[position]
    num_rows = [len(spans.start_seconds)]
    windows = grid_windows(num_rows, shape) if clips is None else clips.views(num_rows)
    targets = task.targets(windows, shape=shape, annotation=video.annotation, spans=spans)
    is_known = task.known(targets, video.annotation)
    kept = windows.take(is_known)
    return LabelledWindows(replace(kept, video=np.full_like(kept.start, position)), targets[is_known])
