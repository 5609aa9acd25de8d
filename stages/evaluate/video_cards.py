"""The parts of the report about single videos: thumbnails, ribbons and what was right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reelwright.stages.evaluate.markup import Markup, join, tag, void
from reelwright.stages.evaluate.palette import Palette
from reelwright.stages.evaluate.ribbons import (
    Axis,
    axis_of,
    confidence,
    differences,
    lanes,
    ribbon,
    seconds_text,
    time_axis,
)
from reelwright.stages.evaluate.thumbnails import Thumbnail
from reelwright.stages.evaluate.videos import Timeline, VideoLabels
from reelwright.stages.tasks.registry import TaskTraits
from reelwright.storage.annotations import UNKNOWN


@dataclass(frozen=True, kw_only=True)
class VideoResult:
    """What was predicted for the whole video."""

    label_id: int
    score: float
    target_id: int  # UNKNOWN where there is none


@dataclass(frozen=True, kw_only=True)
class VideoCard:
    """All that is shown of one video."""

    labels: VideoLabels
    timeline: Timeline
    result: VideoResult | None
    duration_seconds: float | None = None
    thumbnails: tuple[Thumbnail, ...] = ()
    note: str = ""  # why there are no thumbnails


def video_article(card: VideoCard, palette: Palette, *, unit: str, traits: TaskTraits, threshold: float) -> Markup:
    """One video: its names, verdict, pictures and ribbons over one time axis."""
    axis = axis_of(card.timeline, card.duration_seconds)
    head = tag("header", tag("h3", card.labels.video_id), _verdict(card, palette, unit=unit, traits=traits))
    rows = [
        *picture_rows(card.thumbnails),
        *_ribbon_rows(card, axis, palette, traits=traits, threshold=threshold),
        *_row("", time_axis(axis)),
    ]
    note = tag("p", card.note, class_="soft") if card.note else None
    return tag("article", head, note, tag("div", *rows, class_="rows"), class_="video")


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
    return tag("span", *parts, class_="verdict soft")


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


def picture_rows(thumbnails: Sequence[Thumbnail]) -> list[Markup]:
    """Pictures side by side with their times; nothing where there are none."""
    if not thumbnails:
        return []
    figures = [
        tag(
            "figure",
            void("img", src=picture.source, alt=f"frame at {seconds_text(picture.time_seconds)}"),
            tag("figcaption", seconds_text(picture.time_seconds)),
        )
        for picture in thumbnails
    ]
    return _row("", tag("div", *figures, class_="thumbnails"))


def _ribbon_rows(
    card: VideoCard, axis: Axis, palette: Palette, *, traits: TaskTraits, threshold: float
) -> list[Markup]:
    timeline = card.timeline
    if traits.of_sets:
        drawn = lanes(timeline, axis=axis, palette=palette, threshold=threshold)
        return [part for index, lane in drawn for part in _row(palette.classes[index], lane)]
    edges = timeline.edges_seconds
    rows = _row("confidence", confidence(timeline, axis=axis))
    predicted = ribbon(timeline.label_ids, edges, axis=axis, palette=palette, name="prediction over time")
    if not card.labels.has_target:
        return [*_row("prediction", predicted), *rows]
    truth = ribbon(timeline.target_ids, edges, axis=axis, palette=palette, name="truth over time")
    return [
        *_row("truth", truth),
        *_row("prediction", predicted),
        *_row("differs", differences(timeline, axis=axis)),
        *rows,
    ]


def _row(label: str, content: Markup) -> list[Markup]:
    return [tag("div", label, class_="label"), content]
