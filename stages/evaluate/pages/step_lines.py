"""One recording's steps over time as SVG: a lane a step, what was true, what was recognised, and the delay between."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from reelwright.stages.evaluate.pages.markup import figure, tag
from reelwright.stages.evaluate.pages.ribbons import Axis, seconds_text
from reelwright.stages.evaluate.step_scores import EARLY, EXTRA, MISSED, RIGHT, Event

_LANE_PIXELS = 22
_MIDDLE = _LANE_PIXELS / 2
_TEXT_PIXELS = 12
_ROOM = 0.12  # share of the axis that words need
LEGEND = (
    (RIGHT, "recognised, with its delay"),
    (EARLY, "recognised too early"),
    (MISSED, "missed"),
    (EXTRA, "recognised, but not done"),
)


def step_lanes(events: Sequence[Event], *, axis: Axis) -> list[tuple[int, Markup]]:
    """(step, lane) of every step that occurs, by the time of its first event."""
    lanes: dict[int, list[Event]] = {}
    for event in events:
        lanes.setdefault(event.step, []).append(event)
    return [(step, _lane(own, axis=axis)) for step, own in lanes.items()]


def legend() -> Markup:
    """What the marks mean."""
    axis = Axis(0.0, 1.0)
    samples = {
        RIGHT: Event(0, RIGHT, 0.15, 0.8),
        EARLY: Event(0, EARLY, 0.85, 0.2),
        MISSED: Event(0, MISSED, 0.5, None),
        EXTRA: Event(0, EXTRA, None, 0.5),
    }
    entries = []
    for verdict, text in LEGEND:
        sample = tag("svg", *_marks(samples[verdict], axis=axis), width=52, height=_LANE_PIXELS, aria_hidden="true")
        entries.append(tag("li", sample, text))
    return tag("ul", tag("li", tag("b", "┃"), "truth"), *entries, class_="legend")


def _lane(events: Sequence[Event], *, axis: Axis) -> Markup:
    marks = [mark for event in events for mark in _marks(event, axis=axis)]
    marks += [_words(event, axis=axis) for event in events if _has_room(event, events, axis=axis)]
    message = "; ".join(_event_text(event) for event in events)
    ground = tag("rect", width="100%", height=_LANE_PIXELS, rx=5, class_="track")
    return figure(message, ground, *marks, width="100%", height=_LANE_PIXELS, class_="strip steps")


def _marks(event: Event, *, axis: Axis) -> list[Markup]:
    """Truth is an upright line, what was recognised a dot, or a cross where nothing was done; a bar joins the two."""
    true, seen = event.true_seconds, event.seconds
    marks = []
    if true is not None and seen is not None:
        left, right = min(true, seen), max(true, seen)
        place, width = axis.percent(left), axis.width(left, right)
        marks.append(tag("rect", x=place, width=width, y=_MIDDLE - 3, height=6, class_=f"bar-{event.verdict}"))
    if true is not None:
        x = axis.percent(true)
        marks.append(tag("line", x1=x, x2=x, y1=2, y2=_LANE_PIXELS - 2, class_=f"true true-{event.verdict}"))
    if seen is not None and event.verdict == EXTRA:
        marks.append(tag("text", "✕", x=axis.percent(seen), y=_MIDDLE + 5, text_anchor="middle", class_="cross"))
    elif seen is not None:
        marks.append(tag("circle", cx=axis.percent(seen), cy=_MIDDLE, r=5, class_=f"seen seen-{event.verdict}"))
    return marks


def _times(event: Event) -> list[float]:
    return [time for time in (event.true_seconds, event.seconds) if time is not None]


def _is_late(event: Event, *, axis: Axis) -> bool:
    return axis.share(max(_times(event))) > 1 - _ROOM


def _has_room(event: Event, events: Sequence[Event], *, axis: Axis) -> bool:
    """Whether words beside the event lie on no mark of another; a cross needs none."""
    times, is_late = _times(event), _is_late(event, axis=axis)
    left = axis.share(min(times)) - _ROOM if is_late else axis.share(max(times))
    others = (axis.share(time) for other in events if other is not event for time in _times(other))
    return event.verdict != EXTRA and not any(left - 0.01 <= share <= left + _ROOM for share in others)


def _words(event: Event, *, axis: Axis) -> Markup:
    """The delay, or what was wrong, beside the later mark; before the earlier one near the end of the axis."""
    times = _times(event)
    at, shift, anchor = (min(times), -9, "end") if _is_late(event, axis=axis) else (max(times), 9, "start")
    return tag(
        "text",
        _short(event),
        x=axis.percent(at),
        dx=shift,
        y=_MIDDLE + 4,
        text_anchor=anchor,
        font_size=_TEXT_PIXELS,
        class_=f"words-{event.verdict}",
    )


def _short(event: Event) -> str:
    if event.seconds is None or event.true_seconds is None:
        return "missed" if event.seconds is None else ""
    delay = event.seconds - event.true_seconds
    return f"+{delay:.1f} s" if delay >= 0 else f"{abs(delay):.1f} s early"


def _event_text(event: Event) -> str:
    if event.true_seconds is None:
        return f"recognised at {seconds_text(event.seconds or 0.0)}, but not done"
    done = f"done at {seconds_text(event.true_seconds)}"
    if event.seconds is None:
        return f"{done}, missed"
    early = ", too early" if event.verdict == EARLY else ""
    return f"{done}, recognised at {seconds_text(event.seconds)}{early}"
