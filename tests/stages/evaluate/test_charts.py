"""Pieces of the report: markup, colours, charts and ribbons."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from markupsafe import Markup

from reelwright.stages.evaluate.pages.charts import (
    MAX_MATRIX_CLASSES,
    UNDEFINED,
    bar,
    confusion_chart,
    line_chart,
    value_matrix,
)
from reelwright.stages.evaluate.pages.markup import join, tag
from reelwright.stages.evaluate.pages.palette import COLOURS, NEUTRAL, Palette
from reelwright.stages.evaluate.pages.ribbons import (
    Axis,
    axis_of,
    confidence,
    differences,
    ribbon,
    seconds_text,
    time_axis,
)
from reelwright.stages.evaluate.pages.thumbnails import HEIGHT_PIXELS, encode, slice_times
from reelwright.stages.evaluate.videos import Timeline


def attributes(markup: str, name: str, attribute: str) -> list[str | None]:
    return [element.get(attribute) for element in ET.fromstring(f"<a>{markup}</a>").iter(name)]


def cells(label_ids: list[int], target_ids: list[int]) -> Timeline:
    return Timeline(
        edges_seconds=np.arange(len(label_ids) + 1, dtype=np.float64),
        label_ids=np.array(label_ids),
        target_ids=np.array(target_ids),
        scores=np.full((len(label_ids), 2), 0.5, np.float32),
        targets=None,
    )


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (tag("p", "<b> & \"'"), "<p>&lt;b&gt; &amp; &#34;&#39;</p>"),
        (tag("p", tag("b", "x"), None, 1.5), "<p><b>x</b>1.5</p>"),
        (
            tag("p", class_="a", stroke_width=2, title='"><script>', id=None),
            '<p class="a" stroke-width="2" title="&#34;&gt;&lt;script&gt;"></p>',
        ),
        (join("a<", Markup("<i>")), "a&lt;<i>"),
        (tag("p", str(Markup("<i>"))[:]), "<p>&lt;i&gt;</p>"),
        (tag("p", Markup("<i>") + "<script>"), "<p><i>&lt;script&gt;</p>"),
    ],
    ids=["text", "children", "attributes", "join", "a text of markup", "what is added to markup"],
)
def test_markup_escapes_what_is_not_markup(made: str, expected: str) -> None:
    assert made == expected


def test_every_class_up_to_21_looks_different() -> None:
    palette = Palette([f"c{index}" for index in range(22)], background=3)
    looks = [palette.fill(index) for index in range(22)]
    assert len(set(looks)) == 22
    assert looks[3] == NEUTRAL
    assert looks[:3] == list(COLOURS[:3])
    defined = attributes(palette.definitions(), "pattern", "id")
    assert {look.removeprefix("url(#").removesuffix(")") for look in looks if look.startswith("url")} == set(defined)


def test_confusion_shows_counts_and_shares() -> None:
    chart = confusion_chart(np.array([[3, 1], [0, 0]]), ["<a>", "b"])
    titles = [element.text for element in ET.fromstring(chart).iter("title")]
    assert "<a> predicted as b: 1 (25%)" in titles
    heats = [float(value or 0) for value in attributes(chart, "rect", "fill-opacity") if value]
    assert heats == [0.75, 0.25, 0.0, 0.0]  # a class without targets has no share


def test_confusion_of_many_classes_shows_those_with_most_targets() -> None:
    confusion = np.diag(np.arange(60))
    chart = confusion_chart(confusion, [f"c{index}" for index in range(60)])
    assert chart.count('class="heat"') == MAX_MATRIX_CLASSES**2
    assert "c59 predicted as c59: 59 (100%)" in chart
    assert "c19 predicted" not in chart


def test_bar_has_its_share_and_chance() -> None:
    made = bar(0.25, chance=0.5, label="F1")
    assert attributes(made, "rect", "width") == ["100%", "25.00%", "2"]
    assert attributes(made, "rect", "x")[2] == "50.00%"


@pytest.mark.parametrize(
    "lines",
    [{"a": [(0.0, 1.0), (1.0, 3.0)]}, {"a": [(4.0, 2.0)]}, {"a": [(0.0, 0.0), (1.0, 0.0)], "b": [(0.0, -1e-9)]}],
    ids=["two points", "one point", "equal values"],
)
def test_line_chart_stays_inside_its_frame(lines: dict[str, list[tuple[float, float]]]) -> None:
    chart = line_chart(lines, title="Loss <1>", x_name="epoch")
    spots = " ".join(value or "" for value in attributes(chart, "polyline", "points"))
    numbers = [float(number) for number in re.findall(r"[-\d.]+", spots)]
    assert numbers
    assert all(0 <= number <= 1000 for number in numbers)


def test_ribbon_has_one_piece_for_each_run() -> None:
    palette = Palette(["a", "b"])
    made = ribbon(np.array([0, 0, -1, 1]), np.array([0.0, 1, 2, 3, 4]), axis=Axis(0, 8), palette=palette, name="truth")
    pieces = [element for element in ET.fromstring(made) if element.tag == "svg"]
    assert [(piece.get("x"), piece.get("width")) for piece in pieces] == [("0.000%", "25.000%"), ("37.500%", "12.500%")]
    assert "a, 0 s to 2 s" in made


def test_differences_leave_unknown_targets_out() -> None:
    made = differences(cells([0, 1, 1, 0], [0, 0, -1, 1]), axis=Axis(0, 4))
    assert "2 of 3 differ" in made
    assert attributes(made, "rect", "x") == ["25.000%", "75.000%"]


def test_confidence_of_a_very_long_video_stays_small() -> None:
    assert len(confidence(cells([0] * 100_000, [0] * 100_000), axis=Axis(0, 100_000))) < 20_000


def test_axis_goes_from_zero_to_the_end_of_the_video() -> None:
    line = cells([0, 1], [0, 1])
    assert axis_of(line, 10.0) == Axis(0.0, 10.0)
    assert axis_of(line, None) == Axis(0.0, 2.0)
    texts = [element.text for element in ET.fromstring(time_axis(Axis(0, 10))).iter("text")]
    assert texts == ["0 s", "2 s", "4 s", "6 s", "8 s", "10 s"]


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.0, "0 s"), (12.5, "12.5 s"), (125.0, "2:05"), (3725.0, "1:02:05")]
)
def test_seconds_text(seconds: float, expected: str) -> None:
    assert seconds_text(seconds) == expected


def test_thumbnails_are_small_jpegs() -> None:
    picture = encode(np.zeros((480, 640, 3), np.uint8), time_seconds=1.0)
    assert picture.source.startswith("data:image/jpeg;base64,/9j/")
    assert len(picture.source) < 2000
    assert HEIGHT_PIXELS == 96


def test_slice_times_are_the_middles() -> None:
    assert slice_times(0.0, 8.0, number=4) == [1.0, 3.0, 5.0, 7.0]


def test_a_matrix_of_values_shows_sign_size_and_what_is_undefined():
    values = {("a", "b"): 0.5, ("b", "a"): -0.25, ("b", "<i>"): None}
    text = str(value_matrix(values, ["a", "b", "<i>"], title="tau"))
    assert text.count('class="cell"') == 3  # pairs that are not there have no square
    opacities = dict(re.findall(r"<title>([^<]*: [^<]*)</title>.*?fill-opacity=\"([\d.]+)\"", text))
    assert opacities == {"a, b: 0.50": "0.500", "b, a: -0.25": "0.250", f"b, &lt;i&gt;: {UNDEFINED}": "0.000"}
    assert text.count("heat below") == 1


def test_a_matrix_of_many_values_is_cut():
    names = [f"v{number}" for number in range(60)]
    text = str(value_matrix({(name, "v0"): 0.1 for name in names}, names, title="tau"))
    assert text.count('class="cell"') == MAX_MATRIX_CLASSES
