"""Draw the things of action videos: a shape with a texture, turned and scaled; with Pillow, in a larger canvas.

Only whole numbers and `math` decide where pixels go, so that frames are equal on every CPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from PIL import Image, ImageDraw

SUPERSAMPLING = 3

Point = tuple[float, float]
Box = tuple[float, float, float, float]


def _regular(corners: int, *, first: float = 90.0) -> tuple[Point, ...]:
    """Corners on the unit circle, the first at so many degrees."""
    angles = (math.radians(first + 360 * k / corners) for k in range(corners))
    return tuple((math.cos(angle), math.sin(angle)) for angle in angles)


def _star(points: int, inner: float) -> tuple[Point, ...]:
    outer = _regular(2 * points)
    return tuple((x * inner, y * inner) if k % 2 else (x, y) for k, (x, y) in enumerate(outer))


def _cross(half: float) -> tuple[Point, ...]:
    reach = math.sqrt(1 - half * half)
    quarter = ((half, reach), (half, half), (reach, half))
    turned = []
    for k in range(4):
        cos, sin = ((1, 0), (0, -1), (-1, 0), (0, 1))[k]
        turned += [(x * cos - y * sin, x * sin + y * cos) for x, y in quarter]
    return tuple(turned)


SHAPES: dict[str, tuple[Point, ...]] = {
    "disc": _regular(36),
    "triangle": _regular(3),
    "square": _regular(4, first=45.0),
    "star": _star(5, 0.45),
    "cross": _cross(0.35),
    "bar": ((0.95, 0.3), (-0.95, 0.3), (-0.95, -0.3), (0.95, -0.3)),
}
# Outlines inside the unit circle, y up; each is its own mirror image.


@dataclass(frozen=True)
class Thing:
    """How something looks and where it lies at the start; lengths are fractions of the side."""

    noun: str
    centre: Point  # (x, y)
    radius: float
    angle: float  # degrees, counter-clockwise
    colour: tuple[int, int, int]
    second: tuple[int, int, int]


@dataclass(frozen=True)
class Drawing:
    """Polygons around (0, 0), y down, as fractions of the side: the outline, and what of the texture is over it."""

    outline: tuple[Point, ...]
    marks: tuple[tuple[Point, ...], ...]
    colour: tuple[int, int, int]
    second: tuple[int, int, int]


def textured(thing: Thing, *, turn: float = 0.0, scale: float = 1.0) -> Drawing:
    """What is drawn of a thing that has been turned (degrees, counter-clockwise) and scaled."""
    texture, shape = thing.noun.split("_")
    radius, angle = thing.radius * scale, thing.angle + turn
    return Drawing(
        outline=_placed(SHAPES[shape], radius, angle),
        marks=tuple(_placed(mark, radius, angle) for mark in TEXTURES[texture]),
        colour=thing.colour,
        second=thing.second,
    )


def extent(thing: Thing, *, turn: float = 0.0, scale: float = 1.0) -> Box:
    """(left, top, right, bottom) around its centre, fractions of the side."""
    outline = textured(thing, turn=turn, scale=scale).outline
    xs, ys = zip(*outline, strict=True)
    return (min(xs), min(ys), max(xs), max(ys))


def draw_thing(
    canvas: Image.Image, drawing: Drawing, centre: Point, *, shift: Point = (0.0, 0.0), opacity: float = 1.0
) -> None:
    """Draw on a square canvas around ``centre`` moved by ``shift``, both as fractions of its side."""
    side = canvas.width
    x, y = (centre[0] + shift[0]) * side, (centre[1] + shift[1]) * side
    reach = math.ceil(max(math.hypot(*point) for point in drawing.outline) * side) + 1
    left, top = math.floor(x) - reach, math.floor(y) - reach
    size = (2 * reach + 2, 2 * reach + 2)
    mask, patch = Image.new("L", size, 0), Image.new("RGB", size, drawing.colour)

    def pixels(points: tuple[Point, ...]) -> list[tuple[int, int]]:
        return [(round(x + a * side) - left, round(y + b * side) - top) for a, b in points]

    ImageDraw.Draw(mask).polygon(pixels(drawing.outline), fill=round(255 * opacity))
    pen = ImageDraw.Draw(patch)
    for mark in drawing.marks:
        pen.polygon(pixels(mark), fill=drawing.second)
    canvas.paste(patch, (left, top), mask)


def _placed(points: tuple[Point, ...], radius: float, angle: float) -> tuple[Point, ...]:
    """Turned counter-clockwise as it is seen, scaled, and with y down."""
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return tuple((radius * (x * cos - y * sin), -radius * (x * sin + y * cos)) for x, y in points)


def _rectangle(left: float, bottom: float, right: float, top: float) -> tuple[Point, ...]:
    return ((left, bottom), (right, bottom), (right, top), (left, top))


def _discs(places: tuple[Point, ...], radius: float) -> tuple[tuple[Point, ...], ...]:
    unit = _regular(12)
    return tuple(tuple((x + radius * a, y + radius * b) for a, b in unit) for x, y in places)


_CELLS = tuple((x, y) for x in (-0.75, -0.25, 0.25, 0.75) for y in (-0.75, -0.25, 0.25, 0.75))

TEXTURES: dict[str, tuple[tuple[Point, ...], ...]] = {
    "striped": tuple(_rectangle(left, -1, left + 0.22, 1) for left in (-0.85, -0.4, 0.05, 0.5)),
    "dotted": _discs(((0.0, 0.55), (0.0, -0.2), (0.4, 0.2), (-0.4, 0.2), (0.45, -0.5), (-0.45, -0.5)), 0.16),
    "checked": tuple(
        _rectangle(x - 0.25, y - 0.25, x + 0.25, y + 0.25) for x, y in _CELLS if round((x + y) * 2) % 2 == 0
    ),
}
# Marks inside the unit square, y up.
