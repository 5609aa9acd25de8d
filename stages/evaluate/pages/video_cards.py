"""The parts of the report about single videos: thumbnails, ribbons and what was right."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from reelwright.stages.datasets.tasks.registry import TaskTraits
from reelwright.stages.evaluate.pages.markup import join, tag
from reelwright.stages.evaluate.pages.page import Article
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
from reelwright.stages.evaluate.pages.thumbnails import Thumbnail
from reelwright.stages.evaluate.videos import Timeline, VideoLabels, VideoResult
from reelwright.storage.tables.annotations import UNKNOWN


@dataclass(frozen=True, kw_only=True)
class VideoCard:
    """All that is shown of one video."""

    labels: VideoLabels
    timeline: Timeline
    result: VideoResult | None
    duration_seconds: float | None = None
    thumbnails: tuple[Thumbnail, ...] = ()
    note: str = ""  # why there are no thumbnails
    address: str = ""  # of the file, where a browser can open it


def video_article(card: VideoCard, palette: Palette, *, unit: str, traits: TaskTraits, threshold: float) -> Article:
    """One video: its names, verdict, pictures and ribbons over one time axis."""
    axis = axis_of(card.timeline, card.duration_seconds)
    return Article(
        title=card.labels.video_id,
        verdict=_verdict(card, palette, unit=unit, traits=traits),
        notes=[card.note] if card.note else [],
        pictures=card.thumbnails,
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
    said = f"video: {palette.classes[result.label_id]} ({result.score:.2f})"
    if result.target_id == UNKNOWN:
        return join(f"{said} · ")
    if result.target_id == result.label_id:
        return join(f"{said} ", tag("span", "✓ right", class_="right"), " · ")
    return join(f"{said} ", tag("span", f"✗ truth: {palette.classes[result.target_id]}", class_="wrong-word"), " · ")


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
