"""How many videos make a unit of work: guided self-scheduling over what their work is expected to cost.

A unit is to take `unit_seconds` by the rate seen so far; before anything was seen it is small. Towards the end units
get smaller, so that all workers end together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from reelwright.stages.base.work import VideoItem

MOST_ITEMS = 512  # in a unit: what one death costs, and one message carries, stays bounded
_UNKNOWN_SECONDS = 60.0  # duration of a video that is not known
_SECONDS_AN_ITEM = 1.0  # added to the duration: to open and to commit costs something too
_FIRST_RATE = 1.0  # seconds of work for a second of video, before any was seen: rather too small units
_SHARE = 3  # a worker is given at most 1/3 of its share of what is left


def cost(item: VideoItem) -> float:
    """What a video costs, in seconds of video."""
    duration = item.duration_seconds
    return _SECONDS_AN_ITEM + (_UNKNOWN_SECONDS if duration is None else duration)


@dataclass
class Grouping:
    """The videos that wait, in order, and how long they take."""

    unit_seconds: float
    waiting: deque[VideoItem] = field(default_factory=deque)
    _cost_left: float = 0.0
    _cost_done: float = 0.0
    _seconds_done: float = 0.0

    @classmethod
    def of(cls, items: Iterable[VideoItem], *, unit_seconds: float) -> Grouping:
        """The longest first: a long video that starts last would be waited for."""
        ordered = sorted(items, key=lambda item: (-cost(item), item.digest))
        return cls(unit_seconds, deque(ordered), sum(cost(item) for item in ordered))

    @property
    def seconds_per_cost(self) -> float:
        """Seconds that a second of video takes on a worker, as seen so far."""
        return self._seconds_done / self._cost_done if self._cost_done and self._seconds_done else _FIRST_RATE

    @property
    def seconds_left(self) -> float:
        """Work that waits, for one worker."""
        return self._cost_left * self.seconds_per_cost

    def seen(self, items: Iterable[VideoItem], *, seconds: float) -> None:
        """These took ``seconds``."""
        self._cost_done += sum(cost(item) for item in items)
        self._seconds_done += seconds

    def take(self, *, num_workers: int) -> tuple[VideoItem, ...]:
        """The videos of the next unit, at least one; empty when none waits."""
        fair = self.seconds_left / (_SHARE * max(1, num_workers))
        budget = min(self.unit_seconds, fair) / self.seconds_per_cost
        taken: list[VideoItem] = []
        used = 0.0
        while self.waiting and len(taken) < MOST_ITEMS and (not taken or used + cost(self.waiting[0]) <= budget):
            taken.append(self.waiting.popleft())
            used += cost(taken[-1])
        self._cost_left -= used
        return tuple(taken)
