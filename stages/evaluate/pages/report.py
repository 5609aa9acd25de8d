"""The report of predictions: scores, the run, and every video over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from reelwright.stages.datasets.tasks.registry import TASKS, TaskTraits
from reelwright.stages.evaluate.config import EvaluateConfig
from reelwright.stages.evaluate.pages.frame_source import Pictures
from reelwright.stages.evaluate.pages.markup import join, tag
from reelwright.stages.evaluate.pages.page import Article, Page, Section
from reelwright.stages.evaluate.pages.palette import Palette
from reelwright.stages.evaluate.pages.ribbons import (
    Axis,
    axis_of,
    confidence,
    differences,
    lanes,
    ribbon,
    time_axis,
)
from reelwright.stages.evaluate.pages.summary import (
    classes_section,
    confusion_section,
    distribution_section,
    evaluators_section,
    headline_section,
    splits_section,
    training_section,
)
from reelwright.stages.evaluate.scoring import ALL_SPLITS, class_id, main_unit
from reelwright.stages.evaluate.videos import Timeline, VideoLabels, VideoResult
from reelwright.storage.results.predictions import PredictionInfo
from reelwright.storage.tables.annotations import UNKNOWN


@dataclass(frozen=True, kw_only=True)
class VideoCard:
    """All that is shown of one video."""

    labels: VideoLabels
    timeline: Timeline
    result: VideoResult | None
    duration_seconds: float | None
    pictures: Pictures
    address: str  # of the file, where a browser can open it


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
    provenance: Sequence[Section] = ()  # what was left out, and the nodes behind it
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
        articles=[_article(card, palette, unit=unit, traits=traits, threshold=threshold) for card in report.cards],
        closing=report.provenance,
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


def _article(card: VideoCard, palette: Palette, *, unit: str, traits: TaskTraits, threshold: float) -> Article:
    """One video: its names, verdict, pictures and ribbons over one time axis."""
    axis = axis_of(card.timeline, card.duration_seconds)
    return Article(
        title=card.labels.video_id,
        verdict=_verdict(card, palette, unit=unit, traits=traits),
        notes=[card.pictures.note] if card.pictures.note else [],
        pictures=card.pictures.thumbnails,
        address=card.address,
        rows=[*_ribbon_rows(card, axis, palette, traits=traits, threshold=threshold), ("", time_axis(axis))],
    )


def _verdict(card: VideoCard, palette: Palette, *, unit: str, traits: TaskTraits) -> Markup:
    parts: list[str | Markup] = [f"{card.labels.split} · "]
    if card.result is not None and not traits.of_sets:
        parts.append(_result_text(card.result, palette, traits=traits))
    number = f"{len(card.labels.label_ids):,} {unit}"
    if card.labels.quality is None:
        parts.append(f"{number}, no target")
    else:
        share = f"{card.labels.quality:.0%}"
        parts.append(f"micro F1 {share}, {number}" if traits.of_sets else f"{share} of {number} right")
    return join(*parts)


def _result_text(result: VideoResult, palette: Palette, *, traits: TaskTraits) -> Markup:
    """The verdict on the whole video; nothing where the task has no label of a video."""
    if result.target_id == UNKNOWN and traits.is_sequence:
        return join()
    answer = f"video: {palette.classes[result.label_id]} ({result.score:.2f})"
    if result.target_id == UNKNOWN:
        return join(f"{answer} · ")
    if result.target_id == result.label_id:
        return join(f"{answer} ", tag("span", "✓ right", class_="right"), " · ")
    return join(f"{answer} ", tag("span", f"✗ truth: {palette.classes[result.target_id]}", class_="wrong-word"), " · ")


def _ribbon_rows(
    card: VideoCard, axis: Axis, palette: Palette, *, traits: TaskTraits, threshold: float
) -> list[tuple[str, Markup]]:
    timeline = card.timeline
    if traits.of_sets:
        drawn = lanes(timeline, axis=axis, palette=palette, threshold=threshold)
        return [(palette.classes[index], lane) for index, lane in drawn]
    edges = timeline.edges_seconds
    predicted = ribbon(timeline.label_ids, edges, axis=axis, palette=palette, name="prediction over time")
    rows = [("prediction", predicted), ("confidence", confidence(timeline, axis=axis))]
    if not card.labels.has_target:
        return rows
    truth = ribbon(timeline.target_ids, edges, axis=axis, palette=palette, name="truth over time")
    return [("truth", truth), rows[0], ("differs", differences(timeline, axis=axis)), rows[1]]
