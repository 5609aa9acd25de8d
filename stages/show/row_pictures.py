"""Pictures of rows without frames: colours over time by principal components, and how alike two videos are.

Shape letters: T rows of a video, D size, Q and N rows of two videos.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from reelwright.models.metrics.probes.embedded_videos import UNKNOWN, EmbeddedVideo, Floats, Integers, distance_chunks
from reelwright.stages.evaluate.pages.palette import COLOURS, NEUTRAL
from reelwright.stages.show.pictures import FAINT, GRID, INK, PAPER, font, write

PATH_COLOURS = {"dtw": "#ffffff", "nearest": "#ff5a36", "stretch": "#56b4e9"}
_FITTED_ROWS = 4000  # principal components are found from so many rows at most, spread evenly
_CLIPPED = (1, 99)  # percentiles that become black and full colour
_SIDE, _MARGIN = 420, 64  # pixels of a matrix, and of its names and times
_VIRIDIS = ("#440154", "#3b528b", "#21918c", "#5ec962", "#fde725")  # dark is unlike, bright is alike
_STRIP, _NAMES = 26, 150  # pixels: height of a strip, width of names

Colours = npt.NDArray[np.uint8]


def principal_colours(videos: Sequence[EmbeddedVideo]) -> list[Colours]:
    """For each video (T, 3) uint8: the first three principal components of all rows together, as red, green, blue.

    Rows of like colour are alike, within a video and between them. A component that says nothing is grey.
    """
    rows_ND = np.concatenate([video.rows for video in videos])
    fitted = rows_ND[np.unique(np.linspace(0, len(rows_ND) - 1, _FITTED_ROWS).round().astype(int))]
    mean_D = fitted.mean(axis=0)
    axes = np.linalg.svd(fitted - mean_D, full_matrices=False)[2][:3]
    # an axis has no direction of its own: its largest part is made positive, so that colours do not flip
    signs = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])
    axes = axes * np.where(signs == 0, 1, signs)[:, None]
    low, high = np.percentile((fitted - mean_D) @ axes.T, _CLIPPED, axis=0)
    spread = high - low
    is_flat = spread <= 1e-9 * max(1.0, float(np.abs(fitted).max()))
    found = []
    for video in videos:
        share = ((video.rows - mean_D) @ axes.T - low) / np.where(is_flat, 1, spread)
        colours = np.full((len(video), 3), 128, np.uint8)
        colours[:, : len(axes)] = np.where(is_flat, 128, np.clip(255 * share, 0, 255)).round()
        found.append(colours)
    return found


def label_colours(labels_T: Integers) -> Colours:
    """(T, 3) uint8: the colour of each row's label, the page's colours in turn; grey where it has none."""
    table = np.array([_rgb(colour) for colour in (*COLOURS, NEUTRAL)], np.uint8)
    found: Colours = table[np.where(labels_T == UNKNOWN, len(COLOURS), labels_T % len(COLOURS))]
    return found


def strip(colours_TC: Colours, seconds_T: Floats, *, width: int, height: int) -> Image.Image:
    """Rows side by side over time: each pixel has the colour of the row that is nearest in time."""
    at = np.linspace(seconds_T[0], seconds_T[-1], width)
    middles = (seconds_T[1:] + seconds_T[:-1]) / 2
    line = colours_TC[np.searchsorted(middles, at)]
    return Image.fromarray(np.repeat(line[None], height, axis=0))


def strips_picture(videos: Sequence[EmbeddedVideo], *, width: int = 900, title: str = "") -> Image.Image:
    """A strip of principal colours for each video, below it one of its labels where it has some; one scale of time."""
    spans = [float(video.times[-1] - video.times[0]) for video in videos]
    longest = max(spans) or 1.0
    heights = [_STRIP + (12 if video.has_labels else 0) + 10 for video in videos]
    top = 34 if title else 10
    image = Image.new("RGB", (width, top + sum(heights) + 22), PAPER)
    draw, room, y = ImageDraw.Draw(image), width - _NAMES - 20, top
    write(draw, (10, 9), title, width=width - 20, size=15)
    for video, colours, span, height in zip(videos, principal_colours(videos), spans, heights, strict=True):
        seconds, size = video.times, max(2, round(room * span / longest)) if span else 6
        write(draw, (10, y + 5), video.name, width=_NAMES - 16)
        image.paste(strip(colours, seconds, width=size, height=_STRIP), (_NAMES, y))
        if video.has_labels:
            labels = strip(label_colours(video.label_of_rows), seconds, width=size, height=8)
            image.paste(labels, (_NAMES, y + _STRIP + 2))
        y += height
    draw.text((_NAMES, y), "0 s", FAINT, font=font())
    text = f"{longest:.1f} s"
    draw.text((width - 20 - draw.textlength(text, font=font()), y), text, FAINT, font=font())
    return image


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """Which row of the key belongs to each row of the query, by one method or several."""

    query: EmbeddedVideo
    key: EmbeddedVideo
    rows: Mapping[str, Integers]  # method -> (Q,)


def similarity_picture(alignment: Alignment, *, distance: str, title: str = "") -> Image.Image:
    """How near each row of the query (from top to bottom) is to each of the key: bright is near, dark is far.

    The alignments are drawn over it in `PATH_COLOURS`; where both have phases, fine lines part them.
    """
    query, key = alignment.query, alignment.key
    side = max(len(query), len(key))
    height, width = (max(8, round(_SIDE * len(video) / side)) for video in (query, key))
    rows = [np.linspace(0, len(video) - 1, size).round().astype(int) for video, size in ((query, height), (key, width))]
    chunks = [found for _, found in distance_chunks(query.rows[rows[0]], key.rows[rows[1]], distance=distance)]
    far = np.concatenate(chunks)
    low, high = np.percentile(far, _CLIPPED)
    near = 1 - np.clip((far - low) / (high - low if high > low else 1), 0, 1)
    image = Image.new("RGB", (_MARGIN + max(width, 300) + 16, _MARGIN + height + 50), PAPER)
    draw = ImageDraw.Draw(image)
    write(draw, (10, 8), title, width=image.width - 20, size=15)
    image.paste(Image.fromarray(_viridis(near)), (_MARGIN, _MARGIN))
    _phase_lines(draw, query, key, rows)
    for method, aligned_Q in alignment.rows.items():
        across = aligned_Q[rows[0]] * (width - 1) / max(1, len(key) - 1)
        spots = [(_MARGIN + float(x), _MARGIN + y) for y, x in enumerate(across)]
        if method == "nearest":
            for x, y in spots:
                draw.ellipse((x - 1, y - 1, x + 1, y + 1), fill=PATH_COLOURS[method])
        else:
            draw.line(spots, fill=INK, width=5, joint="curve")
            draw.line(spots, fill=PATH_COLOURS[method], width=3, joint="curve")
    _matrix_names(draw, query, key, (height, width))
    left, bottom = _MARGIN, _MARGIN + height + 28
    for method in alignment.rows:
        draw.rectangle((left, bottom, left + 14, bottom + 12), fill=PATH_COLOURS[method], outline=FAINT)
        draw.text((left + 20, bottom - 2), method, INK, font=font())
        left += 36 + int(draw.textlength(method, font=font()))
    return image


def _phase_lines(
    draw: ImageDraw.ImageDraw, query: EmbeddedVideo, key: EmbeddedVideo, rows: Sequence[npt.NDArray[Any]]
) -> None:
    """Where the phase changes, in both directions."""
    if not (query.has_labels and key.has_labels):
        return
    downs, rights = (
        np.flatnonzero(np.diff(video.label_of_rows[chosen])) + 1
        for video, chosen in zip((query, key), rows, strict=True)
    )
    height, width = (len(chosen) for chosen in rows)
    for y in (_MARGIN + downs).tolist():
        draw.line((_MARGIN, y, _MARGIN + width, y), fill=GRID)
    for x in (_MARGIN + rights).tolist():
        draw.line((x, _MARGIN, x, _MARGIN + height), fill=GRID)


def _matrix_names(draw: ImageDraw.ImageDraw, query: EmbeddedVideo, key: EmbeddedVideo, size: tuple[int, int]) -> None:
    height, width = size
    write(draw, (_MARGIN, 30), f"across: {key.name}", width=max(width, 300))
    write(draw, (10, 46), f"down: {query.name}", width=max(width, 300) + _MARGIN - 80)
    for y, seconds in zip((_MARGIN, _MARGIN + height - 16), query.times[[0, -1]], strict=True):
        draw.text((10, y), f"{seconds:.1f} s", FAINT, font=font())
    first, last = (f"{seconds:.1f} s" for seconds in key.times[[0, -1]])
    draw.text((_MARGIN, _MARGIN + height + 6), first, FAINT, font=font())
    right = _MARGIN + max(width, 110) - draw.textlength(last, font=font())
    draw.text((right, _MARGIN + height + 6), last, FAINT, font=font())


def _viridis(values: Floats) -> Colours:
    stops = np.array([_rgb(colour) for colour in _VIRIDIS], np.float64)
    places = np.linspace(0, 1, len(stops))
    return np.stack([np.interp(values, places, stops[:, part]) for part in range(3)], axis=-1).round().astype(np.uint8)


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
