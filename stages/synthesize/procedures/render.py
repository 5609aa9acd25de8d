"""Draw one frame of a scripted procedure: a scene state in, RGB pixels out.

Shapes are drawn with Pillow at twice the size and averaged down; then light, colour cast and sensor noise are added.
A frame depends only on the look, the state and its index, so frames may be drawn in any order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from reelwright.stages.synthesize.procedures.look import JITTER_FRACTION, Look
from reelwright.stages.synthesize.procedures.pen import (
    DRAW_PART,
    HANDLE,
    Pen,
    draw_grey_shape,
    draw_hand,
    draw_screwdriver,
    inset,
    shaded,
)
from reelwright.stages.synthesize.procedures.script import Point, SceneState, Script, state_at

SUPERSAMPLING = 2
TRAY_BOX = (0.02, 0.05, 0.455, 0.82)
MAT_HALF_SIDE = 0.225
MOVING_MARGIN = 0.35  # Of the side: so much more of the table is drawn where the camera moves.


class Renderer:
    """Draws the frames of one video; the empty table is drawn once and kept."""

    def __init__(self, look: Look, *, size: tuple[int, int], work_centre: Point) -> None:
        """`size` is (height, width) in pixels; the scene is the largest centred square, the table fills the rest."""
        self.look = look
        self.height, self.width = size
        self.side = SUPERSAMPLING * min(size)
        self.left = (SUPERSAMPLING * self.width - self.side) / 2
        self.top = (SUPERSAMPLING * self.height - self.side) / 2
        moves = 0.0 if look.camera is None else MOVING_MARGIN
        self.margin = math.ceil((JITTER_FRACTION + moves) * self.side) + 1
        self.table = self._draw_table(work_centre)

    def render(self, state: SceneState, *, index: int, time_seconds: float) -> npt.NDArray[np.uint8]:
        """Draw a frame: (H, W, 3) uint8 RGB. `index` chooses the noise, `time_seconds` light, shake and distractors."""
        shift_x, shift_y = self._shake(time_seconds)
        left, top = self.margin + shift_x, self.margin + shift_y
        if self.look.camera is None:
            canvas = self.table.crop((left, top, left + SUPERSAMPLING * self.width, top + SUPERSAMPLING * self.height))
            pen = Pen(ImageDraw.Draw(canvas), self.side, self.left - shift_x, self.top - shift_y)
            self._draw_scene(pen, state, time_seconds)
            pixels = canvas.reduce(SUPERSAMPLING)
        else:
            whole = self.table.copy()
            pen = Pen(ImageDraw.Draw(whole), self.side, self.left + self.margin, self.top + self.margin)
            self._draw_scene(pen, state, time_seconds)
            pixels = self._seen(whole, self.look.camera.at(time_seconds), (shift_x, shift_y))
        return self._expose(np.asarray(pixels), index, time_seconds)

    def frames(self, script: Script) -> Iterator[npt.NDArray[np.uint8]]:
        """All frames of a script, as `render` gives them."""
        for index in range(script.num_frames):
            seconds = index / script.fps
            yield self.render(state_at(script, seconds), index=index, time_seconds=seconds)

    def _draw_table(self, work_centre: Point) -> Image.Image:
        """Draw the empty table, larger than a frame by the margin, with grain, tray and work mat."""
        width, height = (SUPERSAMPLING * pixels + 2 * self.margin for pixels in (self.width, self.height))
        image = Image.new("RGB", (width, height), self.look.table)
        draw = ImageDraw.Draw(image)
        rng = np.random.default_rng(self.look.noise_seed)
        for y in np.sort(rng.uniform(0, height, size=14)).tolist():
            draw.line((0, y, width, y + float(rng.normal(0, 6))), shaded(self.look.table, 0.93), width=2)
        pen = Pen(draw, self.side, self.left + self.margin, self.top + self.margin)
        x, y = work_centre
        half = MAT_HALF_SIDE
        pen.box((x - half, y - half, x + half, y + half), shaded(self.look.table, 0.72), corner=0.02)
        pen.box(TRAY_BOX, shaded(self.look.table, 0.6), corner=0.03)
        pen.box(inset(TRAY_BOX, by=0.015), shaded(self.look.table, 1.18), corner=0.02)
        return image

    def _shake(self, time_seconds: float) -> tuple[int, int]:
        """Camera shift in supersampled pixels, never beyond the margin."""
        first, second = self.look.shake_periods_seconds
        reach = self.look.shake * JITTER_FRACTION * self.side
        x = math.sin(math.tau * time_seconds / first + self.look.shake_phase)
        y = math.sin(math.tau * time_seconds / second) * math.sin(time_seconds + self.look.shake_phase)
        return round(reach * x), round(reach * y)

    def _seen(self, whole: Image.Image, view: tuple[float, float, float, float], shake: tuple[int, int]) -> Image.Image:
        """What the moving camera sees of the whole table, at the size of a frame.

        A pixel is interpolated between the four that lie around its centre, and so about their mean.
        """
        width, height = self.width, self.height
        x, y, turn, zoom = view
        across, down = SUPERSAMPLING * math.cos(turn) / zoom, SUPERSAMPLING * math.sin(turn) / zoom
        centre_x = whole.width / 2 + shake[0] + x * self.side
        centre_y = whole.height / 2 + shake[1] + y * self.side
        corner_x = centre_x - across * width / 2 + down * height / 2
        corner_y = centre_y - down * width / 2 - across * height / 2
        return whole.transform(
            (width, height),
            Image.Transform.AFFINE,
            (across, -down, corner_x, down, across, corner_y),
            resample=Image.Resampling.BILINEAR,
            fillcolor=self.look.table,
        )

    def _draw_scene(self, pen: Pen, state: SceneState, time_seconds: float) -> None:
        """Draw what lies, then what is held, then the hand over it."""
        for distractor in self.look.distractors:
            draw_grey_shape(pen, distractor, time_seconds)
        for part in state.parts:
            if part != state.held:
                DRAW_PART[part](pen, state.parts[part])
        if state.held:
            pose = state.parts[state.held]
            pen.disc(
                (pose.x + 0.02 * pose.lift, pose.y + 0.03 * pose.lift), 0.07 * pose.lift, shaded(self.look.table, 0.6)
            )
            DRAW_PART[state.held](pen, pose)
        grip = state.parts[state.held].lift if state.held else float(state.tool)
        if state.second_hand is not None:
            draw_hand(pen, self.look, state.second_hand, grip=0.5, is_left=True)
        hand = state.hand
        if state.tool:
            draw_screwdriver(pen, hand)
            hand = (hand[0] + HANDLE[0], hand[1] + HANDLE[1])
        draw_hand(pen, self.look, hand, grip=grip)

    def _expose(self, pixels: npt.NDArray[np.uint8], index: int, time_seconds: float) -> npt.NDArray[np.uint8]:
        """Apply light, colour cast and sensor noise to (H, W, 3) pixels."""
        look = self.look
        swing = math.sin(math.tau * time_seconds / look.light_period_seconds + look.light_phase)
        gain = np.asarray(look.colour_cast, dtype=np.float32) * np.float32(1 + look.light_amplitude * swing)
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(look.noise_seed, spawn_key=(index,))))
        noise = rng.standard_normal(pixels.shape, dtype=np.float32) * np.float32(look.noise_level)
        exposed: npt.NDArray[np.float32] = pixels * gain + noise
        return exposed.clip(0, 255).astype(np.uint8)
