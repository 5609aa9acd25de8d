"""Drawing parts, hand and grey shapes of a procedure video in scene coordinates."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from PIL import ImageDraw

from reelwright.stages.synthesize.procedures.look import Colour, Distractor, Look
from reelwright.stages.synthesize.procedures.script import LOOK_ALIKES, MOUNTED_LIFT, MOUNTS, Point, Pose

Box = tuple[float, float, float, float]

COLOURS: dict[str, Colour] = {
    "base": (112, 74, 138),
    "red_bar": (205, 52, 46),
    "blue_disc": (48, 92, 200),
    "green_triangle": (52, 158, 78),
    "yellow_peg": (226, 190, 52),
}
HANDLE: Point = (0.035, 0.055)  # where a screwdriver is held, from its tip


@dataclass(frozen=True)
class Pen:
    """Draws in scene coordinates: fractions of the square of `side` pixels whose corner is at (left, top)."""

    draw: ImageDraw.ImageDraw
    side: int
    left: float
    top: float

    def at(self, point: Point) -> Point:
        """A point of the scene in pixels."""
        return (self.left + point[0] * self.side, self.top + point[1] * self.side)

    def box(self, box: Box, colour: Colour, *, corner: float) -> None:
        """A rectangle with round corners."""
        corners = (*self.at((box[0], box[1])), *self.at((box[2], box[3])))
        self.draw.rounded_rectangle(corners, corner * self.side, colour)

    def disc(self, centre: Point, radius: float, colour: Colour) -> None:
        """A filled circle."""
        # Not ImageDraw.circle: Pillow has it only from 10.4.
        x, y = self.at(centre)
        reach = radius * self.side
        self.draw.ellipse((x - reach, y - reach, x + reach, y + reach), colour)

    def polygon(self, corners: list[Point], colour: Colour) -> None:
        """A filled polygon."""
        self.draw.polygon([self.at(corner) for corner in corners], colour)

    def stroke(self, start: Point, stop: Point, width: float, colour: Colour) -> None:
        """A line with round ends."""
        self.draw.line((*self.at(start), *self.at(stop)), colour, width=max(1, round(width * self.side)))
        self.disc(start, width / 2, colour)
        self.disc(stop, width / 2, colour)


def inset(box: Box, *, by: float) -> Box:
    """Shrink a box (left, top, right, bottom) on all sides."""
    return (box[0] + by, box[1] + by, box[2] - by, box[3] - by)


def shaded(colour: Colour, factor: float) -> Colour:
    """Make a colour darker or lighter."""
    red, green, blue = (min(255, round(channel * factor)) for channel in colour)
    return (red, green, blue)


def _scale(pose: Pose) -> float:
    """A lifted part is nearer to the camera and so larger: 1 on the base, 0.775 in the deep tray, 1.525 in the hand."""
    return 1 + 0.75 * (pose.lift - MOUNTED_LIFT)


def _placed(pose: Pose, offsets: list[Point]) -> list[Point]:
    """Turn offsets from a part's middle into scene points; see `_scale` for its size."""
    cos, sin = _scale(pose) * math.cos(pose.angle), _scale(pose) * math.sin(pose.angle)
    return [(pose.x + cos * x - sin * y, pose.y + sin * x + cos * y) for x, y in offsets]


def _rectangle(half_width: float, half_height: float, *, y: float = 0.0) -> list[Point]:
    signs = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    return [(half_width * sign_x, y + half_height * sign_y) for sign_x, sign_y in signs]


def _draw_base(pen: Pen, pose: Pose) -> None:
    colour = COLOURS["base"]
    pen.polygon(_placed(pose, _rectangle(0.185, 0.145)), shaded(colour, 0.7))
    pen.polygon(_placed(pose, _rectangle(0.175, 0.135)), colour)
    # Dents show where the parts belong.
    pen.polygon(_placed(pose, _rectangle(0.115, 0.032, y=MOUNTS["red_bar"][1])), shaded(colour, 0.8))
    for part in ("blue_disc", "green_triangle"):
        pen.disc(_placed(pose, [MOUNTS[part]])[0], 0.05, shaded(colour, 0.8))


def _draw_red_bar(pen: Pen, pose: Pose) -> None:
    colour = COLOURS["red_bar"]
    pen.polygon(_placed(pose, _rectangle(0.108, 0.034)), shaded(colour, 0.65))
    pen.polygon(_placed(pose, _rectangle(0.102, 0.026)), colour)
    pen.polygon(_placed(pose, _rectangle(0.095, 0.006, y=-0.014)), shaded(colour, 1.25))


def _draw_blue_disc(pen: Pen, pose: Pose) -> None:
    colour, scale = COLOURS["blue_disc"], _scale(pose)
    pen.disc((pose.x, pose.y), 0.062 * scale, shaded(colour, 0.65))
    pen.disc((pose.x, pose.y), 0.055 * scale, colour)
    pen.disc(_placed(pose, [(0.0, -0.02)])[0], 0.018, shaded(colour, 1.3))


def _draw_green_triangle(pen: Pen, pose: Pose) -> None:
    colour = COLOURS["green_triangle"]
    for radius, shade in ((0.082, 0.65), (0.07, 1.0)):
        angles = (math.tau * (third / 3 - 0.25) for third in range(3))
        corners = [(radius * math.cos(angle), radius * math.sin(angle)) for angle in angles]
        pen.polygon(_placed(pose, corners), shaded(colour, shade))


def _draw_yellow_peg(pen: Pen, pose: Pose) -> None:
    colour = COLOURS["yellow_peg"]
    pen.polygon(_placed(pose, _rectangle(0.018, 0.06)), shaded(colour, 0.75))
    pen.disc(_placed(pose, [(0.0, -0.045)])[0], 0.035, colour)


def _draw_tall_base(pen: Pen, pose: Pose) -> None:
    colour = COLOURS["base"]
    pen.polygon(_placed(pose, _rectangle(0.2, 0.235)), shaded(colour, 0.7))
    pen.polygon(_placed(pose, _rectangle(0.19, 0.225)), colour)
    for part, (x, y) in LOOK_ALIKES.mounts.items():
        if part.endswith("red_bar"):
            dent = [(x + dx, y + dy) for dx, dy in _rectangle(0.115, 0.032)]
            pen.polygon(_placed(pose, dent), shaded(colour, 0.8))
        elif part != LOOK_ALIKES.base:
            pen.disc(_placed(pose, [(x, y)])[0], 0.05 * _scale(pose), shaded(colour, 0.8))


def _marked(draw: Callable[[Pen, Pose], None]) -> Callable[[Pen, Pose], None]:
    """The same part with a small dark mark in its middle."""

    def draw_with_mark(pen: Pen, pose: Pose) -> None:
        draw(pen, pose)
        pen.disc((pose.x, pose.y), 0.014 * _scale(pose), (40, 36, 44))

    return draw_with_mark


DRAW_PART: dict[str, Callable[[Pen, Pose], None]] = {
    "base": _draw_base,
    "tall_base": _draw_tall_base,
    "red_bar": _draw_red_bar,
    "blue_disc": _draw_blue_disc,
    "green_triangle": _draw_green_triangle,
    "yellow_peg": _draw_yellow_peg,
    "marked_red_bar": _marked(_draw_red_bar),
    "marked_blue_disc": _marked(_draw_blue_disc),
    "marked_green_triangle": _marked(_draw_green_triangle),
}


def draw_grey_shape(pen: Pen, shape: Distractor, time_seconds: float) -> None:
    """Draw a shape that means nothing, where it is at a time."""
    x, y = (
        centre + swing * math.sin(math.tau * time_seconds / period + phase)
        for centre, swing, period, phase in zip(
            shape.centre, shape.swing, shape.period_seconds, shape.phase, strict=True
        )
    )
    colour, radius = (shape.grey,) * 3, shape.radius
    if shape.is_round:
        pen.disc((x, y), radius, colour)
    else:
        pen.box((x - radius, y - radius, x + radius, y + radius), colour, corner=0.2 * radius)


def draw_hand(pen: Pen, look: Look, tip: Point, *, grip: float, is_left: bool = False) -> None:
    """Draw sleeve, arm, palm and fingers; the fingers meet at `tip`, apart when `grip` is 0 and closed when it is 1.

    A left hand is the mirror image of a right one, and comes from the left.
    """
    size, side = look.hand_size, -1.0 if is_left else 1.0

    def reach(right: float, down: float) -> Point:
        return (x + side * size * right, y + size * down)

    # A little below the grip point, so that the held part stays in sight.
    x, y = tip[0] + side * 0.02, tip[1] + 0.035
    wrist = reach(0.055, 0.17)
    elbow = (0.5 * x + (0.1 if is_left else 0.40), max(y + 0.6, 1.15))
    cuff = (wrist[0] + 0.3 * (elbow[0] - wrist[0]), wrist[1] + 0.3 * (elbow[1] - wrist[1]))
    palm, edge = reach(0.035, 0.105), shaded(look.skin, 0.78)
    pen.stroke(cuff, elbow, 0.13 * size, look.sleeve)
    pen.stroke(palm, cuff, 0.085 * size, look.skin)
    pen.disc(palm, 0.062 * size, look.skin)
    spread = 1.0 - 0.65 * grip
    for across, length in ((-0.055, 0.9), (-0.02, 1.1), (0.018, 1.1), (0.05, 0.95)):
        finger = reach(across * spread, 0.02 - 0.02 * length)
        knuckle = (palm[0] + side * size * 0.8 * across, palm[1] - size * 0.03)
        pen.stroke(knuckle, finger, 0.034 * size, edge)
        pen.stroke(knuckle, finger, 0.026 * size, look.skin)


def draw_screwdriver(pen: Pen, tip: Point) -> None:
    """Draw a screwdriver that stands on `tip`; the hand that holds it at `HANDLE` is drawn over it."""
    middle, end = (tip[0] + 0.6 * HANDLE[0], tip[1] + 0.6 * HANDLE[1]), (tip[0] + 0.09, tip[1] + 0.14)
    pen.stroke(tip, middle, 0.02, (70, 72, 78))
    pen.stroke(middle, end, 0.055, (214, 120, 34))
