"""The tables of an evaluation as CSV: one of videos, one of confusion; and how tables and scores are written."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from reelwright.stages.datasets.tasks.registry import TASKS
from reelwright.stages.evaluate.config import EvaluateConfig
from reelwright.stages.evaluate.scoring import SEGMENTAL, class_id, main_unit, segmental_scores
from reelwright.stages.evaluate.videos import VideoLabels, VideoResult
from reelwright.storage.results.predictions import PredictionInfo
from reelwright.storage.tables.annotations import UNKNOWN


def video_lines(
    labels: Sequence[VideoLabels],
    results: Mapping[str, VideoResult],
    *,
    info: PredictionInfo,
    config: EvaluateConfig,
) -> Iterable[Sequence[Any]]:
    """A head and a line a video: how right its windows or rows are, its segments, and the verdict on the whole video.

    Shares are in [0, 1], segmental numbers in percent; empty where there is no target.
    """
    quality = "micro_f1" if TASKS[info.task].of_sets else "accuracy"
    segmental = list(SEGMENTAL[1:]) if TASKS[info.task].is_sequence else []
    entries = f"num_{main_unit(info)}"
    yield ["video_id", "video_digest", "split", entries, quality, *segmental, "confidence", "label", "score", "target"]
    background = class_id(info, config.background)
    for video in labels:
        numbers = segmental_scores([video], background=background) if segmental and video.has_target else {}
        result = results.get(video.video_id)
        names = ["", "", ""]
        if result:
            target = "" if result.target_id == UNKNOWN else info.classes[result.target_id]
            names = [info.classes[result.label_id], number_text(result.score), target]
        head = [video.video_id, video.digest, video.split, len(video.label_ids), number_text(video.quality)]
        yield [*head, *[number_text(numbers.get(name)) for name in segmental], number_text(video.confidence), *names]


def number_text(value: float | None) -> str:
    """A number with six digits; nothing where it is undefined."""
    return "" if value is None else f"{value:.6g}"


def confusion_lines(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> Iterable[Sequence[Any]]:
    """A head with the predicted classes, and a line of counts a true class."""
    yield ["truth \\ prediction", *classes]
    for name, counts in zip(classes, confusion, strict=True):
        yield [name, *counts]


def write_csv(path: Path, lines: Iterable[Sequence[Any]]) -> None:
    """Write lines as UTF-8 CSV."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(lines)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write values as UTF-8 JSON; no NaN, which is none."""
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
