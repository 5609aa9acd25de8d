"""Draw one frame of a scripted procedure: a scene state in, RGB pixels out.

Shapes are drawn with Pillow at twice the size and averaged down; then light, colour cast and sensor noise are added.
A frame depends only on the look, the state and its index, so frames may be drawn in any order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from reelwright.stages.synthesize.procedures.script import MOUNTED_LIFT, MOUNTS, PARTS, Point, Pose, SceneState

Colour = tuple[int, int, int]

SUPERSAMPLING = 2
JITTER_FRACTION = 0.012  # Largest shift of the camera, of the scene's side.
COLOURS: dict[str, Colour] = {
    "base": (112, 74, 138),
    "red_bar": (205, 52, 46),
    "blue_disc": (48, 92, 200),
    "green_triangle": (52, 158, 78),
    "yellow_peg": (226, 190, 52),
}
SKINS: tuple[Colour, ...] = ((236, 188, 152), (206, 150, 112), (158, 108, 78), (116, 78, 56))
SLEEVES: tuple[Colour, ...] = ((44, 50, 72), (96, 52, 62), (52, 78, 70), (222, 220, 212))
TABLES: tuple[Colour, ...] = ((176, 166, 150), (166, 168, 166), (184, 176, 162), (160, 156, 148))
TRAY_BOX = (0.02, 0.05, 0.455, 0.82)
MAT_HALF_SIDE = 0.225
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Distractor:
    """A grey shape that drifts over the table on a Lissajous curve; sizes are fractions of the scene's side."""

    centre: Point
    swing: Point
    period_seconds: Point
    phase: Point
    radius: float
    grey: int
    is_round: bool


@dataclass(frozen=True)
class Look:
    """How one video looks: colours, light, camera shake, noise, and the grey shapes that distract."""

    table: Colour
    skin: Colour
    sleeve: Colour
    light_amplitude: float  # Of the brightness, 0 to 1.
    light_period_seconds: float
    light_phase: float
    colour_cast: tuple[float, float, float]  # Factor per channel.
    shake: float  # Largest shift of the camera as a share of `JITTER_FRACTION`, 0 to 1.
    shake_periods_seconds: Point
    shake_phase: float
    noise_level: float  # Standard deviation in grey levels of 0 to 255.
    noise_seed: int
    distractors: tuple[Distractor, ...]


def draw_look(rng: np.random.Generator) -> Look:
    """Draw the look of one video from the rng."""
    return Look(
        table=TABLES[int(rng.integers(len(TABLES)))],
        skin=SKINS[int(rng.integers(len(SKINS)))],
        sleeve=SLEEVES[int(rng.integers(len(SLEEVES)))],
        light_amplitude=float(rng.uniform(0.02, 0.07)),
        light_period_seconds=float(rng.uniform(6.0, 20.0)),
        light_phase=float(rng.uniform(0.0, math.tau)),
        colour_cast=(float(rng.uniform(0.97, 1.03)), 1.0, float(rng.uniform(0.97, 1.03))),
        shake=float(rng.uniform(0.4, 1.0)),
        shake_periods_seconds=(float(rng.uniform(0.7, 1.6)), float(rng.uniform(0.7, 1.6))),
        shake_phase=float(rng.uniform(0.0, math.tau)),
        noise_level=float(rng.uniform(2.0, 5.0)),
        noise_seed=int(rng.integers(2**63)),
        distractors=tuple(_draw_distractor(rng) for _ in range(int(rng.integers(2, 4)))),
    )


def _draw_distractor(rng: np.random.Generator) -> Distractor:
    def pair(low: float, high: float) -> Point:
        return (float(rng.uniform(low, high)), float(rng.uniform(low, high)))

    return Distractor(
        centre=pair(0.15, 0.85),
        swing=pair(0.1, 0.45),
        period_seconds=pair(5.0, 14.0),
        phase=pair(0.0, math.tau),
        radius=float(rng.uniform(0.025, 0.05)),
        grey=int(rng.integers(90, 200)),
        is_round=bool(rng.random() < 0.5),
    )


class Renderer:
    """Draws the frames of one video; the empty table is drawn once and kept."""

    def __init__(self, look: Look, *, size: tuple[int, int], work_centre: Point) -> None:
        """`size` is (height, width) in pixels; the scene is the largest centred square, the table fills the rest."""
        self.look = look
        self.height, self.width = size
        self.side = SUPERSAMPLING * min(size)
        self.left = (SUPERSAMPLING * self.width - self.side) / 2
        self.top = (SUPERSAMPLING * self.height - self.side) / 2
        self.margin = math.ceil(JITTER_FRACTION * self.side) + 1
        self.table = self._draw_table(work_centre)

    def render(self, state: SceneState, *, index: int, time_seconds: float) -> npt.NDArray[np.uint8]:
        """Draw a frame: (H, W, 3) uint8 RGB. `index` chooses the noise, `time_seconds` light, shake and distractors."""
        shift_x, shift_y = self._shake(time_seconds)
        left, top = self.margin + shift_x, self.margin + shift_y
        canvas = self.table.crop((left, top, left + SUPERSAMPLING * self.width, top + SUPERSAMPLING * self.height))
        pen = _Pen(ImageDraw.Draw(canvas), self.side, self.left - shift_x, self.top - shift_y)
        self._draw_scene(pen, state, time_seconds)
        return self._expose(np.asarray(canvas.reduce(SUPERSAMPLING)), index, time_seconds)

    def _draw_table(self, work_centre: Point) -> Image.Image:
        """Draw the empty table, larger than a frame by the margin, with grain, tray and work mat."""
        width, height = (SUPERSAMPLING * pixels + 2 * self.margin for pixels in (self.width, self.height))
        image = Image.new("RGB", (width, height), self.look.table)
        draw = ImageDraw.Draw(image)
        rng = np.random.default_rng(self.look.noise_seed)
        for y in np.sort(rng.uniform(0, height, size=14)).tolist():
            draw.line((0, y, width, y + float(rng.normal(0, 6))), _shade(self.look.table, 0.93), width=2)
        pen = _Pen(draw, self.side, self.left + self.margin, self.top + self.margin)
        x, y = work_centre
        half = MAT_HALF_SIDE
        pen.box((x - half, y - half, x + half, y + half), _shade(self.look.table, 0.72), corner=0.02)
        pen.box(TRAY_BOX, _shade(self.look.table, 0.6), corner=0.03)
        pen.box(_inset(TRAY_BOX, by=0.015), _shade(self.look.table, 1.18), corner=0.02)
        return image

    def _shake(self, time_seconds: float) -> tuple[int, int]:
        """Camera shift in supersampled pixels, never beyond the margin."""
        first, second = self.look.shake_periods_seconds
        reach = self.look.shake * JITTER_FRACTION * self.side
        x = math.sin(math.tau * time_seconds / first + self.look.shake_phase)
        y = math.sin(math.tau * time_seconds / second) * math.sin(time_seconds + self.look.shake_phase)
        return round(reach * x), round(reach * y)

    def _draw_scene(self, pen: _Pen, state: SceneState, time_seconds: float) -> None:
        """Draw what lies, then what is held, then the hand over it."""
        for distractor in self.look.distractors:
            _draw_grey_shape(pen, distractor, time_seconds)
        for part in PARTS:
            if part != state.held:
                DRAW_PART[part](pen, state.parts[part])
        if state.held:
            pose = state.parts[state.held]
            pen.disc(
                (pose.x + 0.02 * pose.lift, pose.y + 0.03 * pose.lift), 0.07 * pose.lift, _shade(self.look.table, 0.6)
            )
            DRAW_PART[state.held](pen, pose)
        grip = state.parts[state.held].lift if state.held else 0.0
        _draw_hand(pen, self.look, state.hand, grip=grip)

    def _expose(self, pixels: npt.NDArray[np.uint8], index: int, time_seconds: float) -> npt.NDArray[np.uint8]:
        """Apply light, colour cast and sensor noise to (H, W, 3) pixels."""
        look = self.look
        swing = math.sin(math.tau * time_seconds / look.light_period_seconds + look.light_phase)
        gain = np.asarray(look.colour_cast, dtype=np.float32) * np.float32(1 + look.light_amplitude * swing)
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(look.noise_seed, spawn_key=(index,))))
        noise = rng.standard_normal(pixels.shape, dtype=np.float32) * np.float32(look.noise_level)
        exposed: npt.NDArray[np.float32] = pixels * gain + noise
        return exposed.clip(0, 255).astype(np.uint8)


@dataclass(frozen=True)
class _Pen:
    """Draws in scene coordinates: fractions of the square of `side` pixels whose corner is at (left, top)."""

    draw: ImageDraw.ImageDraw
    side: int
    left: float
    top: float

    def at(self, point: Point) -> Point:
        return (self.left + point[0] * self.side, self.top + point[1] * self.side)

    def box(self, box: Box, colour: Colour, *, corner: float) -> None:
        corners = (*self.at((box[0], box[1])), *self.at((box[2], box[3])))
        self.draw.rounded_rectangle(corners, corner * self.side, colour)

    def disc(self, centre: Point, radius: float, colour: Colour) -> None:
        # Not ImageDraw.circle: Pillow has it only from 10.4.
        x, y = self.at(centre)
        reach = radius * self.side
        self.draw.ellipse((x - reach, y - reach, x + reach, y + reach), colour)

    def polygon(self, corners: list[Point], colour: Colour) -> None:
        self.draw.polygon([self.at(corner) for corner in corners], colour)

    def stroke(self, start: Point, stop: Point, width: float, colour: Colour) -> None:
        """A line with round ends."""
        self.draw.line((*self.at(start), *self.at(stop)), colour, width=max(1, round(width * self.side)))
        self.disc(start, width / 2, colour)
        self.disc(stop, width / 2, colour)


def _inset(box: Box, *, by: float) -> Box:
    """Shrink a box (left, top, right, bottom) on all sides."""
    return (box[0] + by, box[1] + by, box[2] - by, box[3] - by)


def _shade(colour: Colour, factor: float) -> Colour:
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


def _draw_base(pen: _Pen, pose: Pose) -> None:
    colour = COLOURS["base"]
    pen.polygon(_placed(pose, _rectangle(0.185, 0.145)), _shade(colour, 0.7))
    pen.polygon(_placed(pose, _rectangle(0.175, 0.135)), colour)
    # Dents show where the parts belong.
    pen.polygon(_placed(pose, _rectangle(0.115, 0.032, y=MOUNTS["red_bar"][1])), _shade(colour, 0.8))
    for part in ("blue_disc", "green_triangle"):
        pen.disc(_placed(pose, [MOUNTS[part]])[0], 0.05, _shade(colour, 0.8))


def _draw_red_bar(pen: _Pen, pose: Pose) -> None:
    colour = COLOURS["red_bar"]
    pen.polygon(_placed(pose, _rectangle(0.108, 0.034)), _shade(colour, 0.65))
    pen.polygon(_placed(pose, _rectangle(0.102, 0.026)), colour)
    pen.polygon(_placed(pose, _rectangle(0.095, 0.006, y=-0.014)), _shade(colour, 1.25))


def _draw_blue_disc(pen: _Pen, pose: Pose) -> None:
    colour, scale = COLOURS["blue_disc"], _scale(pose)
    pen.disc((pose.x, pose.y), 0.062 * scale, _shade(colour, 0.65))
    pen.disc((pose.x, pose.y), 0.055 * scale, colour)
    pen.disc(_placed(pose, [(0.0, -0.02)])[0], 0.018, _shade(colour, 1.3))


def _draw_green_triangle(pen: _Pen, pose: Pose) -> None:
    colour = COLOURS["green_triangle"]
    for radius, shade in ((0.082, 0.65), (0.07, 1.0)):
        angles = (math.tau * (third / 3 - 0.25) for third in range(3))
        corners = [(radius * math.cos(angle), radius * math.sin(angle)) for angle in angles]
        pen.polygon(_placed(pose, corners), _shade(colour, shade))


def _draw_yellow_peg(pen: _Pen, pose: Pose) -> None:
    colour = COLOURS["yellow_peg"]
    pen.polygon(_placed(pose, _rectangle(0.018, 0.06)), _shade(colour, 0.75))
    pen.disc(_placed(pose, [(0.0, -0.045)])[0], 0.035, colour)


DRAW_PART = {
    "base": _draw_base,
    "red_bar": _draw_red_bar,
    "blue_disc": _draw_blue_disc,
    "green_triangle": _draw_green_triangle,
    "yellow_peg": _draw_yellow_peg,
}


def _draw_grey_shape(pen: _Pen, shape: Distractor, time_seconds: float) -> None:
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


def _draw_hand(pen: _Pen, look: Look, tip: Point, *, grip: float) -> None:
    """Draw sleeve, arm, palm and fingers; the fingers meet at `tip`, apart when `grip` is 0 and closed when it is 1."""
    # A little below the grip point, so that the held part stays in sight.
    x, y = tip[0] + 0.02, tip[1] + 0.035
    wrist, elbow = (x + 0.055, y + 0.17), (0.5 * x + 0.40, max(y + 0.6, 1.15))
    cuff = (wrist[0] + 0.3 * (elbow[0] - wrist[0]), wrist[1] + 0.3 * (elbow[1] - wrist[1]))
    palm, edge = (x + 0.035, y + 0.105), _shade(look.skin, 0.78)
    pen.stroke(cuff, elbow, 0.13, look.sleeve)
    pen.stroke(palm, cuff, 0.085, look.skin)
    pen.disc(palm, 0.062, look.skin)
    spread = 1.0 - 0.65 * grip
    for side, length in ((-0.055, 0.9), (-0.02, 1.1), (0.018, 1.1), (0.05, 0.95)):
        finger = (x + side * spread, y + 0.02 - 0.02 * length)
        knuckle = (palm[0] + 0.8 * side, palm[1] - 0.03)
        pen.stroke(knuckle, finger, 0.034, edge)
        pen.stroke(knuckle, finger, 0.026, look.skin)
