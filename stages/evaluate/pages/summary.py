"""The parts of the report about all videos together: headline scores, splits, classes, confusion, training."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from reelwright.models.metrics.metric import metric_named
from reelwright.stages.datasets.tasks.registry import TASKS
from reelwright.stages.evaluate.pages.charts import (
    MAX_MATRIX_CLASSES,
    UNDEFINED,
    Line,
    bar,
    confusion_chart,
    line_chart,
    measure,
)
from reelwright.stages.evaluate.pages.markup import tag
from reelwright.stages.evaluate.pages.page import Card, Cards, Pair, Section, Table
from reelwright.stages.evaluate.pages.palette import Palette
from reelwright.stages.evaluate.scoring import ALL_SPLITS, SEGMENTAL
from reelwright.storage.results.predictions import PredictionInfo

_NAMES = {
    "mean_class_accuracy": "Mean class accuracy",
    "macro_f1": "Macro F1",
    "micro_f1": "Micro F1",
    "mean_average_precision": "Mean average precision",
    "micro_average_precision": "Micro average precision",
    "frame_accuracy": "Frame accuracy",
    "edit": "Edit score",
    "f1@10": "Segments F1@10",
    "f1@25": "Segments F1@25",
    "f1@50": "Segments F1@50",
}
_MEASURES = {
    "precision": "Precision",
    "recall": "Recall",
    "f1": "F1",
    "average_precision": "Average precision",
}
_MAX_PAIRS = 8
_CHANCE = {
    "labels": "an answer that never looks: always the shares of the classes among the targets, the commonest first.",
    "sets": "an answer that never looks: the shares of the classes for average precision, every class for F1.",
}


INTERVALS = (
    "Ranges are 95 % confidence intervals over videos: these are drawn anew 1,000 times, with replacement (bootstrap, "
    "percentiles 2.5 and 97.5). Where all videos are right, or all wrong, the range is that of Clopper and Pearson for "
    "so many videos. Of few videos they are too narrow, and they say nothing of how far other seeds would be."
)


def metric_name(name: str) -> str:
    """A metric as people call it."""
    return f"Top-{name[3:]} accuracy" if re.fullmatch(r"top\d+", name) else _NAMES.get(name, name)


def headline_section(
    scores: Mapping[str, Any],
    info: PredictionInfo,
    *,
    split: str,
    intervals: Mapping[str, Sequence[float]],
    notes: Sequence[str] = (),
) -> Section:
    """One card a number, with its interval and chance level; ``scores`` are those of one split by unit."""
    units = [unit for unit in ("rows", "windows", "segmental", "videos") if unit in scores]
    cards = [_cards(scores[unit], unit=unit, info=info, intervals=intervals) for unit in units]
    chance = f"Chance (the tick) is {_CHANCE['sets' if TASKS[info.task].of_sets else 'labels']}"
    between = [INTERVALS] if intervals else []
    sentences = [f"{note[0].upper()}{note[1:]}." for note in notes]
    title = f"Scores, {'all splits' if split == ALL_SPLITS else f'split {split}'}"
    return Section(title, [*cards, chance, *between, *sentences])


def evaluators_section(own: Mapping[str, Mapping[str, float]]) -> Section | None:
    """The numbers of evaluators that are plug-ins; None where there are none."""
    rows = [[name, number, f"{value:.4g}"] for name, found in own.items() for number, value in found.items()]
    columns = [("evaluator", ""), ("number", ""), ("value", "number")]
    return Section("Further evaluators", [Table(columns=columns, rows=rows)]) if rows else None


def _unit_text(unit: str, metrics: Mapping[str, Any]) -> str:
    if unit == "segmental":
        return f"Order and extent of segments, {int(metrics['num_videos']):,} videos"
    return f"{unit.capitalize()}, {metrics['num_entries']:,} with a target"


def _cards(
    metrics: Mapping[str, Any], *, unit: str, info: PredictionInfo, intervals: Mapping[str, Sequence[float]]
) -> Cards:
    skipped = {"uniform", "majority", "frame_accuracy"}  # frame accuracy is the top-1 accuracy of rows
    names = [name for name in metrics["chance"] if name in metrics and name not in skipped]
    scale = 100.0 if unit == "segmental" else 1.0
    is_frames = unit != "videos" and TASKS[info.task].is_sequence
    cards = []
    for name in names:
        value, chance = metrics[name] / scale, metrics["chance"][name] / scale
        label = "Frame accuracy" if name == "top1" and is_frames else metric_name(name)
        chart = bar(value, chance=chance, kind="bar" if value > chance else "below", label=label)
        between = intervals.get(f"video_{name}" if unit == "videos" else name)
        interval = "" if between is None else f"{between[0] / scale:.1%} to {between[1] / scale:.1%}, "
        cards.append(Card(name=label, value=f"{value:.1%}", chart=chart, against=f"{interval}chance {chance:.1%}"))
    return Cards(cards, _unit_text(unit, metrics))


def splits_section(scores: Mapping[str, Mapping[str, Any]]) -> Section | None:
    """A table of the splits, when there are several."""
    if len(scores) < 2:
        return None
    columns = _columns(scores)
    owners = [unit for unit, _ in columns]
    table = Table(
        columns=[("Split", ""), *((metric_name(name), "number") for _, name in columns)],
        groups=[(unit.capitalize(), owners.count(unit)) for unit in dict.fromkeys(owners)],
        rows=[[split, *(_number(units, unit, name) for unit, name in columns)] for split, units in scores.items()],
    )
    return Section("Splits", [table])


def _columns(scores: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    wanted = ("top1", "mean_class_accuracy", "macro_f1", "mean_average_precision", *SEGMENTAL[1:])
    units = dict.fromkeys(unit for entry in scores.values() for unit in entry)
    return [
        (unit, name)
        for unit in units
        for name in wanted
        if any(name in entry.get(unit, {}) for entry in scores.values())
    ]


def _number(units: Mapping[str, Any], unit: str, name: str) -> str:
    value = units.get(unit, {}).get(name)
    scale = 100.0 if unit == "segmental" else 1.0
    return UNDEFINED if value is None else f"{value / scale:.1%}"


def classes_section(metrics: Mapping[str, Any], palette: Palette, *, unit: str) -> Section:
    """Precision, recall, F1 and average precision of each class as bars with numbers."""
    per_class = metrics["per_class"]
    rows = []
    for index, name in enumerate(palette.classes):
        measures = [measure(per_class[key][index], label=f"{name}: {title}") for key, title in _MEASURES.items()]
        rows.append([palette.named(index), f"{per_class['support'][index]:,}", *measures])
    columns = [("Class", "class"), ("Targets", "number"), *((title, "measure") for title in _MEASURES.values())]
    return Section(f"Classes, by {unit}", [Table(columns=columns, rows=rows, look="classes")])


def confusion_section(metrics: Mapping[str, Any], classes: Sequence[str], *, unit: str) -> Section:
    """The confusion matrix and the pairs that are confused most."""
    confusion = np.array(metrics["confusion"], dtype=np.int64)
    cut = f" The {MAX_MATRIX_CLASSES} classes with the most targets." if len(classes) > MAX_MATRIX_CLASSES else ""
    text = f"Rows are truth, columns are predictions; colour is the share of the row.{cut}"
    parts = [tag("div", confusion_chart(confusion, classes), class_="scroll"), _confused_pairs(confusion, classes)]
    return Section(f"Confusion of {unit}", [text, *([Pair(parts)] if len(classes) <= 10 else parts)])


def _confused_pairs(confusion: npt.NDArray[np.int64], classes: Sequence[str]) -> Table | str:
    mistakes = confusion * (1 - np.eye(len(classes), dtype=np.int64))
    order = np.argsort(-mistakes, axis=None, kind="stable")[:_MAX_PAIRS]
    pairs = [divmod(int(place), len(classes)) for place in order if mistakes.flat[place]]
    if not pairs:
        return "Nothing is confused."
    rows = []
    for true, predicted in pairs:
        count = confusion[true, predicted]
        rows.append([classes[true], classes[predicted], f"{count:,}", f"{count / confusion[true].sum():.0%}"])
    columns = [("Truth", "class"), ("Taken for", "class"), ("Count", "number"), ("Of the class", "number")]
    return Table(columns=columns, rows=rows, title="Confused most")


def distribution_section(counts: Sequence[int], palette: Palette, *, unit: str) -> Section:
    """How often each class is predicted, where there is no target to compare with."""
    shares = [count / max(sum(counts), 1) for count in counts]
    rows = [
        [palette.named(index), f"{count:,}", measure(share, text=f"{share:.1%}", label=palette.classes[index])]
        for index, (count, share) in enumerate(zip(counts, shares, strict=True))
    ]
    columns = [("Class", "class"), ("Predicted", "number"), (f"Share of {unit}", "measure")]
    text = "None of these videos has a target, so nothing can be scored. This is what was predicted."
    return Section("Predicted labels", [text, Table(columns=columns, rows=rows)])


def training_section(records: Sequence[Mapping[str, Any]]) -> Section | None:
    """Curves of the run's losses and of its validation metrics over epochs; None without records."""
    losses, metrics = _lines(records)
    charts = [
        line_chart(lines, title=title, x_name="epoch")
        for title, lines in (("Loss", losses), ("On validation", metrics))
        if lines
    ]
    return Section("Training", [Pair(charts)]) if charts else None


def _lines(records: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Line], dict[str, Line]]:
    """Losses, and shares on validation: at most four of each, in the order of `_NAMES`."""
    points: dict[str, list[tuple[float, float]]] = {}
    for index, record in enumerate(records):
        x = float(record.get("epoch", index))
        for name, value in record.items():
            if (
                isinstance(value, float)
                and math.isfinite(value)
                and (metric_named(name).is_lower_better or name.startswith("val_"))
            ):
                points.setdefault(name, []).append((x, value))
    losses = {name.replace("_", " "): line for name, line in points.items() if metric_named(name).is_lower_better}
    wanted = ("top1", "macro_f1", "mean_class_accuracy", "mean_average_precision", "micro_f1")
    metrics = {metric_name(name): points[f"val_{name}"] for name in wanted if f"val_{name}" in points}
    return dict(list(losses.items())[:4]), dict(list(metrics.items())[:4])
