"""Pictures of rows with their frames: what matches what, what was retrieved, and aligned videos side by side."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from reelwright.models.metrics.probes.embedded_videos import EmbeddedVideo, Floats, Integers
from reelwright.models.metrics.probes.frame_retrieval import Found, nearest_of_each, spread_rows
from reelwright.stages.evaluate.pages.palette import COLOURS
from reelwright.stages.show.pictures import FAINT, INK, PAPER, font, write
from reelwright.stages.show.row_frames import RowFrames

GROUND, LIGHT, DIM = (17, 22, 28), (232, 237, 243), (154, 168, 183)
_BORDERS = {None: PAPER, True: "#00795a", False: "#c2261c"}  # by whether a retrieved row is of the same phase
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
    whole = columns * (width + _GAP) - _GAP, rows * (cell[1] + _GAP) - _GAP
    image = Image.new("RGB", (whole[0] + whole[0] % 2, whole[1] + whole[1] % 2), GROUND)  # sides of a film are even
    draw = ImageDraw.Draw(image)
    for place, panel in enumerate(panels):
        x, y = place % columns * (width + _GAP), place // columns * (cell[1] + _GAP)
        seconds = float(panel.seconds[step])
        write(draw, (x + 6, y + 3), panel.title, width=width - 12, fill=LIGHT, size=15)
        image.paste(ImageOps.pad(panel.frames.at(seconds), size, color=GROUND), (x, y + _CAPTION))
        below = y + _CAPTION + height
        image.paste(panel.colours.resize((width, _STRIP), Image.Resampling.NEAREST), (x, below))
        first, last = panel.whole
        mark = x + round((width - 3) * (seconds - first) / (last - first if last > first else 1))
        draw.rectangle((mark, below - 3, mark + 2, below + _STRIP + 2), fill=LIGHT)
        draw.text((x + 6, below + _STRIP + 3), f"{seconds:.2f} s", DIM, font=font(15))
    return image


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
    write(draw, (_EDGE, 8), title, width=width - 2 * _EDGE, size=15)
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
        write(draw, (left, name_y), video.name, width=right - left)
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


Retrieved = Sequence[tuple[EmbeddedVideo, int, Sequence[Found]]]  # a query, its row, the rows that are most alike


def retrieved(
    query: EmbeddedVideo, others: Sequence[EmbeddedVideo], *, rows: int, depth: int, distance: str
) -> Retrieved:
    """``rows`` rows of a video, spread over it, each with the nearest row of the ``depth`` nearest other videos."""
    return [
        (query, row, nearest_of_each(query, row, others, depth=depth, distance=distance))
        for row in spread_rows(len(query), rows)
    ]


def times_of(found: Retrieved) -> dict[str, Floats]:
    """The times of all rows, ascending seconds, by the names of their videos."""
    times: dict[str, set[float]] = defaultdict(set)
    for query, row, entries in found:
        for video, place in ((query, row), *((entry.video, entry.row) for entry in entries)):
            times[video.name].add(float(video.times[place]))
    return {name: np.array(sorted(seconds)) for name, seconds in times.items()}


def grid_of(found: Retrieved, frames: Mapping[str, RowFrames], *, title: str) -> Image.Image:
    """A query and what was retrieved in each row: frames with their video's name, time and distance below.

    A frame's border says whether it is of the same phase, where that is known. ``frames`` by name.
    """
    (width, height), step_y = TILE, TILE[1] + 42
    heads = ["query", "nearest", *(f"{place}." for place in range(2, 20))]
    columns = 1 + max(len(entries) for _, _, entries in found)
    image = Image.new("RGB", (2 * _EDGE + columns * (width + 10), 66 + len(found) * step_y), PAPER)
    draw = ImageDraw.Draw(image)
    write(draw, (_EDGE, 10), title, width=image.width - 2 * _EDGE, size=15)
    for place, head in enumerate(heads[:columns]):
        write(draw, (_EDGE + place * (width + 10), 38), head, width=width, fill=FAINT)
    for number, (query, row, entries) in enumerate(found):
        tiles = [(query, row, "", PAPER)]
        tiles += [(each.video, each.row, f"({each.distance:.3g})", _BORDERS[each.is_right]) for each in entries]
        for place, (video, of_video, note, colour) in enumerate(tiles):
            x, y, seconds = _EDGE + place * (width + 10), 60 + number * step_y, float(video.times[of_video])
            draw.rectangle((x - 3, y - 3, x + width + 2, y + height + 2), fill=colour)
            image.paste(ImageOps.pad(frames[video.name].at(seconds), TILE, color=GROUND), (x, y))
            write(draw, (x, y + height + 4), video.name, width=width, size=11)
            write(draw, (x, y + height + 17), f"{seconds:.1f} s {note}", width=width, fill=FAINT, size=11)
    return image
