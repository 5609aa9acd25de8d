"""The parts of the report about all videos together: headline scores, splits, classes, confusion, training."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from reelwright.models.metric import metric_named
from reelwright.stages.evaluate.charts import MAX_MATRIX_CLASSES, UNDEFINED, Line, bar, confusion_chart, line_chart
from reelwright.stages.evaluate.markup import Markup, tag
from reelwright.stages.evaluate.palette import Palette
from reelwright.stages.evaluate.scoring import ALL_SPLITS, SEGMENTAL
from reelwright.stages.tasks.registry import TASKS
from reelwright.storage.predictions import PredictionInfo

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


def metric_name(name: str) -> str:
    """A metric as people call it."""
    return f"Top-{name[3:]} accuracy" if re.fullmatch(r"top\d+", name) else _NAMES.get(name, name)


def headline_section(scores: Mapping[str, Any], info: PredictionInfo, *, split: str) -> Markup:
    """One card a number, with its chance level; ``scores`` are those of one split by unit."""
    groups = []
    for unit in ("rows", "windows", "segmental", "videos"):
        if unit in scores:
            groups += [
                tag("p", _unit_text(unit, scores[unit]), class_="group"),
                _cards(scores[unit], unit=unit, info=info),
            ]
    chance = f"Chance (the tick) is {_CHANCE['sets' if TASKS[info.task].of_sets else 'labels']}"
    return tag(
        "section",
        tag("h2", f"Scores, {'all splits' if split == ALL_SPLITS else f'split {split}'}"),
        *groups,
        tag("p", chance, class_="soft"),
    )


def _unit_text(unit: str, metrics: Mapping[str, Any]) -> str:
    if unit == "segmental":
        return f"Order and extent of segments, {int(metrics['num_videos']):,} videos"
    return f"{unit.capitalize()}, {metrics['num_entries']:,} with a target"


def _cards(metrics: Mapping[str, Any], *, unit: str, info: PredictionInfo) -> Markup:
    skipped = {"uniform", "majority", "frame_accuracy"}  # frame accuracy is the top-1 accuracy of rows
    names = [name for name in metrics["chance"] if name in metrics and name not in skipped]
    scale = 100.0 if unit == "segmental" else 1.0
    is_frames = unit != "videos" and TASKS[info.task].is_sequence
    cards = []
    for name in names:
        value, chance = metrics[name] / scale, metrics["chance"][name] / scale
        label = "Frame accuracy" if name == "top1" and is_frames else metric_name(name)
        kind = "bar" if value > chance else "below"
        against = tag("span", f"chance {chance:.1%}", class_="against")
        number = tag("b", f"{value:.1%}")
        cards.append(
            tag(
                "div",
                tag("span", label, class_="name"),
                number,
                bar(value, chance=chance, kind=kind, label=label),
                against,
                class_="score",
            )
        )
    return tag("div", *cards, class_="cards")


def splits_section(scores: Mapping[str, Mapping[str, Any]]) -> Markup | None:
    """A table of the splits, when there are several."""
    if len(scores) < 2:
        return None
    columns = _columns(scores)
    groups = [
        tag("th", unit.capitalize(), colspan=sum(owner == unit for owner, _ in columns), class_="number")
        for unit in dict.fromkeys(unit for unit, _ in columns)
    ]
    names = [tag("th", metric_name(name), class_="number") for _, name in columns]
    rows = [
        tag("tr", tag("td", split), *[_number_cell(units, unit, name) for unit, name in columns])
        for split, units in scores.items()
    ]
    head = tag("thead", tag("tr", tag("th"), *groups), tag("tr", tag("th", "Split"), *names))
    return tag("section", tag("h2", "Splits"), tag("div", tag("table", head, tag("tbody", *rows)), class_="scroll"))


def _columns(scores: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    wanted = ("top1", "mean_class_accuracy", "macro_f1", "mean_average_precision", *SEGMENTAL[1:])
    units = dict.fromkeys(unit for entry in scores.values() for unit in entry)
    return [
        (unit, name)
        for unit in units
        for name in wanted
        if any(name in entry.get(unit, {}) for entry in scores.values())
    ]


def _number_cell(units: Mapping[str, Any], unit: str, name: str) -> Markup:
    value = units.get(unit, {}).get(name)
    scale = 100.0 if unit == "segmental" else 1.0
    return tag("td", UNDEFINED if value is None else f"{value / scale:.1%}", class_="number")


def classes_section(metrics: Mapping[str, Any], palette: Palette, *, unit: str) -> Markup:
    """Precision, recall, F1 and average precision of each class as bars with numbers."""
    per_class = metrics["per_class"]
    rows = []
    for index, name in enumerate(palette.classes):
        measures = [_measure_cell(per_class[key][index], label=f"{name}: {title}") for key, title in _MEASURES.items()]
        support = tag("td", f"{per_class['support'][index]:,}", class_="number")
        rows.append(tag("tr", _class_cell(palette, index), support, *measures))
    head = _head("Class", "Targets#", *_MEASURES.values())
    table = tag("table", head, tag("tbody", *rows), class_="classes")
    return tag("section", tag("h2", f"Classes, by {unit}"), tag("div", table, class_="scroll"))


def _head(*names: str) -> Markup:
    """A table's head; a name that ends with # stands above numbers."""
    cells = [tag("th", name.removesuffix("#"), class_="number" if name.endswith("#") else None) for name in names]
    return tag("thead", tag("tr", *cells))


def _class_cell(palette: Palette, index: int) -> Markup:
    return tag("td", tag("span", palette.swatch(index), tag("span", palette.classes[index])), class_="class")


def _measure_cell(value: float | None, *, label: str) -> Markup:
    if value is None:
        return tag("td", tag("span", UNDEFINED, title="undefined: nothing to divide by"), class_="measure soft")
    return tag("td", f"{value:.2f}", bar(value, label=label), class_="measure")


def confusion_section(metrics: Mapping[str, Any], classes: Sequence[str], *, unit: str) -> Markup:
    """The confusion matrix and the pairs that are confused most."""
    confusion = np.array(metrics["confusion"], dtype=np.int64)
    cut = f" The {MAX_MATRIX_CLASSES} classes with the most targets." if len(classes) > MAX_MATRIX_CLASSES else ""
    text = tag("p", f"Rows are truth, columns are predictions; colour is the share of the row.{cut}", class_="soft")
    chart = tag("div", confusion_chart(confusion, classes), class_="scroll")
    both = tag("div", chart, _confused_pairs(confusion, classes), class_="pair" if len(classes) <= 10 else None)
    return tag("section", tag("h2", f"Confusion of {unit}"), text, both)


def _confused_pairs(confusion: npt.NDArray[np.int64], classes: Sequence[str]) -> Markup:
    mistakes = confusion * (1 - np.eye(len(classes), dtype=np.int64))
    order = np.argsort(-mistakes, axis=None, kind="stable")[:_MAX_PAIRS]
    pairs = [divmod(int(place), len(classes)) for place in order if mistakes.flat[place]]
    if not pairs:
        return tag("p", "Nothing is confused.", class_="soft")
    rows = [
        tag(
            "tr",
            tag("td", classes[true], class_="class"),
            tag("td", classes[predicted], class_="class"),
            tag("td", f"{confusion[true, predicted]:,}", class_="number"),
            tag("td", f"{confusion[true, predicted] / confusion[true].sum():.0%}", class_="number"),
        )
        for true, predicted in pairs
    ]
    table = tag("table", _head("Truth", "Taken for", "Count#", "Of the class#"), tag("tbody", *rows))
    return tag("div", tag("p", "Confused most", class_="group"), table, class_="scroll")


def distribution_section(counts: Sequence[int], palette: Palette, *, unit: str) -> Markup:
    """How often each class is predicted, where there is no target to compare with."""
    total = max(sum(counts), 1)
    rows = [
        tag(
            "tr",
            _class_cell(palette, index),
            tag("td", f"{count:,}", class_="number"),
            tag("td", f"{count / total:.1%}", bar(count / total, label=palette.classes[index]), class_="measure"),
        )
        for index, count in enumerate(counts)
    ]
    head = _head("Class", "Predicted#", f"Share of {unit}")
    note = tag(
        "p", "None of these videos has a target, so nothing can be scored. This is what was predicted.", class_="soft"
    )
    return tag("section", tag("h2", "Predicted labels"), note, tag("table", head, tag("tbody", *rows)))


def training_section(records: Sequence[Mapping[str, Any]]) -> Markup | None:
    """Curves of the run's losses and of its validation metrics over epochs; None without records."""
    losses, metrics = _lines(records)
    charts = [
        line_chart(lines, title=title, x_name="epoch")
        for title, lines in (("Loss", losses), ("On validation", metrics))
        if lines
    ]
    if not charts:
        return None
    return tag("section", tag("h2", "Training"), tag("div", *charts, class_="pair"))


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
