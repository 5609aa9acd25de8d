"""How objects and cameras move: what is drawn for a clip, and where each of its frames then lies. Pure arithmetic.

A displacement enlarges the picture by a margin and moves the crop over it, so that no edge comes into sight:

    +-----------+  H + margin        offsets (row, column) of the crop in the enlarged picture, one a frame
    | +-----+   |
    | |  H  |-> |
    | +-----+   |
    +-----------+

Strengths rise with the curriculum: at step s of n a bound is start + s (end - start) / n.
Source: fractal_video (3.10 of the domain reference). Shape letter: T frames of a clip.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reelwright.stages.augment.scene.config import ShakeSettings, ShiftSettings, ZoomSettings

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

SHAKE_HEIGHT = 112  # pixels; deviations of shakes are of frames this high
_WAVES = (2, 5)  # fewest and most of a shake
_FREQUENCY = (0.1, 1.2)  # radians a frame
_NOISE = 0.3  # to either side
_MIN_FRAMES = 2


@dataclass(frozen=True)
class Curriculum:
    """Where training stands: before step `step` (0, 1, ...) of `num_steps`, after which strengths stay."""

    step: int
    num_steps: int

    @property
    def is_over(self) -> bool:
        """Whether strengths are full."""
        return self.step >= self.num_steps

    def value(self, start: float, end: float) -> float:
        """A bound that goes from ``start`` to ``end``."""
        return end if self.is_over else start + self.step * ((end - start) / self.num_steps)


@dataclass(frozen=True)
class Shift:
    """A displacement."""

    speed: float  # pixels a frame
    num_moving: int  # frames that move
    angle: float  # radians; 0: the crop goes to the right, pi / 2: down
    before: int  # frames before they do


@dataclass(frozen=True)
class Crops:
    """Crops of the frame's own size from a picture that is `margin` pixels higher and wider."""

    offsets: IntArray  # (T, 2), row and column of the top left pixel
    margin: int


def moving_frames(
    duration: tuple[float, float], curriculum: Curriculum, num_frames: int, generator: np.random.Generator
) -> tuple[int, int]:
    """How many frames move, at least 2 where there are, and how many there are before."""
    shortest, longest = (
        min(num_frames, max(_MIN_FRAMES, int(share * num_frames)))
        for share in (duration[0], curriculum.value(*duration))
    )
    num_moving = int(generator.integers(shortest, longest + 1))
    return num_moving, int(generator.integers(0, num_frames - num_moving + 1))


def draw_shift(
    settings: ShiftSettings, curriculum: Curriculum, *, num_frames: int, height: int, generator: np.random.Generator
) -> Shift:
    """A displacement of frames so many pixels high."""
    slowest, fastest = (
        max(1.0, speed * height / num_frames) for speed in (settings.speed[0], curriculum.value(*settings.speed))
    )
    speed = generator.uniform(slowest, fastest)
    num_moving, before = moving_frames(settings.duration, curriculum, num_frames, generator)
    return Shift(speed, num_moving, generator.uniform(0, 2 * math.pi), before)


def shift_crops(shift: Shift, num_frames: int) -> Crops:
    """Where each frame's crop lies; whole pixels, cut off towards the start."""
    along = np.arange(shift.num_moving, dtype=np.float32) * np.float32(shift.speed)
    directions = np.array([[math.sin(shift.angle), math.cos(shift.angle)]], np.float32)
    path = (along[:, None] * directions).astype(np.int64)
    return _crops(path[np.clip(np.arange(num_frames) - shift.before, 0, shift.num_moving - 1)])


def draw_zoom(
    settings: ZoomSettings, curriculum: Curriculum, *, num_frames: int, generator: np.random.Generator
) -> FloatArray:
    """How large each frame appears, (T,) from 1 on, rising or falling."""
    speed = generator.uniform(settings.speed[0], curriculum.value(*settings.speed)) / num_frames
    num_moving, before = moving_frames(settings.duration, curriculum, num_frames, generator)
    is_backwards = generator.random() < 0.5  # a coin
    return zoom_scales(speed, num_moving, before, num_frames=num_frames, is_backwards=is_backwards)


def zoom_scales(speed: float, num_moving: int, before: int, *, num_frames: int, is_backwards: bool) -> FloatArray:
    """1, 1 + speed, 1 + 2 speed, ... over the frames that move; those around them are like their nearest."""
    scales: FloatArray = (1 + np.arange(num_moving, dtype=np.float32) * np.float32(speed)).astype(np.float64)
    scales = scales[::-1] if is_backwards else scales
    return scales[np.clip(np.arange(num_frames) - before, 0, num_moving - 1)]


def draw_shake(
    settings: ShakeSettings, curriculum: Curriculum, *, num_frames: int, height: int, generator: np.random.Generator
) -> Crops:
    """The crops of a shaking camera: 2 to 5 waves of weights 1, 1/2, 1/3, ... and noise, each axis for itself.

    Their standard deviation over the clip is drawn, in pixels. A single frame does not shake.
    """
    deviation = generator.uniform(curriculum.value(*settings.least), curriculum.value(*settings.most))
    signals = np.stack([_signal(num_frames, generator) for _ in range(2)], axis=1)
    if num_frames == 1:
        return Crops(np.zeros((1, 2), np.int64), 1)
    scaled = signals * deviation / signals.std(0, ddof=1) * height / SHAKE_HEIGHT
    return _crops(scaled.round().astype(np.int64))


def _signal(num_frames: int, generator: np.random.Generator) -> FloatArray:
    count = int(generator.integers(_WAVES[0], _WAVES[1] + 1))
    frequency, phase = generator.uniform(*_FREQUENCY, count), generator.uniform(0, 2 * math.pi)
    waves = np.sin(np.outer(np.arange(num_frames), frequency) + phase) / np.arange(1, count + 1)
    signal: FloatArray = waves.sum(1) + generator.uniform(-_NOISE, _NOISE, num_frames)
    return signal


def _crops(path_T2: IntArray) -> Crops:
    """The path inside the smallest margin, the same for both axes; along the shorter one it lies in the middle."""
    first, reach = path_T2.min(0), np.ptp(path_T2, axis=0) + 1
    margin = int(reach.max())
    return Crops(path_T2 - first + (margin - reach) // 2, margin)


def draw_corners(distortion: float, *, height: int, width: int, generator: np.random.Generator) -> FloatArray:
    """Where the corners of a frame go in perspective, (4, 2) x and y: clockwise from the top left.

    Whole pixels, as torchvision's RandomPerspective draws them.
    """
    x, y = int(distortion * (width // 2)), int(distortion * (height // 2))
    right, bottom = width - x - 1, height - y - 1
    lowest = np.array([[0, 0], [right, 0], [right, bottom], [0, bottom]])
    highest = np.array([[x, y], [width - 1, y], [width - 1, height - 1], [x, height - 1]])
    return generator.integers(lowest, highest + 1).astype(np.float64)
