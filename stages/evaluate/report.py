"""The self-contained report: one HTML page without scripts, fonts or anything from a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from string import Template
from typing import Any

from reelwright.stages.evaluate.config import EvaluateConfig
from reelwright.stages.evaluate.markup import Markup, join, tag
from reelwright.stages.evaluate.palette import Palette
from reelwright.stages.evaluate.scoring import ALL_SPLITS, class_id, main_unit
from reelwright.stages.evaluate.summary import (
    classes_section,
    confusion_section,
    distribution_section,
    headline_section,
    splits_section,
    training_section,
)
from reelwright.stages.evaluate.video_cards import VideoCard, video_article
from reelwright.stages.tasks.registry import TASKS
from reelwright.storage.predictions import PredictionInfo


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
    notes: Sequence[str] = ()
    embeddings: tuple[Markup, ...] = ()  # the map of embeddings


def render(report: Report) -> str:
    """The page as text. All names are escaped; the page's policy forbids scripts and every request."""
    palette = Palette(report.info.classes, background=class_id(report.info, report.config.background))
    body = join(
        palette.definitions(),
        _head(report),
        *_score_parts(report, palette),
        *report.embeddings,
        *_video_parts(report, palette),
    )
    template = Template(_resource("report.html"))
    return template.substitute(title=join(report.title), style=_resource("report.css"), body=body)


def _head(report: Report) -> Markup:
    facts = [tag("li", f"{name} ", tag("code", value)) for name, value in report.facts.items()]
    notes = [tag("li", note) for note in report.notes]
    listed = tag("ul", *notes, class_="notes") if notes else None
    return tag("header", tag("h1", report.title), tag("ul", *facts, class_="facts"), listed)


def _score_parts(report: Report, palette: Palette) -> list[Markup | None]:
    unit = main_unit(report.info)
    split = ALL_SPLITS if ALL_SPLITS in report.scores else next(iter(report.scores), "")
    chosen = report.scores.get(split, {})
    training = training_section(report.records)
    if not chosen:
        return [distribution_section(report.predicted_counts, palette, unit=unit), training]
    first = unit if unit in chosen else "videos"
    parts = [headline_section(chosen, report.info, split=split), splits_section(report.scores)]
    if "confusion" in chosen[first]:
        parts.append(confusion_section(chosen[first], palette.classes, unit=first))
    return [*parts, classes_section(chosen[first], palette, unit=first), training]


def _video_parts(report: Report, palette: Palette) -> list[Markup]:
    info = report.info
    order = "the ones with the most mistakes first" if report.scores else "the least sure ones first"
    text = f"{len(report.cards)} of {report.num_videos:,} videos, {order}."
    traits = TASKS[info.task]
    if traits.of_sets:
        text += " In each lane the upper half is the predicted probability, the lower half the truth."
    legend = palette.legend(range(len(palette.classes)))
    head = tag("section", tag("h2", "Videos"), tag("p", text, class_="soft"), legend)
    unit = main_unit(info)
    threshold = report.config.threshold
    articles = [video_article(card, palette, unit=unit, traits=traits, threshold=threshold) for card in report.cards]
    return [head, *articles]


def _resource(name: str) -> str:
    return (files("reelwright.stages.evaluate") / name).read_text(encoding="utf-8")
