"""Scores of predictions against targets, per unit (windows, rows, videos) and split, beside their chance levels."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from reelwright.models.blocks.heads import Head
from reelwright.models.metrics.classification import (
    chance_levels,
    classification_metrics,
    multilabel_metrics,
    segmental_metrics,
)
from reelwright.models.metrics.multi_head import joint_accuracy
from reelwright.stages.datasets.tasks.registry import TASKS
from reelwright.stages.datasets.tasks.sets import ACTION, head_metrics
from reelwright.stages.evaluate.config import EvaluateConfig
from reelwright.stages.evaluate.videos import VideoLabels, target_ids, target_sets
from reelwright.storage.arrays.spans import IntArray
from reelwright.storage.errors import StageError, nearest
from reelwright.storage.results.predictions import PredictionInfo, PredictionSet, scores_matrix
from reelwright.storage.tables.annotations import UNKNOWN

ALL_SPLITS = "all"
SEGMENTAL = ("frame_accuracy", "edit", "f1@10", "f1@25", "f1@50")


def main_unit(info: PredictionInfo) -> str:
    """What is scored first: every row where the task labels rows, else every window."""
    return "rows" if TASKS[info.task].per_row else "windows"


def score_predictions(
    predictions: PredictionSet,
    labels: Sequence[VideoLabels],
    config: EvaluateConfig,
    *,
    tables: Mapping[str, pa.Table] | None = None,
) -> dict[str, Any]:
    """Metrics of the videos in ``config.splits``, plain data for JSON: ``{split: {unit: metrics}}``.

    Splits are the names in the predictions and, where there are several, `all`. A unit is there when it has a target:
    `rows` (task per_row), `windows` (the other tasks), `videos`, and `segmental` (tasks per_row and last_row) with its
    numbers in percent. Each holds `chance`: the same metrics of an answer that is always the shares of the classes in
    the scored targets, and `uniform` and `majority`. ``tables`` are `unit_tables`, where they are read already. Raises
    StageError when scores are not numbers.
    """
    info = predictions.info
    if config.joint and not info.heads:
        raise StageError(
            f"evaluate: joint: {', '.join(config.joint)} is of task heads, but these predictions are of task "
            f"{info.task}; leave it out"
        )
    background = class_id(info, config.background)
    tables = unit_tables(predictions) if tables is None else tables
    scores: dict[str, Any] = {}
    for name, members in splits_of(video.split for video in labels).items():
        scores[name] = {}
        for unit, table in tables.items():
            metrics = _unit_metrics(
                of_splits(table, members), info=info, config=config, where=f"{unit} of split {name}"
            )
            scores[name] |= {unit: metrics} if metrics else {}
        if TASKS[info.task].is_sequence:
            sequences = [video for video in labels if video.split in members and video.has_target]
            scores[name] |= {"segmental": segmental_scores(sequences, background=background)} if sequences else {}
    return scores


def segmental_scores(videos: Sequence[VideoLabels], *, background: int | None) -> dict[str, Any]:
    """Frame accuracy, edit score and F1@10/25/50 in percent, with those of always naming the commonest class."""
    targets = [video.target_ids for video in videos]
    known = np.concatenate(targets)
    commonest = int(np.bincount(known[known != UNKNOWN]).argmax())
    constant = [np.full_like(target, commonest) for target in targets]
    chance = segmental_metrics(constant, targets, background=background)
    metrics: dict[str, Any] = dict(
        segmental_metrics([video.label_ids for video in videos], targets, background=background)
    )
    return metrics | {"chance": {name: chance[name] for name in SEGMENTAL}}


def classification_scores(
    scores_NK: npt.NDArray[np.float32], targets: IntArray, *, topk: Sequence[int]
) -> dict[str, Any]:
    """`classification_metrics` with `chance`."""
    wanted = sorted({1, *topk})
    metrics = classification_metrics(scores_NK, targets, topk=wanted)
    shares = np.bincount(targets[targets != UNKNOWN], minlength=scores_NK.shape[1]) / metrics["num_entries"]
    constant = classification_metrics(np.broadcast_to(shares, scores_NK.shape), targets, topk=wanted)
    return metrics | {"chance": chance_levels(targets, scores_NK.shape[1]) | _numbers(constant)}


def multilabel_scores(
    scores_NK: npt.NDArray[np.float32],
    targets_NK: npt.NDArray[np.bool_],
    *,
    threshold: float,
    heads: Sequence[tuple[str, int]] = (),
) -> dict[str, Any]:
    """`multilabel_metrics` with `chance`: F1 of claiming every class, average precision of the classes' shares.

    With ``heads``, an entry that has no class of a head says nothing of that head's classes.
    """
    known_NK = known_labels(targets_NK, heads)
    measure = partial(multilabel_metrics, threshold=threshold, known_NK=known_NK)
    shares = targets_NK.sum(axis=0) / np.maximum(known_NK.sum(axis=0), 1)
    chance = measure(np.broadcast_to(shares, targets_NK.shape), targets_NK)
    claim_all = measure(np.ones(targets_NK.shape), targets_NK)
    chance |= {name: claim_all[name] for name in ("macro_f1", "micro_f1")}
    return measure(scores_NK, targets_NK) | {"chance": _numbers(chance)}


def known_labels(targets_NK: npt.NDArray[np.bool_], heads: Sequence[tuple[str, int]]) -> npt.NDArray[np.bool_]:
    """Which classes something is said of (N, K): of heads those of which an entry has a class, else all."""
    known_NK = np.ones(targets_NK.shape, dtype=np.bool_)
    for start, stop in itertools.pairwise(np.cumsum([0, *(size for _, size in heads)])):
        known_NK[:, start:stop] = targets_NK[:, start:stop].any(axis=1, keepdims=True)
    return known_NK


def head_scores(
    found: dict[str, Any],
    scores_NK: npt.NDArray[np.float32],
    targets_NK: npt.NDArray[np.bool_],
    heads: Sequence[tuple[str, int]],
    *,
    topk: Sequence[int],
    joint: Sequence[str] = (),
) -> dict[str, Any]:
    """``found`` with `verb_top1`, ... of each head and `action_top1`, ... of all at once, and chance beside them.

    Actions are ranked by the product of their probabilities (EPIC-Kitchens-100); ``joint`` are further measures of
    `multi_head`, for the k above 1. Chance is an answer that is always the shares of the classes in the targets. Heads
    that no entry has a class of are left out, and actions where no entry has one of every head.
    """
    known_heads = [Head(name=name, num_classes=size) for name, size in heads]
    parts, target_NH = split_heads(targets_NK, heads), head_targets(targets_NK, heads)
    has_actions = bool((target_NH != UNKNOWN).all(axis=1).any())
    shares = np.concatenate([part.mean(axis=0) / max(part.any(1).mean(), 1e-12) for part in parts])
    wanted = sorted({1, *topk})
    constant = np.broadcast_to(shares.astype(np.float32), scores_NK.shape)

    def measured(values_NK: npt.NDArray[np.float32]) -> dict[str, float]:
        own = head_metrics(values_NK, target_NH, known_heads, topk=wanted)
        for measure in joint if has_actions else ():
            hits = joint_accuracy(split_heads(values_NK, heads), target_NH, measure=measure, topk=wanted[1:])
            own |= {f"{ACTION}_{measure}_{name}": share for name, share in hits.items()}
        return own

    return {**found, **measured(scores_NK), "chance": found["chance"] | measured(constant)}


def split_heads(values_NK: npt.NDArray[Any], heads: Sequence[tuple[str, int]]) -> list[npt.NDArray[Any]]:
    """The columns of each head, which lie side by side."""
    return np.split(values_NK, np.cumsum([size for _, size in heads])[:-1], axis=1)


def head_targets(targets_NK: npt.NDArray[np.bool_], heads: Sequence[tuple[str, int]]) -> IntArray:
    """The class of each head (N, H), UNKNOWN where an entry has none of it."""
    parts = split_heads(targets_NK, heads)
    return np.stack([np.where(part.any(axis=1), part.argmax(axis=1), UNKNOWN) for part in parts], axis=1)


def headline(scores: dict[str, Any], info: PredictionInfo) -> dict[str, float]:
    """The few numbers that stand for all: of all splits together, shares in [0, 1], segmental ones in percent.

    Windows or rows have plain names (`top1`), videos `video_top1`; `chance_top1` and `chance_video_top1` beside them.
    Empty when nothing had a target.
    """
    chosen = overall(scores)
    numbers: dict[str, float] = {}
    for unit, prefix in ((main_unit(info), ""), ("segmental", ""), ("videos", "video_")):
        metrics = chosen.get(unit, {})
        names = [name for name in metrics.get("chance", {}) if name in metrics]
        for name in names:
            numbers[f"{prefix}{name}"] = metrics[name]
            numbers[f"chance_{prefix}{name}"] = metrics["chance"][name]
    return numbers


def overall(scores: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of all splits together, where there are several."""
    chosen: dict[str, Any] = scores.get(ALL_SPLITS) or next(iter(scores.values()), {})
    return chosen


def splits_of(present: Iterable[str]) -> dict[str, set[str]]:
    """Which splits each entry of the scores is of: every one, and of several all together."""
    names = sorted(set(present))
    return {name: {name} for name in names} | ({ALL_SPLITS: set(names)} if len(names) > 1 else {})


def class_id(info: PredictionInfo, name: str | None) -> int | None:
    """The id of a class by name. Raises StageError with the nearest name when there is none."""
    if name is None or name in info.classes:
        return None if name is None else info.classes.index(name)
    known = ", ".join(info.classes)
    raise StageError(f"evaluate: background {name!r} is no class.{nearest(name, info.classes)} Classes: {known}.")


def unit_tables(predictions: PredictionSet) -> dict[str, pa.Table]:
    """Scores and targets by unit: of rows or windows, and of whole videos."""
    columns = ["video_id", "split", "scores", "target_id"]
    return {
        unit: getattr(predictions, unit)(columns=columns if unit == "rows" else [*columns, "targets"])
        for unit in (main_unit(predictions.info), "videos")
    }


def of_splits(table: pa.Table, splits: set[str]) -> pa.Table:
    """The entries of videos of these splits."""
    return table.filter(pc.is_in(table["split"].cast(pa.string()), pa.array(sorted(splits))))


def _unit_metrics(
    table: pa.Table, *, info: PredictionInfo, config: EvaluateConfig, where: str
) -> dict[str, Any] | None:
    """Metrics of one table, or None when it has no target."""
    scores_NK = scores_matrix(table)
    if not np.isfinite(scores_NK).all():
        raise StageError(
            f"evaluate: scores of {where} hold numbers that are not finite; the run diverged, train it again"
        )
    if TASKS[info.task].of_sets:
        targets_NK, known = target_sets(table)
        if not known.any():
            return None
        found = multilabel_scores(scores_NK[known], targets_NK, threshold=config.threshold, heads=info.heads)
        if not info.heads:
            return found
        return head_scores(found, scores_NK[known], targets_NK, info.heads, topk=config.topk, joint=config.joint)
    targets = target_ids(table)
    return classification_scores(scores_NK, targets, topk=config.topk) if (targets != UNKNOWN).any() else None


def _numbers(metrics: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if isinstance(value, float)}
