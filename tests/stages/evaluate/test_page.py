"""The page of a report: what stands where, and that texts stay texts."""

from __future__ import annotations

import pytest
from markupsafe import Markup

from reelwright.stages.evaluate.pages.page import Article, Card, Cards, Page, Pair, Part, Section, Table, render
from reelwright.stages.evaluate.pages.thumbnails import Thumbnail


def body(page: Page) -> str:
    return "".join(line.strip() for line in render(page).partition("<main>")[2].partition("</main>")[0].splitlines())


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("<i> & more", '<p class="soft">&lt;i&gt; &amp; more</p>'),
        (Markup("<i>x</i>"), "<i>x</i>"),
        (Pair(["a", Markup("<b>b</b>")]), '<div class="pair"><p class="soft">a</p><b>b</b></div>'),
        (
            Cards(
                [
                    Card(name="<F1>", value="50%", chart=Markup("<svg></svg>"), against="chance 9%"),
                    Card(name="n", value="3"),
                ],
                "Rows",
            ),
            (
                '<p class="group">Rows</p><div class="cards"><div class="score"><span class="name">&lt;F1&gt;</span>'
                '<b>50%</b><svg></svg><span class="against">chance 9%</span></div>'
                '<div class="score"><span class="name">n</span><b>3</b></div></div>'
            ),
        ),
        (
            Table(columns=[("<name>", "class"), ("", ""), ("N", "number")], rows=[["<a>", Markup("<b>b</b>"), "1"]]),
            (
                '<div class="scroll"><table><thead><tr><th>&lt;name&gt;</th><th></th><th class="number">N</th></tr>'
                "</thead>"
                '<tbody><tr><td class="class">&lt;a&gt;</td><td><b>b</b></td><td class="number">1</td></tr></tbody>'
                "</table></div>"
            ),
        ),
        (
            Table(columns=[("s", ""), ("x", "number")], rows=[], title="T", groups=[("<G>", 1)], look="classes"),
            (
                '<div class="scroll"><p class="group">T</p><table class="classes"><thead><tr><th></th>'
                '<th colspan="1" class="number">&lt;G&gt;</th></tr><tr><th>s</th><th class="number">x</th></tr></thead>'
                "<tbody></tbody></table></div>"
            ),
        ),
    ],
    ids=["text", "markup", "pair", "cards", "table", "groups"],
)
def test_parts(part: Part, expected: str) -> None:
    page = Page(title="<t>", facts={"<k>": "<v>"}, sections=[Section("S & T", [part])], articles=[])
    head = '<header><h1>&lt;t&gt;</h1><ul class="facts"><li>&lt;k&gt; <code>&lt;v&gt;</code></li></ul></header>'
    assert body(page) == f"{head}<section><h2>S &amp; T</h2>{expected}</section>"


def test_an_article_shows_notes_pictures_and_lines_in_this_order() -> None:
    pictures = [Thumbnail(time_seconds=1.5, source="data:image/jpeg;base64,abc")]
    article = Article(
        title="<v>",
        verdict="<ok>",
        rows=[("<l>", Markup("<svg></svg>"))],
        notes=["<n>"],
        pictures=pictures,
        look="step-rows",
    )
    expected = (
        '<article class="video"><header><h3>&lt;v&gt;</h3><span class="verdict soft">&lt;ok&gt;</span></header>'
        '<p class="soft">&lt;n&gt;</p><div class="rows step-rows"><div class="label"></div><div class="thumbnails">'
        '<figure><img src="data:image/jpeg;base64,abc" alt="frame at 1.5 s"><figcaption>1.5 s</figcaption></figure>'
        '</div><div class="label">&lt;l&gt;</div><svg></svg></div></article>'
    )
    assert body(Page(title="", facts={}, sections=[], articles=[article])).endswith(expected)


def test_pictures_open_the_video_at_their_time_and_the_closing_comes_last() -> None:
    article = Article(
        title="v",
        verdict="",
        rows=[],
        pictures=[Thumbnail(time_seconds=1.5, source="data:image/jpeg;base64,abc")],
        address="file:///a%20b.mp4",
    )
    text = body(Page(title="", facts={}, sections=[], articles=[article], closing=[Section("End", ["e"])]))
    assert '<h3><a href="file:///a%20b.mp4">v</a></h3>' in text
    assert '<a href="file:///a%20b.mp4#t=1.5" title="play from here"><img src="data:image/jpeg;base64,abc"' in text
    assert text.endswith('</article><section><h2>End</h2><p class="soft">e</p></section>')
