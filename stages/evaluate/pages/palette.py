"""Colours of classes that people with colour blindness can tell apart (Okabe and Ito, 2008), then patterns on them."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from reelwright.stages.evaluate.pages.markup import tag

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442")
NEUTRAL = "#8a929b"  # the background class
_DARK = frozenset({"#0072b2", "#d55e00", "#009e73", NEUTRAL})  # white text reads better on these
_STEP = 8  # pixels of a pattern's tile
PATTERNS = ("plain", "stripes", "dots")


class Palette:
    """The look of each of K classes: 7 colours plain, striped, then dotted; after 21 classes looks repeat."""

    def __init__(self, classes: Sequence[str], *, background: int | None = None) -> None:
        self.classes = tuple(classes)
        order = [index for index in range(len(classes)) if index != background]
        self._rank = {index: rank for rank, index in enumerate(order)}

    def fill(self, index: int) -> str:
        """Value of an SVG ``fill``: a colour, or a pattern of `definitions`."""
        pattern = self._pattern(index)
        return self.colour(index) if pattern == "plain" else f"url(#{pattern}-{self._rank[index] % len(COLOURS)})"

    def colour(self, index: int) -> str:
        """The colour below the pattern."""
        return COLOURS[self._rank[index] % len(COLOURS)] if index in self._rank else NEUTRAL

    def ink(self, index: int) -> str:
        """A text colour that reads well on `fill`."""
        return "#ffffff" if self.colour(index) in _DARK else "#10151b"

    def swatch(self, index: int) -> Markup:
        """A small square for legends and tables."""
        square = tag("rect", width=12, height=12, rx=2, fill=self.fill(index))
        return tag("svg", square, class_="swatch", width=12, height=12, aria_hidden="true")

    def named(self, index: int) -> Markup:
        """A class's swatch and name."""
        return tag("span", self.swatch(index), tag("span", self.classes[index]))

    def legend(self, indices: Sequence[int]) -> Markup:
        """Swatches with class names."""
        entries = [tag("li", self.swatch(index), tag("span", self.classes[index])) for index in indices]
        return tag("ul", *entries, class_="legend")

    def definitions(self) -> Markup:
        """The patterns that `fill` refers to, once a page."""
        used = {(self._pattern(index), rank % len(COLOURS)) for index, rank in self._rank.items()}
        patterns = [_pattern(name, colour) for name, colour in sorted(used) if name != "plain"]
        return tag("svg", tag("defs", *patterns), width=0, height=0, class_="definitions", aria_hidden="true")

    def _pattern(self, index: int) -> str:
        return PATTERNS[self._rank[index] // len(COLOURS) % len(PATTERNS)] if index in self._rank else "plain"


def _pattern(name: str, colour: int) -> Markup:
    base = tag("rect", width=_STEP, height=_STEP, fill=COLOURS[colour])
    marks = {
        "stripes": tag("rect", width=_STEP / 3, height=_STEP, fill="#fff", fill_opacity=0.6),
        "dots": tag("circle", cx=_STEP / 2, cy=_STEP / 2, r=_STEP / 4, fill="#10151b", fill_opacity=0.75),
    }
    turn = "rotate(45)" if name == "stripes" else None
    size: dict[str, str | float | None] = {
        "width": _STEP,
        "height": _STEP,
        "patternUnits": "userSpaceOnUse",
        "patternTransform": turn,
    }
    return tag("pattern", base, marks[name], id=f"{name}-{colour}", **size)
