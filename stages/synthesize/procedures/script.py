"""Script an assembly procedure: which hand movement happens when, and what is where at a time; plain arithmetic.

A script is a chain of `Leg`s; each leg moves one hand from one point to another while it may carry one part:

    idle | place_base | idle | add_red_bar ........ | put_back .. | add_blue_disc ............ | idle | ...
    rest   reach grasp  rest   reach grasp carry      carry lay     reach grasp carry release    rest
           carry release       (a wrong attempt: the part turns around before it is mounted)

The way out of a wrong attempt is labelled like any `add_*` phase and its way back `put_back`: one frame of the two
looks the same, only the direction of the movement tells them apart. In the same way an empty hand may be reaching
(`add_*`) or returning (`idle`). Parts are mounted at places that do not overlap, so a finished assembly does not show
its order. A script as hard as life (`life.py`) has `check` too: hands at the assembly that change nothing.

Coordinates are fractions of the scene's square: x to the right, y down. Angles are radians, clockwise on screen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

Point = tuple[float, float]
State = tuple[
    int, ...
]  # of every part that is followed: 1 mounted, 0 not, -1 something else is in its place or it is turned

IDLE = "idle"
PUT_BACK = "put_back"
CHECK = "check"
PHASE_OF_PART = {
    "base": "place_base",
    "red_bar": "add_red_bar",
    "blue_disc": "add_blue_disc",
    "green_triangle": "add_green_triangle",
}
PHASES = (IDLE, *PHASE_OF_PART.values(), PUT_BACK)
SPARE = "yellow_peg"
PARTS = (*PHASE_OF_PART, SPARE)
VARIANTS: dict[str, tuple[str, ...]] = {
    "red_blue_green": ("red_bar", "blue_disc", "green_triangle"),
    "blue_green_red": ("blue_disc", "green_triangle", "red_bar"),
    "green_red_blue": ("green_triangle", "red_bar", "blue_disc"),
}

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
class Kit:
    """The parts of an assembly; the first is the base, which carries the others."""

    phases: Mapping[str, str]  # part -> the phase in which it is mounted, also the name of that step
    mounts: Mapping[str, Point]  # part -> where it ends, measured from the middle of the base
    orders: Mapping[str, tuple[str, ...]]  # name -> the small parts as they are mounted
    slots: tuple[Point, ...]  # where small parts lie at first, in shuffled places
    twins: Mapping[str, str]  # part -> the one that looks like it

    @property
    def base(self) -> str:
        """The part that carries the others."""
        return next(iter(self.phases))

    @property
    def components(self) -> tuple[str, ...]:
        """Names of the parts that are followed, in the order of their ids."""
        return tuple(phase.partition("_")[2].replace("_", " ") for phase in self.phases.values())


def _look_alikes() -> Kit:
    """Every small part twice; the second has a dark mark, and a place of its own on a taller base."""
    plain, marked = tuple(MOUNTS)[1:], tuple(f"marked_{part}" for part in tuple(MOUNTS)[1:])
    return Kit(
        phases={"tall_base": "place_base", **{part: f"add_{part}" for part in (*plain, *marked)}},
        mounts={
            "tall_base": (0.0, 0.0),
            "red_bar": (0.0, -0.16),
            "marked_red_bar": (0.0, -0.08),
            "blue_disc": (-0.1, 0.02),
            "marked_blue_disc": (-0.1, 0.145),
            "green_triangle": (0.095, 0.035),
            "marked_green_triangle": (0.095, 0.16),
        },
        orders={
            name: tuple(part for one in order for part in (one, f"marked_{one}")) for name, order in VARIANTS.items()
        },
        slots=tuple((x, y) for y in (0.12, 0.25, 0.38) for x in (0.09, 0.235, 0.38)),
        twins={**dict(zip(plain, marked, strict=True)), **dict(zip(marked, plain, strict=True))},
    )


KIT = Kit(phases=PHASE_OF_PART, mounts=MOUNTS, orders=VARIANTS, slots=SMALL_HOMES, twins={})
LOOK_ALIKES = _look_alikes()


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
    turns and lifts from the first to the second value of `angle` and `lift`. `changes` are parts and what they are when
    the leg stops: 1 mounted, 0 not, -1 wrongly. `tool`: the hand works with a screwdriver.
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
    changes: tuple[tuple[str, int], ...] = ()
    tool: bool = False


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
    kit: Kit = KIT
    second_hand: tuple[Leg, ...] = ()  # contiguous over the same time, or none

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
    def states(self) -> tuple[tuple[float, State], ...]:
        """(time_seconds, state of all parts of the kit) at the start, and after each leg that changes it."""
        state = dict.fromkeys(self.kit.phases, 0)
        found = [(0.0, tuple(state.values()))]
        for leg in self.legs:
            if leg.changes:
                state.update(leg.changes)
                found.append((leg.stop_seconds, tuple(state.values())))
        return tuple(found)

    @property
    def steps(self) -> tuple[tuple[float, str], ...]:
        """(time_seconds, step) of every right step, in order of time: `add_red_bar`, or `remove_red_bar` undoes it.

        What is mounted wrongly, and the way out of that, is no step.
        """
        state = dict.fromkeys(self.kit.phases, 0)
        found = []
        for leg in self.legs:
            for part, value in leg.changes:
                if value == 1:
                    found.append((leg.stop_seconds, self.kit.phases[part]))
                elif value == 0 and state[part] == 1:
                    found.append((leg.stop_seconds, f"remove_{part}"))
                state[part] = value
        return tuple(found)


@dataclass(frozen=True)
class SceneState:
    """What one frame shows: the hand's grip point, what it holds ("" for nothing), and every part's pose."""

    hand: Point
    held: str
    parts: dict[str, Pose]
    tool: bool = False  # whether the hand works with a screwdriver
    second_hand: Point | None = None


def ease(share: float) -> float:
    """Map the share of time (0 to 1) to the share of way of a minimum-jerk reach (Flash and Hogan 1985, eq. 4)."""
    return share**3 * (10 - 15 * share + 6 * share**2)


def position_on(leg: Leg, time_seconds: float) -> tuple[Point, float]:
    """Give the hand's place on a leg at a time inside it, and the share of the way done (0 to 1)."""
    way = ease((time_seconds - leg.start_seconds) / (leg.stop_seconds - leg.start_seconds))
    dx, dy = leg.target[0] - leg.origin[0], leg.target[1] - leg.origin[1]
    bow = leg.bend * math.sin(math.pi * way)
    return (leg.origin[0] + way * dx - bow * dy, leg.origin[1] + way * dy + bow * dx), way


def state_at(script: Script, time_seconds: float) -> SceneState:
    """Compute hand and parts at a time in `[0, duration)`. Raises ValueError outside."""
    current = _leg_at(script.legs, time_seconds)
    parts = dict(script.homes)
    for leg in script.legs:
        if leg.stop_seconds > current.start_seconds:
            break
        if leg.part:
            parts[leg.part] = Pose(*leg.target, leg.angle[1], leg.lift[1])
    hand, way = position_on(current, time_seconds)
    if current.part:
        angle, lift = (first + way * (last - first) for first, last in (current.angle, current.lift))
        parts[current.part] = Pose(*hand, angle, lift)
    second = script.second_hand
    helping = position_on(_leg_at(second, time_seconds), time_seconds)[0] if second else None
    return SceneState(hand, current.part, parts, current.tool, helping)


def _leg_at(legs: Sequence[Leg], time_seconds: float) -> Leg:
    for leg in legs:
        if leg.start_seconds <= time_seconds < leg.stop_seconds:
            return leg
    stop_seconds = legs[-1].stop_seconds
    raise ValueError(f"time {time_seconds!r} s is outside the script: choose one in [0, {stop_seconds}) s")
