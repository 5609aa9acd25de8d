"""Script an assembly procedure: which hand movement happens when, as plain arithmetic (no pixels, no files).

A script is a chain of `Leg`s; each leg moves one hand from one point to another while it may carry one part:

    idle | place_base | idle | add_red_bar ........ | put_back .. | add_blue_disc ............ | idle | ...
    rest   reach grasp  rest   reach grasp carry      carry lay     reach grasp carry release    rest
           carry release       (a wrong attempt: the part turns around before it is mounted)

The way out of a wrong attempt is labelled like any `add_*` phase and its way back `put_back`: one frame of the two
looks the same, only the direction of the movement tells them apart. In the same way an empty hand may be reaching
(`add_*`) or returning (`idle`). Parts are mounted at places that do not overlap, so a finished assembly does not show
its order.

Coordinates are fractions of the scene's square: x to the right, y down. Angles are radians, clockwise on screen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise

import numpy as np

Point = tuple[float, float]

IDLE = "idle"
PUT_BACK = "put_back"
PHASE_OF_PART = {
    "base": "place_base",
    "red_bar": "add_red_bar",
    "blue_disc": "add_blue_disc",
    "green_triangle": "add_green_triangle",
}
PHASES = (IDLE, *PHASE_OF_PART.values(), PUT_BACK)
PARTS = (*PHASE_OF_PART, "yellow_peg")
VARIANTS: dict[str, tuple[str, ...]] = {
    "red_blue_green": ("red_bar", "blue_disc", "green_triangle"),
    "blue_green_red": ("blue_disc", "green_triangle", "red_bar"),
    "green_red_blue": ("green_triangle", "red_bar", "blue_disc"),
}
MIN_DURATION_SECONDS = 12.0
MAX_DURATION_SECONDS = 25.0

BASE_HOME: Point = (0.235, 0.63)
SMALL_HOMES: tuple[Point, ...] = ((0.13, 0.16), (0.34, 0.16), (0.13, 0.36), (0.34, 0.36))
WORK_CENTRE: Point = (0.73, 0.40)
# Where a part ends, measured from the middle of the base.
MOUNTS: dict[str, Point] = {
    "base": (0.0, 0.0),
    "red_bar": (0.0, -0.075),
    "blue_disc": (-0.085, 0.055),
    "green_triangle": (0.085, 0.055),
}
HAND_REST: Point = (0.60, 0.93)
MOUNTED_LIFT = 0.3


@dataclass(frozen=True)
class Pose:
    """Where a part lies. `lift` is its height, 0 (in the tray), `MOUNTED_LIFT` or 1 (carried)."""

    x: float
    y: float
    angle: float = 0.0
    lift: float = 0.0


@dataclass(frozen=True)
class Leg:
    """One movement of the hand over `[start_seconds, stop_seconds)`.

    `bend` bows the path sideways, as a fraction of its length. `part` is what the hand holds ("" for nothing), which
    turns and lifts from the first to the second value of `angle` and `lift`. `step` is the step that is complete when
    the leg stops ("" for none).
    """

    start_seconds: float
    stop_seconds: float
    origin: Point
    target: Point
    phase: str
    bend: float = 0.0
    part: str = ""
    angle: tuple[float, float] = (0.0, 0.0)
    lift: tuple[float, float] = (0.0, 0.0)
    step: str = ""


@dataclass(frozen=True)
class Segment:
    """A phase over `[start_seconds, stop_seconds)`."""

    start_seconds: float
    stop_seconds: float
    label: str


@dataclass(frozen=True)
class Script:
    """Everything that happens in one video. Legs are contiguous from 0 to `num_frames / fps` seconds."""

    variant: str
    fps: float
    num_frames: int
    homes: dict[str, Pose]
    work_centre: Point
    legs: tuple[Leg, ...]

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Phases that cover the whole video without gaps; neighbours differ."""
        merged: list[Segment] = []
        for leg in self.legs:
            if merged and merged[-1].label == leg.phase:
                merged[-1] = replace(merged[-1], stop_seconds=leg.stop_seconds)
            else:
                merged.append(Segment(leg.start_seconds, leg.stop_seconds, leg.phase))
        return tuple(merged)

    @property
    def steps(self) -> tuple[tuple[float, str], ...]:
        """(time_seconds, step) of every completed step, in order of time."""
        return tuple((leg.stop_seconds, leg.step) for leg in self.legs if leg.step)


@dataclass
class _Draft:
    """A script being written: legs whose times are still weights, the hand where the last leg left it."""

    rng: np.random.Generator
    homes: dict[str, Pose]
    work_centre: Point
    hand: Point = HAND_REST
    legs: list[Leg] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)

    def move(self, target: Point, *, phase: str, weight: float, **fields: object) -> None:
        """Add a leg from where the hand is; its duration is `weight`, spread by a log-normal factor."""
        bend = float(self.rng.normal(0.0, 0.12))
        leg = Leg(0.0, 0.0, self.hand, target, phase, bend=bend)
        self.legs.append(replace(leg, **fields))  # type: ignore[arg-type]
        self.weights.append(weight * float(self.rng.lognormal(0.0, 0.25)))
        self.hand = target

    def near(self, point: Point, spread: float) -> Point:
        """A point drawn around `point`."""
        dx, dy = self.rng.normal(0.0, spread, size=2)
        return (point[0] + float(dx), point[1] + float(dy))

    def rest(self, *, weight: float) -> None:
        """Draw the empty hand back to the table's edge and wait there, fidgeting."""
        self.move(self.near(HAND_REST, 0.03), phase=IDLE, weight=0.6)
        self.move(self.near(self.hand, 0.012), phase=IDLE, weight=weight)

    def grasp(self, part: str, *, phase: str) -> None:
        """Reach for a part in the tray and lift it, sometimes after a hesitation above it."""
        home = self.homes[part]
        if self.rng.random() < 0.3:
            self.move(self.near((home.x, home.y), 0.06), phase=phase, weight=0.5)
        self.move((home.x, home.y), phase=phase, weight=0.6)
        self.move((home.x, home.y), phase=phase, weight=0.25, part=part, angle=(home.angle,) * 2, lift=(0.0, 1.0))

    def carry(self, part: str, target: Point, *, phase: str, angle: tuple[float, float], weight: float) -> None:
        """Carry a lifted part, sometimes with a pause on the way."""
        middle = (angle[0] + angle[1]) / 2
        if self.rng.random() < 0.4:
            halfway = ((self.hand[0] + target[0]) / 2, (self.hand[1] + target[1]) / 2)
            stop = self.near(halfway, 0.03)
            lifted = {"part": part, "lift": (1.0, 1.0)}
            self.move(stop, phase=phase, weight=weight / 2, angle=(angle[0], middle), **lifted)
            self.move(self.near(stop, 0.006), phase=phase, weight=0.4, angle=(middle, middle), **lifted)
            angle, weight = (middle, angle[1]), weight / 2
        self.move(target, phase=phase, weight=weight, part=part, angle=angle, lift=(1.0, 1.0))

    def lay(self, part: str, *, phase: str, angle: float, lift: float = 0.0, step: str = "") -> None:
        """Lower the held part to the height `lift` where the hand is."""
        self.move(self.hand, phase=phase, weight=0.35, part=part, angle=(angle, angle), lift=(1.0, lift), step=step)

    def mount(self, part: str) -> None:
        """Fetch a part and put it in its place on the base: one completed step."""
        phase = PHASE_OF_PART[part]
        target = (self.work_centre[0] + MOUNTS[part][0], self.work_centre[1] + MOUNTS[part][1])
        self.grasp(part, phase=phase)
        self.carry(part, target, phase=phase, angle=(self.homes[part].angle, 0.0), weight=1.5)
        self.lay(part, phase=phase, angle=0.0, lift=MOUNTED_LIFT, step=phase)

    def attempt(self, part: str) -> None:
        """Fetch a part, carry it (nearly) to the base, and put it back into the tray: no step."""
        home, phase = self.homes[part], PHASE_OF_PART[part]
        share = float(self.rng.uniform(0.55, 0.95))
        turning = tuple((1 - share) * a + share * b for a, b in zip((home.x, home.y), self.work_centre, strict=True))
        tilted = home.angle * (1 - share)
        self.grasp(part, phase=phase)
        self.carry(part, (turning[0], turning[1]), phase=phase, angle=(home.angle, tilted), weight=1.1)
        self.carry(part, (home.x, home.y), phase=PUT_BACK, angle=(tilted, home.angle), weight=1.6)
        self.lay(part, phase=PUT_BACK, angle=home.angle)

    def fiddle(self) -> None:
        """Lift the part that belongs nowhere, turn it in the tray and lay it back: still idle."""
        part, home = "yellow_peg", self.homes["yellow_peg"]
        self.grasp(part, phase=IDLE)
        for target in (self.near(self.hand, 0.04), (home.x, home.y)):
            self.move(target, phase=IDLE, weight=0.4, part=part, angle=(home.angle,) * 2, lift=(1.0, 1.0))
        self.lay(part, phase=IDLE, angle=home.angle)


def make_script(rng: np.random.Generator, *, variant: str, fps: float) -> Script:
    """Draw one video's script: 12 to 25 s, one or two wrong attempts, every phase of `PHASES` at least once.

    The rng alone decides everything but the order of assembly, which is `VARIANTS[variant]`.
    Raises ValueError for an unknown variant or an fps that is not above 0.
    """
    if variant not in VARIANTS:
        raise ValueError(f"unknown variant {variant!r}: choose one of {', '.join(VARIANTS)}")
    if not (math.isfinite(fps) and fps > 0):
        raise ValueError(f"fps is {fps!r}: it has to be a finite number above 0 (frames per second)")
    draft = _Draft(rng, _draw_homes(rng), (WORK_CENTRE[0] + _jitter(rng, 0.02), WORK_CENTRE[1] + _jitter(rng, 0.02)))
    _draft_procedure(draft, VARIANTS[variant])
    # Whole frames, inside the promised range also after rounding.
    low, high = math.ceil(MIN_DURATION_SECONDS * fps), math.floor(MAX_DURATION_SECONDS * fps)
    num_frames = max(1, min(high, max(low, round(rng.uniform(MIN_DURATION_SECONDS, MAX_DURATION_SECONDS) * fps))))
    legs = _time_legs(draft.legs, draft.weights, duration_seconds=num_frames / fps)
    return Script(variant, fps, num_frames, draft.homes, draft.work_centre, legs)


def _draft_procedure(draft: _Draft, order: tuple[str, ...]) -> None:
    """Write the legs: base first, then the parts in order, with wrong attempts and fiddling before some of them."""
    rng = draft.rng
    attempts_before = set(rng.choice(len(order), size=int(rng.integers(1, 3)), replace=False).tolist())
    draft.rest(weight=0.8)
    draft.mount("base")
    for index, part in enumerate(order):
        if rng.random() < 0.6:
            draft.rest(weight=0.3)
        if rng.random() < 0.2:
            draft.fiddle()
        if index in attempts_before:
            draft.attempt(str(rng.choice(order[index:])))
        draft.mount(part)
    draft.rest(weight=1.0)


def _draw_homes(rng: np.random.Generator) -> dict[str, Pose]:
    """Lay the parts into the tray: the base below, the small ones in shuffled places at random angles."""
    homes = {"base": Pose(BASE_HOME[0] + _jitter(rng, 0.01), BASE_HOME[1] + _jitter(rng, 0.01), _jitter(rng, 0.12))}
    for part, slot in zip(PARTS[1:], rng.permutation(len(SMALL_HOMES)).tolist(), strict=True):
        x, y = SMALL_HOMES[slot]
        homes[part] = Pose(x + _jitter(rng, 0.012), y + _jitter(rng, 0.012), _jitter(rng, 0.8))
    return homes


def _jitter(rng: np.random.Generator, amount: float) -> float:
    return float(rng.uniform(-amount, amount))


def _time_legs(legs: list[Leg], weights: list[float], *, duration_seconds: float) -> tuple[Leg, ...]:
    """Give the legs contiguous times, in proportion to their weights, on whole milliseconds except for the end."""
    scale = duration_seconds / sum(weights)
    times = [0.0, *(round(total * scale, 3) for total in accumulate(weights))]
    times[-1] = duration_seconds
    return tuple(
        replace(leg, start_seconds=start, stop_seconds=stop)
        for leg, (start, stop) in zip(legs, pairwise(times), strict=True)
    )
