"""Segmental metrics of per-row labels: frame accuracy, edit score and F1@k, in percent.

Edit score: Lea et al. 2016, "Learning Convolutional Action Primitives", section IV. F1@k: Lea et al. 2017, "Temporal
Convolutional Networks for Action Segmentation and Detection", section 4.1; pooled over videos as in the code of MS-TCN.
Shape letters: T rows of a video.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.integer[Any]]

OVERLAPS_PERCENT = (10, 25, 50)


@dataclass(frozen=True)
class Segments:
    """Runs of one label, in order: `label`, `start`, `stop` (half-open), each (S,)."""

    label: Labels
    start: Labels
    stop: Labels


def find_segments(labels_T: Labels, *, background: int | None = None) -> Segments:
    """Split a label sequence into its runs; runs of `background` are left out.

    labels 0 0 1 1 1 0 -> label 0 1 0, start 0 2 5, stop 2 5 6
    """
    labels_T = np.asarray(labels_T)
    changes = np.flatnonzero(labels_T[1:] != labels_T[:-1]) + 1
    start = np.concatenate([[0], changes]) if len(labels_T) else changes
    stop = np.concatenate([changes, [len(labels_T)]]) if len(labels_T) else changes
    label = labels_T[start]
    is_kept = np.ones(len(label), dtype=bool) if background is None else label != background
    return Segments(label[is_kept], start[is_kept], stop[is_kept])


def levenshtein(first: Sequence[int], second: Sequence[int]) -> int:
    """Fewest insertions, deletions and replacements that turn one sequence into the other."""
    previous = list(range(len(second) + 1))
    for row, left in enumerate(first, start=1):
        current = [row]
        for column, right in enumerate(second, start=1):
            replaced = previous[column - 1] + (left != right)
            current.append(min(replaced, previous[column] + 1, current[-1] + 1))
        previous = current
    return previous[-1]


def edit_score(prediction: Segments, target: Segments) -> float:
    """100 x (1 - Levenshtein distance of the labels / the longer's length); 100 when both have no segment."""
    longest = max(len(prediction.label), len(target.label))
    if longest == 0:
        return 100.0
    return 100.0 * (1.0 - levenshtein(prediction.label.tolist(), target.label.tolist()) / longest)


def match_segments(prediction: Segments, target: Segments, *, overlap: float) -> tuple[int, int, int]:
    """(true positives, false positives, false negatives) at intersection over union of at least `overlap`.

    Each predicted segment, in order, goes to the target segment of its label that it overlaps best (the earlier of
    two equals); a target segment counts once.
    """
    is_taken = np.zeros(len(target.label), dtype=bool)
    for label, start, stop in zip(prediction.label, prediction.start, prediction.stop, strict=True):
        intersection = np.minimum(stop, target.stop) - np.maximum(start, target.start)
        union = np.maximum(stop, target.stop) - np.minimum(start, target.start)
        scores = np.where(target.label == label, intersection / union, 0.0)
        best = int(scores.argmax()) if len(scores) else -1
        if best >= 0 and scores[best] >= overlap:
            is_taken[best] = True
    hits = int(is_taken.sum())
    return hits, len(prediction.label) - hits, len(target.label) - hits


def _f1(counts: npt.NDArray[np.int64]) -> float:
    hits, false_positives, false_negatives = counts.tolist()
    total = 2 * hits + false_positives + false_negatives
    # Nothing to find and nothing claimed is right.
    return 100.0 * 2 * hits / total if total else 100.0


def segmental_metrics(
    pred: Sequence[Labels], target: Sequence[Labels], *, background: int | None = None, ignore: int | None = -1
) -> dict[str, float]:
    """Compare label sequences, one (T,) int array per video, in percent.

    Rows whose target is `ignore` are cut out of both sequences first; a video without other rows is left out.
    `background` segments count for accuracy only. Returns `num_videos`, `num_rows`, `frame_accuracy` (over all rows),
    `frame_accuracy_video_mean`, `edit` (mean over videos), `f1@10`, `f1@25`, `f1@50` (counts pooled over videos) and
    `f1@10_video_mean`, ... (mean of the videos' own). Raises ValueError when lengths differ or no row has a target.
    """
    counted = counted_segments(pred, target, background=background, ignore=ignore)
    result = {
        "num_videos": float(len(counted.num_rows)),
        "num_rows": float(counted.num_rows.sum()),
        "frame_accuracy": 100.0 * float(counted.num_right.sum() / counted.num_rows.sum()),
        "frame_accuracy_video_mean": 100.0 * float((counted.num_right / counted.num_rows).mean()),
        "edit": float(np.mean(counted.edit)),
    }
    for percent, counts in counted.matches.items():
        result[f"f1@{percent}"] = _f1(counts.sum(axis=0))
        result[f"f1@{percent}_video_mean"] = float(np.mean([_f1(video_counts) for video_counts in counts]))
    return result


@dataclass(frozen=True)
class CountedSegments:
    """What segmental metrics are put together from, of V videos with targets."""

    num_right: npt.NDArray[np.int64]  # (V,) rows
    num_rows: npt.NDArray[np.int64]  # (V,)
    edit: npt.NDArray[np.float64]  # (V,) percent
    matches: dict[
        int, npt.NDArray[np.int64]
    ]  # by overlap in percent: (V, 3), true and false positives, false negatives


def counted_segments(
    pred: Sequence[Labels], target: Sequence[Labels], *, background: int | None = None, ignore: int | None = -1
) -> CountedSegments:
    """Video by video; arguments and what is raised are those of `segmental_metrics`."""
    videos = _known_rows(pred, target, ignore)
    pairs = [tuple(find_segments(labels, background=background) for labels in video) for video in videos]
    return CountedSegments(
        num_right=np.array([(predicted == truth).sum() for predicted, truth in videos]),
        num_rows=np.array([len(truth) for _, truth in videos]),
        edit=np.array([edit_score(predicted, truth) for predicted, truth in pairs]),
        matches={
            percent: np.array([match_segments(predicted, truth, overlap=percent / 100) for predicted, truth in pairs])
            for percent in OVERLAPS_PERCENT
        },
    )


def _known_rows(pred: Sequence[Labels], target: Sequence[Labels], ignore: int | None) -> list[tuple[Labels, Labels]]:
    if len(pred) != len(target):
        raise ValueError(f"{len(pred)} predicted videos but {len(target)} targets; give one array per video in both.")
    videos = []
    for index, (predicted, truth) in enumerate(zip(map(np.asarray, pred), map(np.asarray, target), strict=True)):
        if predicted.ndim != 1 or predicted.shape != truth.shape:
            message = f"video {index}: prediction has shape {predicted.shape}, target {truth.shape}; both must be (T,)."
            raise ValueError(message)
        is_known = np.ones(len(truth), dtype=bool) if ignore is None else truth != ignore
        if is_known.any():
            videos.append((predicted[is_known], truth[is_known]))
    if not videos:
        raise ValueError(f"no row has a target other than {ignore}; metrics need at least one.")
    return videos
