"""Draft a script as hard as life: long pauses, hands and a tool over the work, wrong steps, steps that are undone.

Between two changes of the assembly lies a gap that is drawn; hands fill it with what changes nothing:

    ... | change | rest, work that changes nothing, fiddle, a part that is fetched and put back | mount, fasten | ...

A step is complete when its part is fastened, under the hands, seconds after it was laid into its place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np

from reelwright.stages.synthesize.family_settings import ProcedureSettings
from reelwright.stages.synthesize.procedures.draft import Changes, Draft, draft_of, time_legs
from reelwright.stages.synthesize.procedures.script import (
    CHECK,
    IDLE,
    KIT,
    LOOK_ALIKES,
    MOUNTED_LIFT,
    PUT_BACK,
    Kit,
    Leg,
    Point,
    Script,
)

_MOUNT_SECONDS = 2.7  # fetching, carrying and laying a part, on average
_LEAST_GAP_SECONDS = 1.0  # shorter rests are none
_JOIN_SECONDS = 2.0  # the second hand stays where it is needed again so soon
_SECOND_REST: Point = (0.18, 1.45)  # out of sight, also of a camera that moves
_REACH_SECONDS = 0.8


def kit_of(settings: ProcedureSettings) -> Kit:
    """The parts that these settings have."""
    return LOOK_ALIKES if settings.look_alikes else KIT


def make_long_script(rng: np.random.Generator, *, settings: ProcedureSettings, variant: str, fps: float) -> Script:
    """Draw one video's script; its length is what its gaps and movements take.

    The rng alone decides everything but the order of assembly, which is that of ``variant`` with steps out of place by
    ``order_spread``. Every part is mounted at the end.
    """
    kit = kit_of(settings)
    draft = draft_of(rng, kit)
    life = _Life(draft, settings)
    draft.rest(weight=1.0)
    for parts in _groups(rng, _order(rng, kit, variant, settings), settings):
        life.install(parts)
        if parts != (kit.base,) and rng.random() < settings.undone:
            part = parts[int(rng.integers(len(parts)))]
            life.undo(part)
            life.install((part,))
    draft.rest(weight=float(rng.uniform(3.0, 8.0)))
    num_frames = math.ceil(sum(draft.weights) * fps)
    legs = time_legs(draft.legs, draft.weights, duration_seconds=num_frames / fps)
    second = _second_hand(rng, legs) if settings.second_hand else ()
    return Script(variant, fps, num_frames, draft.homes, draft.work_centre, legs, kit, second)


def _order(rng: np.random.Generator, kit: Kit, variant: str, settings: ProcedureSettings) -> list[str]:
    """The base, then the small parts, each moved from its usual place by a normal draw."""
    usual = kit.orders[variant]
    places = np.arange(len(usual)) + settings.order_spread * rng.standard_normal(len(usual))
    return [kit.base, *(usual[index] for index in np.argsort(places, kind="stable"))]


def _groups(rng: np.random.Generator, order: list[str], settings: ProcedureSettings) -> Iterable[tuple[str, ...]]:
    """Parts that are complete in the same moment; the base is one alone."""
    group: tuple[str, ...] = ()
    for part in order:
        if len(group) > 0 and (group == (order[0],) or rng.random() >= settings.together):
            yield group
            group = ()
        group = (*group, part)
    yield group


class _Life:
    """What happens, written into a draft; a weight is a second."""

    def __init__(self, draft: Draft, settings: ProcedureSettings) -> None:
        self.draft, self.settings, self.rng = draft, settings, draft.rng
        self.mounted: set[str] = set()

    def install(self, parts: tuple[str, ...]) -> None:
        """Wait, perhaps do the first of the parts wrongly and undo that, then mount them all in one moment."""
        seconds = self._gap() - len(parts) * _MOUNT_SECONDS - self.settings.fastening_seconds
        if self.rng.random() < self.settings.wrong:
            self._wrong(parts[0], seconds=seconds)
        else:
            self._fill(seconds)
        for part in parts:
            is_last = part == parts[-1]
            self._place(part, part, changes=tuple((one, 1) for one in parts) if is_last else (), fasten=is_last)
        self.mounted |= set(parts)

    def undo(self, part: str) -> None:
        """Wait, then take a mounted part off and put it back into the tray."""
        self._fill(self._gap() - _MOUNT_SECONDS)
        self._take_off(part, part)
        self.mounted -= {part}

    def _gap(self) -> float:
        """Seconds from one change to the next: gamma distributed."""
        mean, shape = self.settings.gap_seconds, self.settings.gap_shape
        return float(self.rng.gamma(shape, mean / shape)) if mean else 0.0

    def _place(self, held: str, place: str, *, changes: Changes, fasten: bool, turned: float = 0.0) -> None:
        """Fetch a part, lay it into a place (of its own or of another part) and fasten it there."""
        draft, phase = self.draft, self.draft.kit.phases[place]
        target = draft.place_of(place)
        draft.grasp(held, phase=phase)
        draft.carry(held, target, phase=phase, angle=(draft.homes[held].angle, turned), weight=1.5)
        is_fastened = fasten and self.settings.fastening_seconds > 0
        draft.lay(held, phase=phase, angle=turned, lift=MOUNTED_LIFT, changes=() if is_fastened else changes)
        if is_fastened:
            self._work(target, phase=phase, seconds=self.settings.fastening_seconds, changes=changes)

    def _work(self, place: Point, *, phase: str, seconds: float, changes: Changes = ()) -> None:
        """Small movements of the hand at a place, with the tool where there is one; the last makes the changes."""
        num = max(2, round(seconds / 1.2))
        for index in range(num):
            ends = {"changes": changes} if index == num - 1 else {}
            target = self.draft.near(place, 0.018)
            self.draft.move(target, phase=phase, weight=seconds / num, tool=self.settings.tool, **ends)

    def _wrong(self, part: str, *, seconds: float) -> None:
        """Mount wrongly, wait, take off again: a part that looks like it, or the part itself turned around."""
        twin = self.draft.kit.twins.get(part, "")
        held, turned = (twin, 0.0) if twin and twin not in self.mounted else (part, math.pi / 2)
        rest = seconds - 2 * _MOUNT_SECONDS - self.settings.fastening_seconds
        before = float(self.rng.uniform(0.2, 0.6))
        self._fill(before * rest)
        self._place(held, part, changes=((part, -1),), fasten=True, turned=turned)
        self._fill((1 - before) * rest)
        self._take_off(held, part, turned=turned)

    def _take_off(self, held: str, place: str, *, turned: float = 0.0) -> None:
        """Lift a part out of a place and put it back into the tray."""
        draft, home = self.draft, self.draft.homes[held]
        draft.move(draft.place_of(place), phase=PUT_BACK, weight=0.6)
        lifted = {"angle": (turned, turned), "lift": (MOUNTED_LIFT, 1.0), "changes": ((place, 0),)}
        draft.move(draft.hand, phase=PUT_BACK, weight=0.35, part=held, **lifted)
        draft.carry(held, (home.x, home.y), phase=PUT_BACK, angle=(turned, home.angle), weight=1.5)
        draft.lay(held, phase=PUT_BACK, angle=home.angle)

    def _fill(self, seconds: float) -> None:
        """Do what changes nothing for so long."""
        if seconds < _LEAST_GAP_SECONDS:
            return
        draft, first = self.draft, len(self.draft.weights)
        while (total := sum(draft.weights[first:])) < seconds:
            self._activity(seconds - total)()
        draft.weights[first:] = [weight * seconds / total for weight in draft.weights[first:]]

    def _activity(self, seconds: float) -> Callable[[], None]:
        """One of what changes nothing; where few seconds are left, a rest."""
        pauses, checks = self.settings.pauses, self.settings.checks
        drawn = float(self.rng.random())
        if seconds < 6.0 or drawn < pauses:
            return self._pause
        if self.mounted and drawn < pauses + checks:
            return self._check
        waiting = sorted(set(self.draft.kit.phases) - self.mounted - {self.draft.kit.base})
        if not waiting or self.rng.random() < 0.4:
            return self.draft.fiddle
        return lambda: self.draft.attempt(str(self.rng.choice(waiting)))

    def _pause(self) -> None:
        """Draw the hand back and wait, fidgeting now and then."""
        self.draft.rest(weight=float(self.rng.uniform(0.5, 2.0)))
        for _ in range(int(self.rng.integers(0, 4))):
            self.draft.move(self.draft.near(self.draft.hand, 0.012), phase=IDLE, weight=float(self.rng.uniform(0.5, 3)))

    def _check(self) -> None:
        """Go to the assembly and do there what looks like work, and changes nothing."""
        part = str(self.rng.choice(sorted(self.mounted)))
        place = self.draft.place_of(part)
        self.draft.move(place, phase=CHECK, weight=0.6)
        self._work(place, phase=CHECK, seconds=float(self.rng.uniform(3.0, 8.0)))


def _second_hand(rng: np.random.Generator, legs: tuple[Leg, ...]) -> tuple[Leg, ...]:
    """Legs of a hand that steadies the assembly while the first one works there, and is out of sight else."""
    busy: list[tuple[float, float, Point]] = []
    for leg in (leg for leg in legs if leg.phase == CHECK or leg.changes or leg.tool):
        start = leg.start_seconds - _REACH_SECONDS
        if busy and start - busy[-1][1] < _JOIN_SECONDS + _REACH_SECONDS:
            start = busy.pop()[0]
        busy.append((start, leg.stop_seconds, leg.target))
    found: list[Leg] = []
    now, where = 0.0, _SECOND_REST

    def move(stop: float, target: Point) -> None:
        nonlocal now, where
        if stop > now:
            found.append(Leg(now, stop, where, target, IDLE))
            now, where = stop, target

    for start, stop, place in busy:
        move(start, where)
        target = (place[0] + float(rng.normal(-0.07, 0.03)), place[1] + float(rng.normal(0.02, 0.03)))
        move(max(start, 0.0) + _REACH_SECONDS, target)
        move(stop, (target[0] + float(rng.normal(0, 0.01)), target[1] + float(rng.normal(0, 0.01))))
        move(min(stop + _REACH_SECONDS, legs[-1].stop_seconds), _SECOND_REST)
    move(legs[-1].stop_seconds, where)
    return tuple(found)
