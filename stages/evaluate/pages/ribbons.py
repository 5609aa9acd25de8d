"""One video's time line as SVG as wide as its place: truth, prediction, where they differ, confidence, axis."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from reelwright.models.metrics.segmental import find_segments
from reelwright.stages.evaluate.pages.markup import figure, tag
from reelwright.stages.evaluate.pages.palette import Palette
from reelwright.stages.evaluate.videos import Timeline
from reelwright.storage.arrays.spans import FloatArray, IntArray
from reelwright.storage.tables.annotations import UNKNOWN

_RIBBON_PIXELS = 26
_LANE_PIXELS = 14  # of one class in multi_label ribbons
_STRIP_PIXELS = 34
_MAX_POINTS = 400  # of the confidence line
MAX_LANES = 12
_STEPS_SECONDS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)
_MAX_TICKS = 8


@dataclass(frozen=True)
class Axis:
    """Seconds to share of the width."""

    start_seconds: float
    stop_seconds: float

    def share(self, seconds: float) -> float:
        """0 at the start, 1 at the stop."""
        return (seconds - self.start_seconds) / (self.stop_seconds - self.start_seconds)

    def percent(self, seconds: float) -> str:
        """The share as an SVG length."""
        return f"{100 * self.share(seconds):.3f}%"

    def width(self, start: float, stop: float) -> str:
        """The width of a span as an SVG length."""
        return f"{100 * (self.share(stop) - self.share(start)):.3f}%"


def axis_of(timeline: Timeline, duration_seconds: float | None) -> Axis:
    """From the start of the video (or its first cell, when that is earlier) to the end of the later of both."""
    start = min(0.0, float(timeline.edges_seconds[0]))
    stop = max(duration_seconds or 0.0, float(timeline.edges_seconds[-1]))
    return Axis(start, stop if stop > start else start + 1.0)


def ribbon(label_ids: IntArray, edges_seconds: FloatArray, *, axis: Axis, palette: Palette, name: str) -> Markup:
    """Labels (N,) over their cells (N + 1,): a coloured piece for each run of a label; nothing where UNKNOWN."""
    segments = find_segments(label_ids, background=UNKNOWN)
    pieces = []
    for label, first, last in zip(segments.label.tolist(), segments.start, segments.stop, strict=True):
        start, stop = float(edges_seconds[first]), float(edges_seconds[last])
        title = f"{palette.classes[label]}, {seconds_text(start)} to {seconds_text(stop)}"
        box = tag("rect", width="100%", height="100%", fill=palette.fill(label), class_="piece")
        look = "words" if palette.fill(label) == palette.colour(label) else "words patterned"
        words = tag("text", palette.classes[label], x=6, y=17, fill=palette.ink(label), class_=look)
        parts = [tag("title", title), box]
        if axis.share(stop) - axis.share(start) > 0.05:
            parts.append(words)
        pieces.append(tag("svg", *parts, x=axis.percent(start), width=axis.width(start, stop), height=_RIBBON_PIXELS))
    return _frame(*pieces, height=_RIBBON_PIXELS, name=name, class_="ribbon")


def differences(timeline: Timeline, *, axis: Axis) -> Markup:
    """Marks where prediction and truth differ."""
    known = timeline.target_ids != UNKNOWN
    wrong = (known & (timeline.label_ids != timeline.target_ids)).astype(np.int64)
    segments = find_segments(wrong, background=0)
    edges = timeline.edges_seconds
    marks = [
        tag("rect", x=axis.percent(edges[first]), width=axis.width(edges[first], edges[last]), height=6, class_="wrong")
        for first, last in zip(segments.start, segments.stop, strict=True)
    ]
    return _frame(*marks, height=6, name=f"{int(wrong.sum())} of {int(known.sum())} differ", class_="strip")


def confidence(timeline: Timeline, *, axis: Axis) -> Markup:
    """The probability of the best class over time, 0 to 1, as an area."""
    best, middle = _thinned(timeline.scores.max(axis=1), (timeline.edges_seconds[1:] + timeline.edges_seconds[:-1]) / 2)
    x = np.concatenate([timeline.edges_seconds[:1], middle, timeline.edges_seconds[-1:]])
    y = np.concatenate([best[:1], best, best[-1:]])
    spots = [
        f"{1000 * axis.share(float(time)):.1f},{100 * (1 - float(value)):.1f}" for time, value in zip(x, y, strict=True)
    ]
    left, right = (1000 * axis.share(float(time)) for time in (x[0], x[-1]))
    area = tag("polygon", points=f"{left:.1f},100 {' '.join(spots)} {right:.1f},100", class_="area")
    line = tag("polyline", points=" ".join(spots), class_="line line0")
    plot = tag(
        "svg", area, line, viewBox="0 0 1000 100", preserveAspectRatio="none", width="100%", height=_STRIP_PIXELS
    )
    half = tag("line", x1=0, x2="100%", y1="50%", y2="50%", class_="grid")
    mean = f"mean {float(timeline.scores.max(axis=1).mean()):.2f}"
    return _frame(half, plot, height=_STRIP_PIXELS, name=f"confidence over time, {mean}", class_="strip")


def lanes(timeline: Timeline, *, axis: Axis, palette: Palette, threshold: float) -> list[tuple[int, Markup]]:
    """For task multi_label: (class, lane) of the classes that occur or are predicted; probability above truth."""
    assert timeline.targets is not None
    interest = timeline.targets.sum(axis=0) + (timeline.scores >= threshold).sum(axis=0)
    chosen = [int(index) for index in np.argsort(-interest, kind="stable")[:MAX_LANES] if interest[index]]
    return [(index, _lane(timeline, index, axis=axis, palette=palette)) for index in sorted(chosen)]


def _lane(timeline: Timeline, index: int, *, axis: Axis, palette: Palette) -> Markup:
    assert timeline.targets is not None
    levels = np.round(timeline.scores[:, index] * 10).astype(np.int64)
    tenths = _runs(levels, timeline.edges_seconds, axis=axis, y=0, fill=palette.fill(index), opaque=False)
    present = timeline.targets[:, index].astype(np.int64)
    truth = _runs(present, timeline.edges_seconds, axis=axis, y=_LANE_PIXELS + 1, fill=palette.fill(index), opaque=True)
    return _frame(*tenths, *truth, height=2 * _LANE_PIXELS + 1, name=palette.classes[index], class_="ribbon")


def _runs(
    levels: npt.NDArray[np.int64], edges: FloatArray, *, axis: Axis, y: int, fill: str, opaque: bool
) -> list[Markup]:
    segments = find_segments(levels, background=0)
    return [
        tag(
            "rect",
            x=axis.percent(edges[first]),
            y=y,
            width=axis.width(edges[first], edges[last]),
            height=_LANE_PIXELS,
            fill=fill,
            fill_opacity=1 if opaque else level / 10,
        )
        for level, first, last in zip(segments.label.tolist(), segments.start, segments.stop, strict=True)
    ]


def time_axis(axis: Axis) -> Markup:
    """Ticks at round seconds with their times."""
    span = axis.stop_seconds - axis.start_seconds
    step = next((step for step in _STEPS_SECONDS if span / step <= _MAX_TICKS), span / _MAX_TICKS)
    first = int(np.ceil(axis.start_seconds / step - 1e-9))
    times = [index * step for index in range(first, int(np.floor(axis.stop_seconds / step + 1e-9)) + 1)]
    marks = [_tick(time, axis) for time in times]
    name = f"time from {axis.start_seconds:g} to {axis.stop_seconds:g} seconds"
    return _frame(*marks, height=20, name=name, class_="axis")


def _tick(time: float, axis: Axis) -> Markup:
    share = axis.share(time)
    anchor = "start" if share < 0.03 else "end" if share > 0.97 else "middle"
    x = axis.percent(time)
    line = tag("line", x1=x, x2=x, y1=0, y2=5, class_="axis-line")
    return tag("g", line, tag("text", seconds_text(time), x=x, y=17, text_anchor=anchor, class_="tick"))


def seconds_text(seconds: float) -> str:
    """``12.5 s`` below a minute, ``2:05`` above, ``1:02:05`` above an hour."""
    if abs(seconds) < 60:
        return f"{round(seconds, 2):g} s"
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def _thinned(
    values: npt.NDArray[np.float32], times: FloatArray
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Means of equal parts when there are too many points to see."""
    parts = min(len(values), _MAX_POINTS)
    bounds = np.linspace(0, len(values), parts, endpoint=False).astype(np.int64)
    counts = np.diff(np.append(bounds, len(values)))
    return np.add.reduceat(values, bounds, dtype=np.float64) / counts, np.add.reduceat(times, bounds) / counts


def _frame(*children: Markup, height: int, name: str, class_: str) -> Markup:
    return figure(name, *children, width="100%", height=height, class_=class_)
