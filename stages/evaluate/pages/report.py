"""The report of predictions: scores, the run, and every video over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reelwright.stages.datasets.tasks.registry import TASKS
from reelwright.stages.evaluate.config import EvaluateConfig
from reelwright.stages.evaluate.pages.page import Page, Section
from reelwright.stages.evaluate.pages.palette import Palette
from reelwright.stages.evaluate.pages.summary import (
    classes_section,
    confusion_section,
    distribution_section,
    evaluators_section,
    headline_section,
    splits_section,
    training_section,
)
from reelwright.stages.evaluate.pages.video_cards import VideoCard, video_article
from reelwright.stages.evaluate.scoring import ALL_SPLITS, class_id, main_unit
from reelwright.storage.results.predictions import PredictionInfo


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that is shown."""

    title: str
    info: PredictionInfo
    config: EvaluateConfig
    scores: Mapping[str, Mapping[str, Any]]  # as score_predictions gives them
    predicted_counts: Sequence[int]  # (K,) windows or rows by predicted class
    records: Sequence[Mapping[str, Any]]  # lines of the run's metrics.jsonl
    cards: Sequence[VideoCard]
    num_videos: int  # in the splits, shown or not
    facts: Mapping[str, str]  # name -> value, shown below the title
    embeddings: Section | None = None  # the map of embeddings
    making: Sequence[Section] = ()  # what was left out, and the nodes behind it
    own: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # numbers by evaluator that is a plug-in
    intervals: Mapping[str, Sequence[float]] = field(default_factory=dict)  # (low, high) of headline numbers
    interval_notes: Sequence[str] = ()


def page_of(report: Report) -> Page:
    """What the page says of the scores, the run and each video."""
    palette = Palette(report.info.classes, background=class_id(report.info, report.config.background))
    unit = main_unit(report.info)
    scores = [*_score_sections(report, palette, unit=unit), evaluators_section(report.own)]
    sections = [*scores, report.embeddings, _videos_section(report, palette)]
    traits, threshold = TASKS[report.info.task], report.config.threshold
    return Page(
        title=report.title,
        facts=report.facts,
        sections=[section for section in sections if section is not None],
        articles=[video_article(card, palette, unit=unit, traits=traits, threshold=threshold) for card in report.cards],
        closing=report.making,
        definitions=palette.definitions(),
    )


def _score_sections(report: Report, palette: Palette, *, unit: str) -> list[Section | None]:
    split = ALL_SPLITS if ALL_SPLITS in report.scores else next(iter(report.scores), "")
    chosen = report.scores.get(split, {})
    training = training_section(report.records)
    if not chosen:
        return [distribution_section(report.predicted_counts, palette, unit=unit), training]
    first = unit if unit in chosen else "videos"
    first_section = headline_section(
        chosen, report.info, split=split, intervals=report.intervals, notes=report.interval_notes
    )
    sections = [first_section, splits_section(report.scores)]
    if "confusion" in chosen[first]:
        sections.append(confusion_section(chosen[first], palette.classes, unit=first))
    return [*sections, classes_section(chosen[first], palette, unit=first), training]


def _videos_section(report: Report, palette: Palette) -> Section:
    order = "the ones with the most mistakes first" if report.scores else "the least sure ones first"
    text = f"{len(report.cards)} of {report.num_videos:,} videos, {order}."
    if TASKS[report.info.task].of_sets:
        text += " In each lane the upper half is the predicted probability, the lower half the truth."
    return Section("Videos", [text, palette.legend(range(len(palette.classes)))])
