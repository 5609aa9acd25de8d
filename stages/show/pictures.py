"""Pictures of a data set with Pillow: panels of bars, a colour a split, and sheets of frames."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from reelwright.stages.evaluate.pages.palette import COLOURS

PAPER, INK, FAINT, GRID = "#ffffff", "#10151b", "#5b6570", "#dfe3e8"
_SIZE = 13
_LINE = 22  # pixels from bar to bar
_BAR = 14
_NAMES, _PANEL, _GAP = 190, 560, 36  # widths: of names, of a panel, between panels
MAX_BARS = 40

Bars = Sequence[tuple[str, Mapping[str, float]]]  # name, and a number for each split


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Bars under a title; each bar is stacked of its splits."""

    title: str
    bars: Bars
    unit: str = ""  # behind the numbers

    @property
    def shown(self) -> Bars:
        """At most MAX_BARS, the rest summed up in one."""
        if len(self.bars) <= MAX_BARS:
            return self.bars
        kept, rest = self.bars[: MAX_BARS - 1], self.bars[MAX_BARS - 1 :]
        total: dict[str, float] = {}
        for _, parts in rest:
            for split, value in parts.items():
                total[split] = total.get(split, 0) + value
        return [*kept, (f"{len(rest)} more", total)]

    @property
    def height(self) -> int:
        """In pixels."""
        return 34 + _LINE * max(1, len(self.shown))


def histogram(values: Mapping[str, Sequence[float]], *, number: int = 12) -> Bars:
    """Equal bins from the smallest to the largest value of all splits; the last bin has both its ends."""
    whole = [value for entries in values.values() for value in entries]
    if not whole:
        return []
    low, high = min(whole), max(whole)
    edges = np.linspace(low, high, number + 1 if high > low else 2)
    counts = {split: np.histogram(entries, bins=edges if len(edges) > 2 else 1)[0] for split, entries in values.items()}
    digits = 0 if edges[-1] - edges[0] > 2 * number else 1 if edges[-1] - edges[0] > number / 5 else 2
    names = [f"{start:.{digits}f} - {stop:.{digits}f}" for start, stop in itertools.pairwise(edges)]
    return [
        (name, {split: float(numbers[index]) for split, numbers in counts.items()}) for index, name in enumerate(names)
    ]


def draw_panels(panels: Sequence[Panel], *, title: str, splits: Sequence[str]) -> Image.Image:
    """All panels in two columns, with a legend of the splits."""
    columns: list[list[Panel]] = [[], []]
    heights = [0, 0]
    for panel in panels:
        shorter = heights.index(min(heights))
        columns[shorter].append(panel)
        heights[shorter] += panel.height + _GAP
    top = 78
    image = Image.new("RGB", (2 * _PANEL + 3 * _GAP, top + max(heights)), PAPER)
    draw = ImageDraw.Draw(image)
    write(draw, (_GAP, 18), title, width=image.width - 2 * _GAP, size=18)
    colours = {split: COLOURS[index % len(COLOURS)] for index, split in enumerate(splits)}
    left = _GAP
    for split, colour in colours.items():
        draw.rectangle((left, 50, left + 12, 62), fill=colour)
        draw.text((left + 18, 48), split, INK, font=font())
        left += 40 + int(draw.textlength(split, font=font()))
    for index, column in enumerate(columns):
        y = top
        for panel in column:
            _draw_panel(draw, panel, x=_GAP + index * (_PANEL + _GAP), y=y, colours=colours)
            y += panel.height + _GAP
    return image


def draw_sheet(frames: Sequence[tuple[float, npt.NDArray[np.uint8]]], *, title: str, columns: int) -> Image.Image:
    """Frames (H, W, 3) uint8, each with its time in seconds, row by row. Raises ValueError where there is none."""
    if not frames:
        raise ValueError("a contact sheet needs at least one frame")
    height, width = frames[0][1].shape[:2]
    columns = min(columns, len(frames))
    rows = -(-len(frames) // columns)
    step_x, step_y, top, edge = width + 8, height + 24, 44, 12
    image = Image.new("RGB", (max(320, 2 * edge + columns * step_x - 8), top + rows * step_y + edge), PAPER)
    draw = ImageDraw.Draw(image)
    write(draw, (edge, 12), title, width=image.width - 2 * edge, size=15)
    for index, (seconds, frame) in enumerate(frames):
        x, y = edge + index % columns * step_x, top + index // columns * step_y
        image.paste(Image.fromarray(frame), (x, y))
        draw.text((x, y + height + 3), f"{seconds:.2f} s", FAINT, font=font())
    return image


def _draw_panel(draw: ImageDraw.ImageDraw, panel: Panel, *, x: int, y: int, colours: Mapping[str, str]) -> None:
    draw.text((x, y), panel.title, INK, font=font(15))
    y += 28
    longest = max((sum(parts.values()) for _, parts in panel.shown), default=0.0) or 1.0
    room = _PANEL - _NAMES - 90
    if not panel.shown:
        draw.text((x, y), "nothing known", FAINT, font=font())
    for name, parts in panel.shown:
        shown = cut(draw, name, _NAMES - 12, font())
        draw.text((x + _NAMES - 8 - draw.textlength(shown, font=font()), y), shown, INK, font=font())
        left = float(x + _NAMES)
        draw.line((left, y - 3, left, y + _LINE - 4), fill=GRID)
        for split, colour in colours.items():
            width = parts.get(split, 0) / longest * room
            if width > 0:
                draw.rectangle((left, y + 1, left + max(1.0, width), y + _BAR), fill=colour)
                left += width
        draw.text((left + 6, y), f"{_number(sum(parts.values()))}{panel.unit}", FAINT, font=font())
        y += _LINE


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) or value >= 100 else f"{value:,.1f}"


def cut(draw: ImageDraw.ImageDraw, text: str, width: float, font: Any) -> str:
    """The text on one line, shortened to ``width`` pixels."""
    line = " ".join(text.split())
    if draw.textlength(line, font=font) <= width:
        return line
    while line and draw.textlength(line + "...", font=font) > width:
        line = line[:-1]
    return line + "..."


def write(
    draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, *, width: float, fill: Any = INK, size: int = _SIZE
) -> None:
    """A text on one line, shortened to ``width`` pixels."""
    draw.text(at, cut(draw, text, width, font(size)), fill, font=font(size))


def font(size: int = _SIZE) -> Any:
    """The font of all pictures."""
    return ImageFont.load_default(size)
