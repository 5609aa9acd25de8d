"""The tables that prepare writes: manifest.csv, rows.csv and problems.csv, as pipeline files read them."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from reelwright.stages.prepare.lists import Problem
from reelwright.stages.prepare.patterns import fill
from reelwright.stages.prepare.resolve import Found
from reelwright.stages.prepare.specs import LayoutSpec
from reelwright.storage.files import replacing


@dataclass(frozen=True)
class Prepared:
    """A video that goes into the manifest."""

    video_id: str
    found: Found
    num_frames: int  # 0: not looked at


def video_ids(videos: Sequence[Found], template: str | None) -> list[str]:
    """An id each: by the template, or the file's name without ending; if two are alike, as much of the path as needed.

    a/clip.mp4 alone: clip; beside b/clip.mp4: a/clip; beside a/clip.webm: a/clip.mp4. Folders have no ending.
    """
    names = [Path(video.name) for video in videos]
    bare = [name.with_suffix("") if video.path.is_file() else name for name, video in zip(names, videos, strict=True)]
    short = [fill(template, video.values) if template else name.name for name, video in zip(bare, videos, strict=True)]
    choices = (short, [name.as_posix() for name in bare], [name.as_posix() for name in names])
    return next((ids for ids in choices if len(set(ids)) == len(ids)), choices[-1])


def write_manifest(path: Path, videos: Sequence[Prepared], columns: Sequence[str]) -> None:
    """video_id, path relative to the manifest, split, label, num_frames, and the data set's own columns."""
    base = path.parent.absolute()
    rows = (
        [
            video.video_id,
            os.path.relpath(video.found.path.absolute(), base),
            video.found.split,
            video.found.label,
            str(video.num_frames or ""),
            *(video.found.values.get(name, "") for name in columns),
        ]
        for video in videos
    )
    write_csv(path, ["video_id", "path", "split", "label", "num_frames", *columns], rows)


def write_rows(path: Path, videos: Sequence[Prepared], layout: LayoutSpec) -> int:
    """video_id, frame, label of every labelled frame; returns their number. Nothing is written where there is none."""
    rows = [
        [
            video.video_id,
            str(frame),
            fill(layout.frame_label or "{frame_label}", {**video.found.values, "frame_label": label}),
        ]
        for video in videos
        for frame, label in frame_labels(video, fps=layout.fps or 25.0)
    ]
    if rows:
        write_csv(path, ["video_id", "frame", "label"], rows)
    return len(rows)


def write_segments(path: Path, videos: Sequence[Prepared]) -> int:
    """video_id, start_seconds, stop_seconds, label of every segment; returns their number, and writes none where 0."""
    rows = [
        [video.video_id, repr(start), repr(stop), label]
        for video in videos
        for start, stop, label in video.found.line.segments
    ]
    if rows:
        write_csv(path, ["video_id", "start_seconds", "stop_seconds", "label"], rows)
    return len(rows)


def write_problems(path: Path, problems: Iterable[Problem]) -> None:
    """problem, video, detail."""
    write_csv(path, ["problem", "video", "detail"], ([entry.kind, entry.video, entry.detail] for entry in problems))


def frame_labels(video: Prepared, *, fps: float) -> Iterator[tuple[int, str]]:
    """(frame, label) of every labelled frame of a video.

    Where there are n labels for m frames, the longer of both is resampled by floor(j n / m), as CARL does; a frame
    between two that were picked has the label of the first. A segment [start, stop] in seconds has the frames
    int(start fps) to int(stop fps), both included (FineGym in CARL).
    """
    labels = video.found.line.frame_labels
    if labels is not None:
        for frame, label in enumerate(resampled(labels, num_frames=video.num_frames or len(labels))):
            if label >= 0:
                yield frame, str(label)
    last = (video.num_frames or 1 << 40) - 1
    named: dict[int, str] = {}
    for start, stop, name in video.found.line.segments:
        named.update(dict.fromkeys(range(int(start * fps), min(int(stop * fps), last) + 1), name))
    yield from sorted(named.items())


def resampled(labels: Sequence[int], *, num_frames: int) -> list[int]:
    """A label for each of ``num_frames``.

    Four labels a b c d for two frames: a c. Two labels a b for four frames, of which CARL picks 0 and 2: a a b b.
    """
    count = len(labels)
    if count >= num_frames:
        return [labels[frame * count // num_frames] for frame in range(num_frames)]
    picked = [label * num_frames // count for label in range(count)]
    result: list[int] = []
    for label, (start, stop) in enumerate(zip(picked, [*picked[1:], num_frames], strict=True)):
        result += [labels[label]] * (stop - start)
    return result


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A CSV in one step."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
