"""The report of completed steps: scores, the delay curve, each step, and a time line of every recording."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reelwright.stages.evaluate.pages.charts import UNDEFINED, bar, line_chart, measure
from reelwright.stages.evaluate.pages.frame_source import Pictures
from reelwright.stages.evaluate.pages.markup import tag
from reelwright.stages.evaluate.pages.page import Article, Card, Cards, Page, Section, Table
from reelwright.stages.evaluate.pages.ribbons import Axis, time_axis
from reelwright.stages.evaluate.pages.step_lines import legend, step_lanes
from reelwright.stages.evaluate.pages.summary import INTERVALS
from reelwright.stages.evaluate.scoring import ALL_SPLITS
from reelwright.stages.evaluate.step_scores import StepVideo, events_of, unit_of
from reelwright.storage.results.steps import StepsInfo

_GROUP_NAMES = {"all": "All recordings", "without_errors": "Without errors", "with_errors": "With errors"}


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """All that is shown."""

    title: str
    info: StepsInfo
    scores: Mapping[str, Any]  # as score_steps gives them
    shown: Sequence[StepVideo]  # recordings with a time line, in this order
    num_videos: int
    pictures: Mapping[str, Pictures]  # by video_id
    facts: Mapping[str, str]
    films: Mapping[str, str] = field(default_factory=dict)  # by video_id, places beside the page
    embeddings: Section | None = None  # the map of embeddings
    intervals: Mapping[str, Sequence[float]] = field(default_factory=dict)  # (low, high) of headline numbers
    provenance: Sequence[Section] = ()  # what was left out, and the nodes behind it


def page_of(report: StepReport) -> Page:
    """What the page says of the scores, each step and each recording."""
    text = f"{len(report.shown):,} of {report.num_videos:,} recordings, the ones with the lowest F1 first."
    sections = [*_score_sections(report), report.embeddings, Section("Recordings", [text, legend()])]
    return Page(
        title=report.title,
        facts=report.facts,
        sections=[section for section in sections if section is not None],
        articles=[_article(video, report) for video in report.shown],
        closing=report.provenance,
    )


def axis_of(video: StepVideo) -> Axis:
    """From 0 to the end of the recording, or to its last step where the end is not known."""
    stop = max([video.duration_seconds or 0.0, *video.truth_seconds, *video.predicted_seconds])
    return Axis(0.0, stop if stop > 0 else 1.0)


def _score_sections(report: StepReport) -> list[Section]:
    if not report.scores:
        text = "It is not known of any of these recordings which steps were completed, so nothing can be scored."
        return [Section("Scores", [text])]
    split = ALL_SPLITS if ALL_SPLITS in report.scores else next(iter(report.scores))
    chosen = report.scores[split]
    return [
        _headline(chosen["groups"]["all"], split=split, intervals=report.intervals),
        _groups(report.scores),
        _curve(chosen["delay_curve"]),
        _steps(chosen["per_step"]),
    ]


def _headline(means: Mapping[str, Any], *, split: str, intervals: Mapping[str, Sequence[float]]) -> Section:
    between = {name: f"{low:.3g} to {high:.3g}" for name, (low, high) in intervals.items()}
    cards = [
        *(
            Card(name=name, value=f"{value:.3f}", chart=bar(min(value, 1.0), label=label), against=between.get(key, ""))
            for name, label, key, value in (
                ("Procedure order similarity (POS)", "POS", "step_pos", means["pos"]),
                ("F1", "F1", "step_f1", means["f1"]),
            )
        ),
        Card(name="Mean delay", value=_delay(means), against=between.get("step_delay_seconds", "")),
        Card(name="Right", value=f"{means['true_positives']:,}"),
        Card(name="False positives", value=f"{means['false_positives']:,}"),
        Card(name="Missed", value=f"{means['false_negatives']:,}"),
    ]
    text = (
        f"POS, F1 and delay are means over {means['num_videos']:,} recordings; {means['num_with_delay']:,} of them "
        "have a delay. A step that is recognised before it is done is a false positive, one after it is right however "
        "late."
    )
    title = "Scores, all splits" if split == ALL_SPLITS else f"Scores, split {split}"
    return Section(title, [Cards(cards), text, *([INTERVALS] if intervals else [])])


def _groups(scores: Mapping[str, Any]) -> Section:
    rows = []
    for split, units in scores.items():
        for group, means in units["groups"].items():
            if means["num_videos"]:
                name = _GROUP_NAMES[group] if len(scores) == 1 else f"{split}: {_GROUP_NAMES[group].lower()}"
                counts = [f"{means[key]:,}" for key in ("true_positives", "false_positives", "false_negatives")]
                scored = [f"{means['num_videos']:,}", f"{means['pos']:.3f}", f"{means['f1']:.3f}", _delay(means)]
                rows.append([name, *scored, *counts])
    names = ("Recordings", "POS", "F1", "Delay", "True positives", "False positives", "Missed")
    table = Table(columns=[("", ""), *((name, "number") for name in names)], rows=rows)
    text = "A recording has errors when an expected step is missing or a part was put on wrongly."
    return Section("With and without errors", [table, text])


def _delay(means: Mapping[str, Any]) -> str:
    return UNDEFINED if means["delay_seconds"] is None else f"{means['delay_seconds']:.2f} s"


def _curve(curve: Mapping[str, Sequence[float]]) -> Section:
    lines = {
        "of all true steps": _stairs(curve["delay_seconds"], curve["percent_of_all"]),
        "of those recognised exactly once": _stairs(curve["delay_seconds"], curve["percent_of_recognised_once"]),
    }
    chart = line_chart(lines, title="Percent of steps observed", x_name="seconds after completion")
    return Section(
        "How soon steps are observed", [chart, "A step that is recognised too early counts as not observed."]
    )


def _stairs(at: Sequence[float], percent: Sequence[float]) -> list[tuple[float, float]]:
    """Points of a line that rises at each delay and is level between them."""
    level = list(zip(at[1:], percent, strict=False))
    risen = list(zip(at, percent, strict=True))
    return [point for pair in zip(risen, level, strict=False) for point in pair] + risen[-1:]


def _steps(per_step: Mapping[str, Mapping[str, Any]]) -> Section:
    counts = ("num_true", "num_predicted", "true_positives", "false_positives", "false_negatives")
    rows = []
    for name, row in per_step.items():
        f1 = measure(min(row["f1"], 1.0), text=f"{row['f1']:.2f}", label=f"{name}: F1")
        rows.append([tag("span", name), *(f"{row[key]:,}" for key in counts), _delay(row), f1])
    numbers = ("Done", "Recognised", "Right", "False", "Missed", "Delay")
    columns = [("Step", "class"), *((name, "number") for name in numbers), ("F1", "measure")]
    return Section("Steps", [Table(columns=columns, rows=rows)])


def _article(video: StepVideo, report: StepReport) -> Article:
    axis = axis_of(video)
    events = events_of(video)
    found = report.pictures.get(video.video_id, Pictures())
    notes = [found.note, "" if events else "No step was completed or recognised."]
    if video.video_id in report.films:
        notes.append(tag("a", "video with these steps written below it", href=report.films[video.video_id]))
    lanes = [(report.info.step_names[step], lane) for step, lane in step_lanes(events, axis=axis)]
    return Article(
        title=video.video_id,
        verdict=_verdict(video, report.info),
        notes=[note for note in notes if note],
        pictures=found.thumbnails,
        rows=[*lanes, ("", time_axis(axis))],
        look="step-rows",
    )


def _verdict(video: StepVideo, info: StepsInfo) -> str:
    found = video.performance
    head = f"{video.split} · {video.procedure} · "
    if found is None:
        return f"{head}{len(video.predicted)} recognised, truth not known"
    delay = "no delay" if not found.delays or found.delay is None else f"delay {found.delay / unit_of(info):.2f} s"
    errors = " · has errors" if video.has_errors else ""
    return f"{head}POS {found.pos:.2f} · F1 {found.f1:.2f} · {delay}{errors}"
