"""How a procedure video looks: colours of hand, sleeve and table, the camera's jitter, and shapes that mean nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from reelwright.stages.synthesize.procedures.script import Point

Colour = tuple[int, int, int]

JITTER_FRACTION = 0.012  # Largest shift of the camera, of the scene's side.
SKINS: tuple[Colour, ...] = ((236, 188, 152), (206, 150, 112), (158, 108, 78), (116, 78, 56))
SLEEVES: tuple[Colour, ...] = ((44, 50, 72), (96, 52, 62), (52, 78, 70), (222, 220, 212))
TABLES: tuple[Colour, ...] = ((176, 166, 150), (166, 168, 166), (184, 176, 162), (160, 156, 148))


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
    hand_size: float = 1.0
    camera: Camera | None = None  # None: it stays where it is, but for its shake


@dataclass(frozen=True)
class Camera:
    """How a camera on the head moves: slow swings, each the sum of two sines."""

    reach: float  # Largest shift, as a fraction of the scene's side.
    turn: float  # Largest rotation, radians.
    zoom: float  # Largest change of scale; 0.1: 0.9 to 1.1.
    periods_seconds: tuple[Point, ...]  # Of x, y, rotation and scale.
    phases: tuple[Point, ...]

    def at(self, time_seconds: float) -> tuple[float, float, float, float]:
        """Shift in x and y (fractions of the side), rotation (radians) and scale at a time."""
        x, y, turn, zoom = (
            sum(math.sin(math.tau * time_seconds / period + phase) for period, phase in zip(*pair, strict=True)) / 2
            for pair in zip(self.periods_seconds, self.phases, strict=True)
        )
        return self.reach * x, self.reach * y, self.turn * turn, 1 + self.zoom * zoom


def draw_look(rng: np.random.Generator, *, hand_size: float = 1.0, camera: float = 0.0) -> Look:
    """Draw the look of one video from the rng.

    ``hand_size`` is the hands' in usual ones; ``camera`` how much the camera moves, 0 (not at all) to 1.
    """
    look = _draw_still(rng)
    return replace(look, hand_size=hand_size, camera=_draw_camera(rng, camera) if camera else None)


def _draw_camera(rng: np.random.Generator, amount: float) -> Camera:
    def pairs(*bounds: Point) -> tuple[Point, ...]:
        return tuple(tuple(rng.uniform(*both) for both in bounds) for _ in range(4))  # type: ignore[misc]

    return Camera(
        reach=0.22 * amount,
        turn=0.35 * amount,
        zoom=0.25 * amount,
        periods_seconds=pairs((3.0, 7.0), (11.0, 29.0)),
        phases=pairs((0.0, math.tau), (0.0, math.tau)),
    )


def _draw_still(rng: np.random.Generator) -> Look:
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
