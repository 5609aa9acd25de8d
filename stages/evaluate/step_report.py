"""The report of completed steps: scores, the delay curve, each step, and a time line of every recording."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from string import Template
from typing import Any

from reelwright.stages.evaluate.charts import UNDEFINED, bar, line_chart
from reelwright.stages.evaluate.frame_source import Pictures
from reelwright.stages.evaluate.markup import Markup, join, tag
from reelwright.stages.evaluate.ribbons import Axis, time_axis
from reelwright.stages.evaluate.scoring import ALL_SPLITS
from reelwright.stages.evaluate.step_lines import legend, step_lanes
from reelwright.stages.evaluate.step_scores import StepVideo, unit_of
from reelwright.stages.evaluate.step_tables import Event, events_of
from reelwright.stages.evaluate.video_cards import picture_rows
from reelwright.storage.steps import StepsInfo

_GROUP_NAMES = {"all": "All recordings", "without_errors": "Without errors", "with_errors": "With errors"}
_HEAD = ("Recordings#", "POS#", "F1#", "Delay#", "True positives#", "False positives#", "Missed#")


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
    embeddings: tuple[Markup, ...] = ()  # the map of embeddings


def render(report: StepReport) -> str:
    """The page as text. All names are escaped; the page's policy forbids scripts and every request."""
    facts = [tag("li", f"{name} ", tag("code", value)) for name, value in report.facts.items()]
    head = tag("header", tag("h1", report.title), tag("ul", *facts, class_="facts"))
    body = join(
        head,
        *_score_parts(report),
        *report.embeddings,
        _videos_head(report),
        *[_article(video, report) for video in report.shown],
    )
    template = Template(_resource("report.html"))
    return template.substitute(title=join(report.title), style=_resource("report.css"), body=body)


def axis_of(video: StepVideo) -> Axis:
    """From 0 to the end of the recording, or to its last step where the end is not known."""
    stop = max([video.duration_seconds or 0.0, *video.truth_seconds, *video.predicted_seconds])
    return Axis(0.0, stop if stop > 0 else 1.0)


def _score_parts(report: StepReport) -> list[Markup]:
    if not report.scores:
        text = "It is not known of any of these recordings which steps were completed, so nothing can be scored."
        return [tag("section", tag("h2", "Scores"), tag("p", text, class_="soft"))]
    split = ALL_SPLITS if ALL_SPLITS in report.scores else next(iter(report.scores))
    chosen = report.scores[split]
    return [
        _headline(chosen["groups"]["all"], split=split),
        _groups(report.scores),
        _curve(chosen["delay_curve"]),
        _steps(chosen["per_step"]),
    ]


def _headline(means: Mapping[str, Any], *, split: str) -> Markup:
    delay = UNDEFINED if means["delay_seconds"] is None else f"{means['delay_seconds']:.2f} s"
    cards = [
        _card("Procedure order similarity (POS)", f"{means['pos']:.3f}", bar(means["pos"], label="POS")),
        _card("F1", f"{means['f1']:.3f}", bar(min(means["f1"], 1.0), label="F1")),
        _card("Mean delay", delay, None),
        _card("Right", f"{means['true_positives']:,}", None),
        _card("False positives", f"{means['false_positives']:,}", None),
        _card("Missed", f"{means['false_negatives']:,}", None),
    ]
    text = (
        f"POS, F1 and delay are means over {means['num_videos']:,} recordings; {means['num_with_delay']:,} of them "
        "have a delay. A step that is recognised before it is done is a false positive, one after it is right however "
        "late."
    )
    title = "Scores, all splits" if split == ALL_SPLITS else f"Scores, split {split}"
    return tag("section", tag("h2", title), tag("div", *cards, class_="cards"), tag("p", text, class_="soft"))


def _card(name: str, value: str, chart: Markup | None) -> Markup:
    return tag("div", tag("span", name, class_="name"), tag("b", value), chart, class_="score")


def _groups(scores: Mapping[str, Any]) -> Markup:
    rows = []
    for split, units in scores.items():
        for group, means in units["groups"].items():
            if means["num_videos"]:
                name = _GROUP_NAMES[group] if len(scores) == 1 else f"{split}: {_GROUP_NAMES[group].lower()}"
                rows.append(tag("tr", tag("td", name), *_mean_cells(means)))
    text = "A recording has errors when an expected step is missing or a part was put on wrongly."
    table = tag("table", _head("", *_HEAD), tag("tbody", *rows))
    return tag(
        "section",
        tag("h2", "With and without errors"),
        tag("div", table, class_="scroll"),
        tag("p", text, class_="soft"),
    )


def _mean_cells(means: Mapping[str, Any]) -> list[Markup]:
    delay = UNDEFINED if means["delay_seconds"] is None else f"{means['delay_seconds']:.2f} s"
    counts = (means[name] for name in ("true_positives", "false_positives", "false_negatives"))
    texts = [
        f"{means['num_videos']:,}",
        f"{means['pos']:.3f}",
        f"{means['f1']:.3f}",
        delay,
        *[f"{n:,}" for n in counts],
    ]
    return [tag("td", text, class_="number") for text in texts]


def _curve(curve: Mapping[str, Sequence[float]]) -> Markup:
    lines = {
        "of all true steps": _stairs(curve["delay_seconds"], curve["percent_of_all"]),
        "of those recognised exactly once": _stairs(curve["delay_seconds"], curve["percent_of_recognised_once"]),
    }
    chart = line_chart(lines, title="Percent of steps observed", x_name="seconds after completion")
    text = "A step that is recognised too early counts as not observed."
    return tag("section", tag("h2", "How soon steps are observed"), chart, tag("p", text, class_="soft"))


def _stairs(at: Sequence[float], percent: Sequence[float]) -> list[tuple[float, float]]:
    """Points of a line that rises at each delay and is level between them."""
    level = list(zip(at[1:], percent, strict=False))
    risen = list(zip(at, percent, strict=True))
    return [point for pair in zip(risen, level, strict=False) for point in pair] + risen[-1:]


def _steps(per_step: Mapping[str, Mapping[str, Any]]) -> Markup:
    rows = []
    for name, row in per_step.items():
        counts = ("num_true", "num_predicted", "true_positives", "false_positives", "false_negatives")
        delay = UNDEFINED if row["delay_seconds"] is None else f"{row['delay_seconds']:.2f} s"
        f1 = min(row["f1"], 1.0)
        rows.append(
            tag(
                "tr",
                tag("td", tag("span", name), class_="class"),
                *[tag("td", f"{row[key]:,}", class_="number") for key in counts],
                tag("td", delay, class_="number"),
                tag("td", f"{row['f1']:.2f}", bar(f1, label=f"{name}: F1"), class_="measure"),
            )
        )
    head = _head("Step", "Done#", "Recognised#", "Right#", "False#", "Missed#", "Delay#", "F1")
    return tag("section", tag("h2", "Steps"), tag("div", tag("table", head, tag("tbody", *rows)), class_="scroll"))


def _head(*names: str) -> Markup:
    cells = [tag("th", name.removesuffix("#"), class_="number" if name.endswith("#") else None) for name in names]
    return tag("thead", tag("tr", *cells))


def _videos_head(report: StepReport) -> Markup:
    text = f"{len(report.shown):,} of {report.num_videos:,} recordings, the ones with the lowest F1 first."
    return tag("section", tag("h2", "Recordings"), tag("p", text, class_="soft"), legend())


def _article(video: StepVideo, report: StepReport) -> Markup:
    axis = axis_of(video)
    known = video.performance is not None
    events = events_of(video) if known else _unjudged(video)
    found = report.pictures.get(video.video_id, Pictures())
    rows = picture_rows(found.thumbnails)
    for step, lane in step_lanes(events, axis=axis):
        rows += [tag("div", report.info.step_names[step], class_="label"), lane]
    rows += [tag("div", "", class_="label"), time_axis(axis)]
    head = tag("header", tag("h3", video.video_id), _verdict(video, report.info))
    notes = [found.note, "" if events else "No step was completed or recognised."]
    told = [tag("p", note, class_="soft") for note in notes if note]
    if video.video_id in report.films:
        link = tag("a", "video with these steps written below it", href=report.films[video.video_id])
        told.append(tag("p", link, class_="soft"))
    return tag("article", head, *told, tag("div", *rows, class_="rows step-rows"), class_="video")


def _unjudged(video: StepVideo) -> list[Event]:
    """What was recognised where it is not known what was done."""
    pairs = zip(video.predicted, video.predicted_seconds, strict=True)
    return [Event(event.step, "unknown", None, seconds) for event, seconds in pairs]


def _verdict(video: StepVideo, info: StepsInfo) -> Markup:
    found = video.performance
    head = f"{video.split} · {video.procedure} · "
    if found is None:
        return tag("span", f"{head}{len(video.predicted)} recognised, truth not known", class_="verdict soft")
    delay = "no delay" if not found.delays or found.delay is None else f"delay {found.delay / unit_of(info):.2f} s"
    errors = " · has errors" if video.has_errors else ""
    return tag("span", f"{head}POS {found.pos:.2f} · F1 {found.f1:.2f} · {delay}{errors}", class_="verdict soft")


def _resource(name: str) -> str:
    return (files("reelwright.stages.evaluate") / name).read_text(encoding="utf-8")
