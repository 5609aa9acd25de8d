"""The page of a report: titles, texts, tables, cards and charts in one template; no scripts, nothing from a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

import jinja2
from markupsafe import Markup

from reelwright.stages.evaluate.pages.ribbons import seconds_text
from reelwright.stages.evaluate.pages.thumbnails import Thumbnail


@dataclass(frozen=True, kw_only=True)
class Card:
    """One number, with a chart of it and what it is compared with."""

    name: str
    value: str
    chart: Markup | None = None
    against: str = ""


@dataclass(frozen=True)
class Cards:
    """Numbers side by side."""

    cards: Sequence[Card]
    title: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of texts and charts."""

    columns: Sequence[tuple[str, str]]  # (name, look of its cells: number, measure, class or nothing)
    rows: Sequence[Sequence[str]]  # a text, or Markup
    title: str = ""
    groups: Sequence[tuple[str, int]] = ()  # (name, number of columns) above all columns but the first
    look: str = ""


@dataclass(frozen=True)
class Pair:
    """Two parts beside each other where there is room."""

    parts: Sequence[Part]


Part = str | Cards | Table | Pair  # Markup stands as it is, a text is a paragraph


@dataclass(frozen=True)
class Section:
    """A part of the page with a title."""

    title: str
    parts: Sequence[Part]


@dataclass(frozen=True, kw_only=True)
class Article:
    """One video: its verdict, pictures, and what happens in it over one time axis."""

    title: str
    verdict: str
    rows: Sequence[tuple[str, Markup]]  # (label, time line)
    notes: Sequence[str] = ()
    pictures: Sequence[Thumbnail] = ()
    look: str = ""
    address: str = ""  # of the video, which a picture opens at its time


@dataclass(frozen=True, kw_only=True)
class Page:
    """All that is shown."""

    title: str
    facts: Mapping[str, str]  # name -> value, shown below the title
    sections: Sequence[Section]
    articles: Sequence[Article]
    closing: Sequence[Section] = ()  # behind the articles
    definitions: str = ""  # of patterns that the charts refer to


def render(page: Page) -> str:
    """The page as text. What is not Markup is escaped; the page's policy forbids scripts and every request."""
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["seconds"] = seconds_text
    style = Markup(_resource("report.css"))  # noqa: S704 - our own file
    return environment.from_string(_resource("report.html")).render(page=page, style=style)


def _resource(name: str) -> str:
    return (files("reelwright.stages.evaluate") / name).read_text(encoding="utf-8")
