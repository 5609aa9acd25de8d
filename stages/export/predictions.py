"""Predictions for other programs: MS-TCN's text, a label a frame; ActivityNet's JSON; a table of the best classes.

mstcn        predictions/NAME.txt   one class name a line, one line a frame of the video, or a row
groundTruth/NAME.txt   the same of the true labels, where every row has one
mapping.txt            `0 cut`, `1 idle`, ... (Farha and Gall 2019, their data folder)
csv          predictions.csv        `path label pred1 pred2 pred3`, a video a line: class ids, see mapping.txt
activitynet  predictions.json       {"version", "results": {video_id: [{"label", "score", "segment"}]}, "external_data"}
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from reelwright.stages.datasets.tasks.registry import TASKS
from reelwright.stages.evaluate.scoring import class_id, main_unit, split_heads
from reelwright.stages.evaluate.videos import target_ids, timeline
from reelwright.storage.arrays.spans import IntArray
from reelwright.storage.errors import StageError
from reelwright.storage.results.predictions import PredictionSet, scores_matrix
from reelwright.storage.tables.annotations import UNKNOWN
from reelwright.storage.tables.names import file_names

NUM_BEST = 3  # classes of a line of csv
_MULTI_LABEL_THRESHOLD = 0.5  # probability from which a class counts as present


@dataclass(frozen=True, kw_only=True)
class PredictionExport:
    """What is written of predictions."""

    splits: AbstractSet[str] | None = None  # None: all
    background: str | None = None  # class that makes no segment (activitynet)
    per_row: bool = False  # mstcn: a line a row instead of a line a source frame
    paths: Mapping[str, str] = field(default_factory=dict)  # csv: of each video its file, by video_id


def export_mstcn(predictions: PredictionSet, folder: Path, options: PredictionExport) -> int:
    """Write frame text; returns the number of videos. A frame has the label of the row that began last before it.

    Frames before the first row that has a score (of task last_row those of a window but its last) have the label of
    that row, the true one too. Raises StageError where a row has several classes (multi_label, heads).
    """
    _check_one_label(predictions, "mstcn has one label a frame")
    classes = predictions.info.classes
    tables = list(_tables(predictions, "rows", options.splits))
    names = file_names(_video_id(table) for table in tables)
    _write_mapping(folder, classes)
    for table in tables:
        name = names[_video_id(table)]
        counts = _counts(table["source_start"].to_numpy(), per_row=options.per_row)
        for kind, ids in (("predictions", table["label_id"].to_numpy()), ("groundTruth", target_ids(table))):
            if (ids != UNKNOWN).all():
                _write_lines(folder / kind / f"{name}.txt", [classes[label] for label in np.repeat(ids, counts)])
    return len(tables)


def export_csv(predictions: PredictionSet, folder: Path, options: PredictionExport) -> int:
    """Write the best classes of every video as fractal_video's val_sup does (pred_test.csv); returns how many videos.

    Separated by spaces, quoted where a path has any: `path` of the video, `label` its true class (empty where it is not
    known), `pred1` to `pred3` the most probable ones, by the mean over its clips. Classes are ids, whose names
    mapping.txt has; of equally probable ones the lower id comes first, and with fewer than three the rest is empty.
    Raises StageError where a video has several classes (multi_label, heads).
    """
    _check_one_label(predictions, "csv has one label a video")
    info, videos = predictions.info, predictions.videos()
    best_NK = np.argsort(-scores_matrix(videos), axis=1, kind="stable")[:, :NUM_BEST]
    lines = []
    for name, split, target, best in zip(
        *(videos[column].to_pylist() for column in ("video_id", "split")), target_ids(videos), best_NK, strict=True
    ):
        if options.splits is None or split in options.splits:
            label = "" if target == UNKNOWN else int(target)
            lines.append([options.paths[name], label, *best.tolist(), *[""] * (NUM_BEST - len(best))])
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "predictions.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=" ", lineterminator="\n")
        writer.writerow(("path", "label", *(f"pred{number + 1}" for number in range(NUM_BEST))))
        writer.writerows(lines)
    _write_mapping(folder, info.classes)
    return len(lines)


def export_activitynet(predictions: PredictionSet, folder: Path, options: PredictionExport) -> int:
    """Write one JSON of segments, times in seconds; returns the number of videos.

    A segment is a stretch of one label, its score the mean probability there; of task heads, of one label of a head; of
    task multi_label, a stretch in which a class has a probability of 0.5 or more. Raises StageError when the background
    is no class.
    """
    info = predictions.info
    background = class_id(info, options.background)
    unit = main_unit(info)
    results: dict[str, list[dict[str, Any]]] = {}
    for table in _tables(predictions, unit, options.splits):
        line = timeline(table, info=info, unit=unit)
        present_NK = np.arange(len(info.classes)) == line.label_ids[:, None]
        if info.heads:
            present_NK = _best_of_heads(line.scores, info.heads)
        elif TASKS[info.task].of_sets:
            present_NK = line.scores >= _MULTI_LABEL_THRESHOLD
        if background is not None:
            present_NK[:, background] = False
        results[_video_id(table)] = segments(present_NK, line.edges_seconds, line.scores, info.classes)
    content = {"version": "VERSION 1.3", "results": results, "external_data": {"used": False, "details": ""}}
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / "predictions.json").write_text(text + "\n", encoding="utf-8")
    return len(results)


def _check_one_label(predictions: PredictionSet, what: str) -> None:
    if TASKS[predictions.info.task].of_sets:
        raise StageError(
            f"{what}, but the task of these predictions is {predictions.info.task}; take activitynet, or predict with "
            "a run of another task"
        )


def _best_of_heads(scores_NK: npt.NDArray[np.float32], heads: Sequence[tuple[str, int]]) -> npt.NDArray[np.bool_]:
    """Whether a class is the best of its head, whose classes lie side by side, one head after the other."""
    parts = split_heads(scores_NK, heads)
    return np.concatenate([np.arange(part.shape[1]) == part.argmax(axis=1)[:, None] for part in parts], axis=1)


def segments(
    present_NK: npt.NDArray[np.bool_],
    edges_seconds: npt.NDArray[np.float64],
    scores_NK: npt.NDArray[np.float32],
    classes: Sequence[str],
) -> list[dict[str, Any]]:
    """Every stretch of cells in which a class is present, in order of time, then of class."""
    found = []
    for label, name in enumerate(classes):
        changes = np.flatnonzero(np.diff(np.concatenate([[False], present_NK[:, label], [False]])))
        for start, stop in changes.reshape(-1, 2):
            times = [round(float(edges_seconds[edge]), 6) for edge in (start, stop)]
            score = round(float(scores_NK[start:stop, label].mean(dtype=np.float64)), 6)
            found.append({"label": name, "score": score, "segment": times})
    return sorted(found, key=lambda entry: entry["segment"])


def _counts(source_start: IntArray, *, per_row: bool) -> IntArray:
    """Lines of each row: frames from its first to the next row's; the first row also has the frames before it.

    The last row has as many as most rows, so that rows 0, 3, 6 stand for nine frames.
    """
    steps = np.diff(source_start)
    if per_row:
        return np.ones(len(source_start), dtype=np.int64)
    counts = np.append(steps, int(np.median(steps)) if len(steps) else 1).astype(np.int64)
    counts[0] += source_start[0]
    return counts


def _tables(predictions: PredictionSet, unit: str, splits: AbstractSet[str] | None) -> Iterator[pa.Table]:
    for table in predictions.by_video(unit):
        if splits is None or table["split"][0].as_py() in splits:
            yield table


def _video_id(table: pa.Table) -> str:
    return str(table["video_id"][0].as_py())


def _write_mapping(folder: Path, classes: Sequence[str]) -> None:
    _write_lines(folder / "mapping.txt", [f"{number} {name}" for number, name in enumerate(classes)])


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
