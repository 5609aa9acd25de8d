"""What is where at a time: a script read as one scene, plain arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from reelwright.stages.synthesize.procedures.script import Leg, Point, Pose, Script


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
