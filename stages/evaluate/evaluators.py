"""Evaluators that are plug-ins: what they are given of the predictions, and how their numbers stand beside ours."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from reelwright.stages.base.plugins import checked_options, load_plugin
from reelwright.stages.datasets.tasks.registry import TASKS
from reelwright.stages.evaluate.config import EvaluatorSettings
from reelwright.stages.evaluate.scoring import main_unit, of_splits
from reelwright.stages.evaluate.videos import target_ids, target_matrix
from reelwright.storage.errors import ConfigError, StageError
from reelwright.storage.results.predictions import PredictionSet, scores_matrix

EVALUATORS = "evaluators"  # beside the units in metrics.json


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """What an evaluator is called with: the windows, or rows, of the videos of a split, in order of video and time."""

    classes: tuple[str, ...]
    task: str
    unit: str  # rows (task per_row) or windows
    video_ids: tuple[str, ...]  # (N,)
    start_seconds: npt.NDArray[np.float64]  # (N,)
    scores: npt.NDArray[np.float32]  # (N, K) probabilities
    targets: npt.NDArray[Any]  # int64 (N,), -1 where unknown; of sets of labels bool (N, K), none where unknown


def own_scores(
    predictions: PredictionSet,
    evaluators: Sequence[EvaluatorSettings],
    *,
    splits: Mapping[str, set[str]],
    plugins: Mapping[str, Any],
) -> dict[str, dict[str, dict[str, float]]]:
    """``{split: {evaluator: {number: value}}}``; ``splits`` are those of the predictions behind each name.

    Raises ConfigError for what cannot be imported, StageError where something else than finite numbers comes out.
    """
    measures = {}
    for settings in evaluators:
        thing = load_plugin(settings.group, settings.name, plugins)
        options = checked_options(thing, settings.options(), name=settings.name, num_given=settings.num_given)
        try:
            measures[settings.label] = thing(**options)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"evaluators: {settings.name}: {error}") from error
    given = {name: predicted(predictions, members) for name, members in splits.items()} if measures else {}
    return {
        split: {name: _numbers(measure(found), name=name) for name, measure in measures.items()}
        for split, found in given.items()
    }


def predicted(predictions: PredictionSet, splits: set[str]) -> Predicted:
    """The predictions of some splits."""
    info = predictions.info
    unit, of_sets = main_unit(info), TASKS[info.task].of_sets
    columns = ["video_id", "split", "start_seconds", "scores", "targets" if of_sets else "target_id"]
    table = of_splits(getattr(predictions, unit)(columns=columns), splits)
    return Predicted(
        classes=tuple(info.classes),
        task=info.task,
        unit=unit,
        video_ids=tuple(table["video_id"].to_pylist()),
        start_seconds=table["start_seconds"].to_numpy(),
        scores=scores_matrix(table),
        targets=target_matrix(table) if of_sets else target_ids(table),
    )


def _numbers(found: Any, *, name: str) -> dict[str, float]:
    if not isinstance(found, Mapping) or not all(isinstance(number, str) for number in found):
        raise StageError(f"evaluators: {name} gives {type(found).__name__}; needed is a mapping of names to numbers")
    for number, value in found.items():
        if not isinstance(value, int | float | np.number) or not math.isfinite(value):
            raise StageError(f"evaluators: {name} gives {value!r} for {number}; needed is a finite number")
    return {number: float(value) for number, value in found.items()}
