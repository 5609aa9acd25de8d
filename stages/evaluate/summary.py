"""The parts of the report about all videos together: headline scores, splits, classes, confusion, training."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from reelwright.stages.evaluate.charts import MAX_MATRIX_CLASSES, Line, bar, confusion_chart, line_chart
from reelwright.stages.evaluate.markup import Markup, tag
from reelwright.stages.evaluate.palette import Palette
from reelwright.stages.evaluate.scoring import SEGMENTAL, SEQUENCE_TASKS
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
_MEASURES = (("precision", "bar"), ("recall", "bar bar2"), ("f1", "bar bar3"), ("average_precision", "bar bar4"))
_MAX_PAIRS = 8
_LOSS = re.compile(r"(^|_)loss(_|$)")


def metric_name(name: str) -> str:
    """A metric as people call it."""
    return f"Top-{name[3:]} accuracy" if re.fullmatch(r"top\d+", name) else _NAMES.get(name, name)


def headline_section(scores: Mapping[str, Any], info: PredictionInfo, *, split: str) -> Markup:
    """One card a number, with its chance level; ``scores`` are those of one split by unit."""
    groups = []
    for unit in ("rows", "windows", "segmental", "videos"):
        if unit in scores:
            groups += [tag("p", _unit_text(unit, scores[unit]), class_="group"), _cards(scores[unit], unit=unit, info=info)]
    chance = "Chance (the dark tick) is an answer that is always the shares of the classes among the targets."
    return tag("section", tag("h2", f"Scores, {_split_text(split)}"), *groups, tag("p", chance, class_="soft"))


def _unit_text(unit: str, metrics: Mapping[str, Any]) -> str:
    if unit == "segmental":
        return f"Order and extent of segments, {int(metrics['num_videos']):,} videos"
    return f"{unit.capitalize()}, {metrics['num_entries']:,} with a target"


def _cards(metrics: Mapping[str, Any], *, unit: str, info: PredictionInfo) -> Markup:
    skipped = {"uniform", "majority", "frame_accuracy"}  # frame accuracy is the top-1 accuracy of rows
    names = [name for name in metrics["chance"] if name in metrics and name not in skipped]
    scale = 100.0 if unit == "segmental" else 1.0
    is_frames = unit != "videos" and info.task in SEQUENCE_TASKS
    cards = []
    for name in names:
        value, chance = metrics[name] / scale, metrics["chance"][name] / scale
        label = "Frame accuracy (top-1)" if name == "top1" and is_frames else metric_name(name)
        kind = "bar" if value > chance else "bar bar4"
        against = tag("span", f"chance {chance:.1%}", class_="against")
        number = tag("b", f"{value:.1%}")
        cards.append(tag("div", tag("span", label, class_="name"), number, bar(value, chance=chance, kind=kind, label=label), against, class_="score"))
    return tag("div", *cards, class_="cards")


def splits_section(scores: Mapping[str, Mapping[str, Any]]) -> Markup | None:
    """A table of the splits, when there are several."""
    if len(scores) < 2:
        return None
    columns = _columns(scores)
    head = tag("tr", tag("th", "Split"), *[tag("th", f"{unit}: {metric_name(name)}", class_="number") for unit, name in columns])
    rows = [tag("tr", tag("td", split), *[_number_cell(units, unit, name) for unit, name in columns]) for split, units in scores.items()]
    table = tag("table", tag("thead", head), tag("tbody", *rows))
    return tag("section", tag("h2", "Splits"), tag("div", table, class_="scroll"))


def _columns(scores: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    wanted = ("top1", "mean_class_accuracy", "macro_f1", "mean_average_precision", *SEGMENTAL[1:])
    units = dict.fromkeys(unit for entry in scores.values() for unit in entry)
    return [(unit, name) for unit in units for name in wanted if any(name in entry.get(unit, {}) for entry in scores.values())]


def _number_cell(units: Mapping[str, Any], unit: str, name: str) -> Markup:
    value = units.get(unit, {}).get(name)
    scale = 100.0 if unit == "segmental" else 1.0
    return tag("td", "–" if value is None else f"{value / scale:.1%}", class_="number")


def classes_section(metrics: Mapping[str, Any], palette: Palette, *, unit: str) -> Markup:
    """Precision, recall, F1 and average precision of each class as bars with numbers."""
    per_class = metrics["per_class"]
    head = [tag("th", "Class"), tag("th", "Targets", class_="number"), *[tag("th", metric_name(name) if name in _NAMES else name.replace("_", " ").capitalize().replace("F1", "F1")) for name, _ in _MEASURES]]
    rows = []
    for index, name in enumerate(palette.classes):
        measures = [
            tag("td", "–" if value is None else f"{value:.2f}", bar(value, kind=kind, label=f"{name}: {measure}") if value is not None else None, class_="measure")
            for measure, kind in _MEASURES
            for value in [per_class[measure][index]]
        ]
        label = tag("td", palette.swatch(index), " ", name, class_="class")
        rows.append(tag("tr", label, tag("td", f"{per_class['support'][index]:,}", class_="number"), *measures))
    table = tag("table", tag("thead", tag("tr", *head)), tag("tbody", *rows))
    return tag("section", tag("h2", f"Classes, by {unit}"), tag("div", table, class_="scroll"))


def confusion_section(metrics: Mapping[str, Any], classes: Sequence[str], *, unit: str) -> Markup:
    """The confusion matrix and the pairs that are confused most."""
    confusion = np.array(metrics["confusion"], dtype=np.int64)
    cut = f" The {MAX_MATRIX_CLASSES} classes with the most targets." if len(classes) > MAX_MATRIX_CLASSES else ""
    text = tag("p", f"Rows are truth, columns are predictions; colour is the share of the row.{cut}", class_="soft")
    chart = tag("div", confusion_chart(confusion, classes), class_="scroll")
    return tag("section", tag("h2", f"Confusion of {unit}"), text, chart, _confused_pairs(confusion, classes))


def _confused_pairs(confusion: np.ndarray[Any, np.dtype[np.int64]], classes: Sequence[str]) -> Markup | None:
    mistakes = confusion * (1 - np.eye(len(classes), dtype=np.int64))
    order = np.argsort(-mistakes, axis=None, kind="stable")[:_MAX_PAIRS]
    pairs = [divmod(int(place), len(classes)) for place in order if mistakes.flat[place]]
    if not pairs:
        return None
    rows = [
        tag("tr", tag("td", classes[true], class_="class"), tag("td", classes[predicted], class_="class"), tag("td", f"{confusion[true, predicted]:,}", class_="number"), tag("td", f"{confusion[true, predicted] / confusion[true].sum():.0%}", class_="number"))
        for true, predicted in pairs
    ]
    head = tag("tr", tag("th", "Truth"), tag("th", "Taken for"), tag("th", "Count", class_="number"), tag("th", "Of the class", class_="number"))
    return tag("div", tag("p", "Confused most", class_="group"), tag("table", tag("thead", head), tag("tbody", *rows)))


def distribution_section(counts: Sequence[int], palette: Palette, *, unit: str) -> Markup:
    """How often each class is predicted, where there is no target to compare with."""
    total = max(sum(counts), 1)
    rows = [
        tag("tr", tag("td", palette.swatch(index), " ", name, class_="class"), tag("td", f"{counts[index]:,}", class_="number"), tag("td", f"{counts[index] / total:.1%}", bar(counts[index] / total, label=name), class_="measure"))
        for index, name in enumerate(palette.classes)
    ]
    head = tag("tr", tag("th", "Class"), tag("th", "Predicted", class_="number"), tag("th", f"Share of {unit}"))
    note = tag("p", "None of these videos has a target, so nothing can be scored. This is what was predicted.", class_="soft")
    return tag("section", tag("h2", "Predicted labels"), note, tag("table", tag("thead", head), tag("tbody", *rows)))


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
            if isinstance(value, float) and math.isfinite(value) and ("loss" in name or name.startswith("val_")):
                points.setdefault(name, []).append((x, value))
    losses = {name.replace("_", " "): line for name, line in points.items() if _LOSS.search(name)}
    wanted = ("top1", "macro_f1", "mean_class_accuracy", "mean_average_precision", "micro_f1")
    metrics = {metric_name(name): points[f"val_{name}"] for name in wanted if f"val_{name}" in points}
    return dict(list(losses.items())[:4]), dict(list(metrics.items())[:4])
