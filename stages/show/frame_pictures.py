"""Pictures of rows with their frames: what matches what, what was retrieved, and aligned videos side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from reelwright.models.metrics.probes.embedded_videos import EmbeddedVideo, Floats, Integers
from reelwright.models.metrics.probes.frame_retrieval import Found
from reelwright.stages.evaluate.pages.palette import COLOURS
from reelwright.stages.show.pictures import FAINT, INK, PAPER, cut, font
from reelwright.stages.show.row_frames import RowFrames

GROUND, LIGHT, DIM = (17, 22, 28), (232, 237, 243), (154, 168, 183)
RIGHT, WRONG = "#00795a", "#c2261c"
_CAPTION, _STRIP, _GAP = 24, 8, 4  # pixels of a panel: line above and below, colours over time, between panels
_MOST_PIXELS = 720  # of a film's panels: the widest
TILE, _EDGE = (128, 96), 12  # pixels: frames of a grid, the border of a picture


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One of the videos that are shown side by side, and what it shows at each step."""

    title: str
    frames: RowFrames
    seconds: Floats  # (S,) its time at each step
    whole: tuple[float, float]  # seconds of its first and last row
    colours: Image.Image  # its rows as colours over that time


def panel_size(frames: RowFrames, *, height: int) -> tuple[int, int]:
    """(width, height), both even, of panels for videos like this one."""
    first = frames.at(frames.times[0])
    width = min(_MOST_PIXELS, max(160, round(first.width * height / first.height)))
    return width // 2 * 2, height // 2 * 2


def film_frame(panels: Sequence[Panel], step: int, *, size: tuple[int, int], columns: int) -> Image.Image:
    """All panels at a step: name, frame, time, and a mark on the colours of the video's rows."""
    width, height = size
    cell = (width, height + 2 * _CAPTION + _STRIP)
    rows = -(-len(panels) // columns)
    image = Image.new("RGB", _even(columns * (width + _GAP) - _GAP, rows * (cell[1] + _GAP) - _GAP), GROUND)
    draw = ImageDraw.Draw(image)
    for place, panel in enumerate(panels):
        x, y = place % columns * (width + _GAP), place // columns * (cell[1] + _GAP)
        seconds = float(panel.seconds[step])
        draw.text((x + 6, y + 3), cut(draw, panel.title, width - 12, font(15)), LIGHT, font=font(15))
        image.paste(ImageOps.pad(panel.frames.at(seconds), size, color=GROUND), (x, y + _CAPTION))
        below = y + _CAPTION + height
        image.paste(panel.colours.resize((width, _STRIP), Image.Resampling.NEAREST), (x, below))
        first, last = panel.whole
        mark = x + round((width - 3) * (seconds - first) / (last - first if last > first else 1))
        draw.rectangle((mark, below - 3, mark + 2, below + _STRIP + 2), fill=LIGHT)
        draw.text((x + 6, below + _STRIP + 3), f"{seconds:.2f} s", DIM, font=font(15))
    return image


def _even(width: int, height: int) -> tuple[int, int]:
    return width + width % 2, height + height % 2


def matches_picture(
    query: EmbeddedVideo,
    key: EmbeddedVideo,
    rows_Q: Integers,
    frames: tuple[RowFrames | None, RowFrames | None],
    *,
    title: str,
    lines: int = 32,
) -> Image.Image:
    """Query above, key below, each with frames over time; a line from rows of the query to the rows they match.

    A video without frames is its time axis alone.
    """
    width, tile, between = 960, (96, 72), 150
    image = Image.new("RGB", (width, 84 + 2 * (tile[1] + 18) + between), PAPER)
    draw = ImageDraw.Draw(image)
    draw.text((_EDGE, 8), cut(draw, title, width - 2 * _EDGE, font(15)), INK, font=font(15))
    left, right, top = 40, width - 40, 56 + tile[1] + 18
    bottom = top + between
    times = [query.times, key.times]

    def across(number: int, row: int) -> float:
        first, last = times[number][[0, -1]]
        return left + (right - left) * float((times[number][row] - first) / (last - first if last > first else 1))

    chosen = np.unique(np.linspace(0, len(query) - 1, lines).round().astype(int)).tolist()
    for row in chosen:
        colour = COLOURS[min(len(COLOURS) - 1, row * len(COLOURS) // len(query))]
        draw.line((across(0, row), top, across(1, int(rows_Q[row])), bottom), fill=colour, width=2)
    for number, (video, edge) in enumerate(((query, top), (key, bottom))):
        draw.line((left, edge, right, edge), fill=INK, width=2)
        above = number == 0
        name_y = edge - tile[1] - 38 if above else edge + tile[1] + 22
        draw.text((left, name_y), cut(draw, video.name, right - left, font()), INK, font=font())
        _tiles(image, frames[number], times[number], (left, edge, right), tile, above=above)
    return image


def _tiles(
    image: Image.Image,
    frames: RowFrames | None,
    times: Floats,
    where: tuple[int, int, int],
    tile: tuple[int, int],
    *,
    above: bool,
) -> None:
    """Frames over a time axis, each below or above its own time."""
    left, edge, right = where
    draw, number = ImageDraw.Draw(image), (right - left) // (tile[0] + 4)
    for place in range(number):
        x = left + round((place + 0.5) * (right - left) / number)
        seconds = float(times[0] + (times[-1] - times[0]) * (x - left) / (right - left))
        if frames is not None and frames.times:
            picture = ImageOps.pad(frames.at(seconds), tile, color=GROUND)
            image.paste(picture, (x - tile[0] // 2, edge - tile[1] - 18 if above else edge + 18))
        text = f"{seconds:.1f} s"
        draw.text(
            (x - draw.textlength(text, font=font(11)) / 2, edge - 15 if above else edge + 3), text, FAINT, font=font(11)
        )


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One frame of a grid."""

    frames: RowFrames
    name: str
    seconds: float
    note: str = ""
    colour: str = PAPER  # of its border

    @classmethod
    def of_row(cls, video: EmbeddedVideo, row: int, frames: Mapping[str, RowFrames]) -> Self:
        """Of a row of a video; ``frames`` by name."""
        return cls(frames=frames[video.name], name=video.name, seconds=float(video.times[row]))

    @classmethod
    def of_found(cls, found: Found, frames: Mapping[str, RowFrames]) -> Self:
        """Of a row that was retrieved: its distance, and in colour whether it is of the same phase."""
        colour = PAPER if found.is_right is None else RIGHT if found.is_right else WRONG
        tile = cls.of_row(found.video, found.row, frames)
        return replace(tile, note=f"({found.distance:.3g})", colour=colour)


def grid_of(rows: Sequence[Sequence[Tile]], *, title: str) -> Image.Image:
    """A query and what was retrieved in each row: frames with their video's name, time and distance below."""
    (width, height), step_y = TILE, TILE[1] + 42
    heads = ["query", "nearest", *(f"{place}." for place in range(2, 20))]
    columns = max(len(row) for row in rows)
    image = Image.new("RGB", (2 * _EDGE + columns * (width + 10), 66 + len(rows) * step_y), PAPER)
    draw = ImageDraw.Draw(image)
    draw.text((_EDGE, 10), cut(draw, title, image.width - 2 * _EDGE, font(15)), INK, font=font(15))
    for place, head in enumerate(heads[:columns]):
        draw.text((_EDGE + place * (width + 10), 38), cut(draw, head, width, font()), FAINT, font=font())
    for number, row in enumerate(rows):
        for place, tile in enumerate(row):
            x, y = _EDGE + place * (width + 10), 60 + number * step_y
            draw.rectangle((x - 3, y - 3, x + width + 2, y + height + 2), fill=tile.colour)
            image.paste(ImageOps.pad(tile.frames.at(tile.seconds), TILE, color=GROUND), (x, y))
            draw.text((x, y + height + 4), cut(draw, tile.name, width, font(11)), INK, font=font(11))
            text = cut(draw, f"{tile.seconds:.1f} s {tile.note}", width, font(11))
            draw.text((x, y + height + 17), text, FAINT, font=font(11))
    return image
