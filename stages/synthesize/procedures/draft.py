"""Draft a script, leg by leg, and draw the usual one: 12 to 25 s in which every part is mounted once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise

import numpy as np

from reelwright.stages.synthesize.procedures.script import (
    BASE_HOME,
    HAND_REST,
    IDLE,
    KIT,
    MOUNTED_LIFT,
    PUT_BACK,
    SPARE,
    WORK_CENTRE,
    Kit,
    Leg,
    Point,
    Pose,
    Script,
)

MIN_DURATION_SECONDS = 12.0
MAX_DURATION_SECONDS = 25.0

Changes = tuple[tuple[str, int], ...]


@dataclass
class Draft:
    """A script being written: legs whose times are still weights, the hand where the last leg left it."""

    rng: np.random.Generator
    homes: dict[str, Pose]
    work_centre: Point
    kit: Kit = KIT
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

    def lay(self, part: str, *, phase: str, angle: float, lift: float = 0.0, changes: Changes = ()) -> None:
        """Lower the held part to the height `lift` where the hand is."""
        lowered = {"angle": (angle, angle), "lift": (1.0, lift), "changes": changes}
        self.move(self.hand, phase=phase, weight=0.35, part=part, **lowered)

    def mount(self, part: str) -> None:
        """Fetch a part and put it in its place on the base: one completed step."""
        phase = self.kit.phases[part]
        self.grasp(part, phase=phase)
        self.carry(part, self.place_of(part), phase=phase, angle=(self.homes[part].angle, 0.0), weight=1.5)
        self.lay(part, phase=phase, angle=0.0, lift=MOUNTED_LIFT, changes=((part, 1),))

    def place_of(self, part: str) -> Point:
        """Where a part ends."""
        x, y = self.kit.mounts[part]
        return (self.work_centre[0] + x, self.work_centre[1] + y)

    def attempt(self, part: str) -> None:
        """Fetch a part, carry it (nearly) to the base, and put it back into the tray: no step."""
        home, phase = self.homes[part], self.kit.phases[part]
        share = float(self.rng.uniform(0.55, 0.95))
        turning = tuple((1 - share) * a + share * b for a, b in zip((home.x, home.y), self.work_centre, strict=True))
        tilted = home.angle * (1 - share)
        self.grasp(part, phase=phase)
        self.carry(part, (turning[0], turning[1]), phase=phase, angle=(home.angle, tilted), weight=1.1)
        self.carry(part, (home.x, home.y), phase=PUT_BACK, angle=(tilted, home.angle), weight=1.6)
        self.lay(part, phase=PUT_BACK, angle=home.angle)

    def fiddle(self) -> None:
        """Lift the part that belongs nowhere, turn it in the tray and lay it back: still idle."""
        part, home = SPARE, self.homes[SPARE]
        self.grasp(part, phase=IDLE)
        for target in (self.near(self.hand, 0.04), (home.x, home.y)):
            self.move(target, phase=IDLE, weight=0.4, part=part, angle=(home.angle,) * 2, lift=(1.0, 1.0))
        self.lay(part, phase=IDLE, angle=home.angle)


def make_script(rng: np.random.Generator, *, variant: str, fps: float) -> Script:
    """Draw one video's script: 12 to 25 s, one or two wrong attempts, every phase of `PHASES` at least once.

    The rng alone decides everything but the order of assembly, which is `KIT.orders[variant]`.
    Raises ValueError for an unknown variant or an fps that is not above 0.
    """
    if variant not in KIT.orders:
        raise ValueError(f"unknown variant {variant!r}: choose one of {', '.join(KIT.orders)}")
    if not (math.isfinite(fps) and fps > 0):
        raise ValueError(f"fps is {fps!r}: it has to be a finite number above 0 (frames per second)")
    draft = draft_of(rng, KIT)
    _draft_procedure(draft, KIT.orders[variant])
    # Whole frames, inside the promised range also after rounding.
    low, high = math.ceil(MIN_DURATION_SECONDS * fps), math.floor(MAX_DURATION_SECONDS * fps)
    num_frames = max(1, min(high, max(low, round(rng.uniform(MIN_DURATION_SECONDS, MAX_DURATION_SECONDS) * fps))))
    legs = time_legs(draft.legs, draft.weights, duration_seconds=num_frames / fps)
    return Script(variant, fps, num_frames, draft.homes, draft.work_centre, legs)


def _draft_procedure(draft: Draft, order: tuple[str, ...]) -> None:
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


def draft_of(rng: np.random.Generator, kit: Kit) -> Draft:
    """An empty script, with the parts in the tray and the place of work drawn."""
    homes = _draw_homes(rng, kit)
    return Draft(rng, homes, (WORK_CENTRE[0] + _jitter(rng, 0.02), WORK_CENTRE[1] + _jitter(rng, 0.02)), kit)


def _draw_homes(rng: np.random.Generator, kit: Kit) -> dict[str, Pose]:
    """Lay the parts into the tray: the base below, the small ones in shuffled places at random angles."""
    homes = {kit.base: Pose(BASE_HOME[0] + _jitter(rng, 0.01), BASE_HOME[1] + _jitter(rng, 0.01), _jitter(rng, 0.12))}
    parts = (*tuple(kit.phases)[1:], SPARE)
    for part, slot in zip(parts, rng.permutation(len(kit.slots)).tolist()[: len(parts)], strict=True):
        x, y = kit.slots[slot]
        homes[part] = Pose(x + _jitter(rng, 0.012), y + _jitter(rng, 0.012), _jitter(rng, 0.8))
    return homes


def _jitter(rng: np.random.Generator, amount: float) -> float:
    return float(rng.uniform(-amount, amount))


def time_legs(legs: Sequence[Leg], weights: Sequence[float], *, duration_seconds: float) -> tuple[Leg, ...]:
    """Give the legs contiguous times, in proportion to their weights, on whole milliseconds except for the end."""
    scale = duration_seconds / sum(weights)
    times = [0.0, *(round(total * scale, 3) for total in accumulate(weights))]
    times[-1] = duration_seconds
    return tuple(
        replace(leg, start_seconds=start, stop_seconds=stop)
        for leg, (start, stop) in zip(legs, pairwise(times), strict=True)
    )
