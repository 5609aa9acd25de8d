"""The videos of a node as parts, each some shards of a video: what waits, and what makes the next unit of work.

    video --> is it long, by probed frames and declared speed?
        no:  one part, all of its shards; as many as take about `unit_seconds` by the rate seen so far make a unit
        yes: begun: arrays are made, shards are counted --> ranges of missing shards, each a unit
                                                                         --> published by who writes the last

Before a rate was seen units are small, and towards the end they get smaller, so that all workers end together. What was
with a worker that died is done alone: without other videos, and while nothing else of its video is under way. What
turns out not to be shareable (it is damaged, or needs a second backend in its middle) is done whole, by one worker.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from reelwright.pipeline.config.cluster import ClusterSettings
from reelwright.stages.base.registry import stage_of
from reelwright.stages.base.unit import UnitDone
from reelwright.stages.base.work import Shards, VideoItem, Work
from reelwright.stages.decode.config import DecodeConfig
from reelwright.storage.ledger.items import ItemRow
from reelwright.storage.store import is_url

Range = tuple[int, int]  # shards, half-open

MOST_ITEMS = 512  # in a unit: what one death costs, and one message carries, stays bounded
BEGIN: Range = (0, 0)
_MOST_SHARDS = 64  # of a unit: each has a claim
_MOST_BEGUN = 3  # times that a video is begun before it is done whole
_UNKNOWN_SECONDS = 60.0  # duration of a video that is not known
_SECONDS_AN_ITEM = 1.0  # added to the duration: to open and to commit costs something too
_FIRST_RATE = 1.0  # seconds of work for a second of video, before any was seen: rather too small units
_SHARE = 3  # a worker is given at most 1/3 of its share of what is left


class Part(NamedTuple):
    """Some shards of a video."""

    item: VideoItem
    shards: Range | None = None  # half-open; BEGIN: none yet, they are counted; None: all of them

    @property
    def name(self) -> tuple[str, Range | None]:
        """What tells it from others."""
        return self.item.digest, self.shards

    @property
    def cost(self) -> float:
        """Of all of the video, in seconds of video."""
        duration = self.item.duration_seconds
        return _SECONDS_AN_ITEM + (_UNKNOWN_SECONDS if duration is None else duration)


def long_seconds(item: VideoItem, work: Work, settings: ClusterSettings) -> float | None:
    """What a video takes one worker, by its probed frames and the declared speed; None unless it is long."""
    if settings.split_seconds is None or not item.num_frames or not item.duration_seconds:
        return None
    is_decode, frames = work.stage == DecodeConfig.stage, work.inputs.get("frames", ())
    if not (is_decode or frames):  # rows of rows are quick
        return None
    config = work.config if is_decode else frames[0].config
    decode = DecodeConfig.model_validate(dict(config))
    num_frames = decode.expected_frames(num_frames=item.num_frames, duration_seconds=item.duration_seconds)
    seconds = num_frames / settings.frames_per_second
    return seconds if seconds > settings.split_seconds else None


def ranges(shards: Shards, *, seconds: float, unit_seconds: float) -> Iterator[Range]:
    """The missing shards of a video that takes ``seconds``, cut into ranges of about ``unit_seconds``."""
    length = max(1, min(_MOST_SHARDS, int(unit_seconds * shards.count / seconds)))
    start = stop = -1
    for index in shards.missing:
        if index != stop or stop - start == length:
            if stop > start:
                yield start, stop
            start = index
        stop = index + 1
    if stop > start:
        yield start, stop


@dataclass
class LongVideo:
    """One that several workers write, on its way."""

    item: VideoItem
    seconds: float  # expected of one worker
    waiting: deque[Range] = field(default_factory=lambda: deque([BEGIN]))
    num_under_way: int = 0
    done_seconds: float = 0.0
    processes: Counter[tuple[str, int]] = field(default_factory=Counter)  # that wrote ranges
    num_begun: int = 0
    is_whole: bool = False  # cannot be shared


@dataclass
class Parts:
    """The parts of a node that wait."""

    unit_seconds: float
    waiting: deque[Part] = field(default_factory=deque)  # all of a video each, the longest first
    long: dict[str, LongVideo] = field(default_factory=dict)  # by digest; the longest first
    alone: deque[Part] = field(default_factory=deque)
    deaths: Counter[tuple[str, Range | None]] = field(default_factory=Counter)  # workers that died over a part
    _cost_left: float = 0.0
    _cost_done: float = 0.0
    _seconds_done: float = 0.0

    @classmethod
    def of(cls, items: Iterable[VideoItem], work: Work, settings: ClusterSettings) -> Parts:
        """All of a node; no video is long in a bucket, where others see no unfinished work."""
        parts = cls(settings.unit_seconds)
        shares = stage_of(work.stage).share is not None and not is_url(work.store)
        short, long = [], []
        for item in items:
            seconds = long_seconds(item, work, settings) if shares else None
            short += [Part(item)] if seconds is None else []
            long += [] if seconds is None else [LongVideo(item, seconds)]
        parts._wait(short)
        parts.long = {v.item.digest: v for v in sorted(long, key=lambda video: (-video.seconds, video.item.digest))}
        return parts

    @property
    def num_waiting(self) -> int:
        """Of parts."""
        return len(self.waiting) + len(self.alone) + sum(len(video.waiting) for video in self.long.values())

    @property
    def num_expected(self) -> int:
        """Those that wait, or will when their videos are begun: so that workers for them come meanwhile."""
        unbegun = [video for video in self.long.values() if not video.num_begun]
        return self.num_waiting + sum(math.ceil(video.seconds / self.unit_seconds) for video in unbegun)

    def take(self, *, num_workers: int) -> tuple[Part, ...]:
        """The next unit: what is to be done alone, a range of a long video, else whole videos; or nothing."""
        taken = self._take(num_workers)
        for part in taken:
            if part.item.digest in self.long:
                self.long[part.item.digest].num_under_way += 1
        return taken

    def _take(self, num_workers: int) -> tuple[Part, ...]:
        of_alone = {part.item.digest for part in self.alone}
        for part in self.alone:
            if part.item.digest not in self.long or not self.long[part.item.digest].num_under_way:
                self.alone.remove(part)
                return (part,)
        for video in self.long.values():
            if video.waiting and video.item.digest not in of_alone:
                return (Part(video.item, video.waiting.popleft()),)
        fair = self.seconds_left / (_SHARE * max(1, num_workers))
        budget = min(self.unit_seconds, fair) / self.seconds_per_cost
        taken: list[Part] = []
        used = 0.0
        while self.waiting and len(taken) < MOST_ITEMS and (not taken or used + self.waiting[0].cost <= budget):
            taken.append(self.waiting.popleft())
            used += taken[-1].cost
        self._cost_left -= used
        return tuple(taken)

    @property
    def seconds_per_cost(self) -> float:
        """Seconds that a second of video takes on a worker, as seen so far."""
        return self._seconds_done / self._cost_done if self._cost_done and self._seconds_done else _FIRST_RATE

    @property
    def seconds_left(self) -> float:
        """Work on whole videos that waits, for one worker."""
        return self._cost_left * self.seconds_per_cost

    def ended(self, parts: Iterable[Part]) -> None:
        """They are not under way any more; one of the other three says what became of them."""
        for part in parts:
            if part.item.digest in self.long:
                self.long[part.item.digest].num_under_way -= 1

    def done(self, parts: Iterable[Part], *, seconds: float) -> None:
        """Whole videos took ``seconds``."""
        self._cost_done += sum(part.cost for part in parts)
        self._seconds_done += seconds

    def wrote(self, part: Part, done: UnitDone) -> tuple[ItemRow | None, str]:
        """Of a long video some is written. Returns the row of a video that is done now, and what to tell of it."""
        video = self.long.get(part.item.digest)
        if video is None:  # another unit told of its end before
            return None, ""
        video.done_seconds += done.seconds
        if part.shards != BEGIN:
            video.processes[done.host, done.process] += 1
        if done.rows:
            row = replace(done.rows[0], seconds=round(video.done_seconds, 3))
            message = f"{video.item.video_id}: {row.rows:,} rows by {len(video.processes)} processes"
            self.drop(part.item)
            return row, message if len(video.processes) > 1 else ""
        if done.shards is None:
            video.is_whole = True
            video.waiting.clear()
            self.alone = deque(other for other in self.alone if other.item.digest != part.item.digest)
        elif part.shards == BEGIN:
            video.num_begun += 1
            video.waiting.extend(ranges(done.shards, seconds=video.seconds, unit_seconds=self.unit_seconds))
        self._begin_again(video)
        return None, ""

    def put_back(self, parts: Iterable[Part]) -> None:
        """They are not done: those that a worker has died over are to be done alone, the others wait again."""
        whole = []
        for part in parts:
            video = self.long.get(part.item.digest)
            if not self.is_wanted(part):
                pass
            elif self.deaths[part.name]:
                self.alone.append(part)
            elif video is None:
                whole.append(part)
            elif part.shards is not None:
                video.waiting.appendleft(part.shards)
            if video is not None:
                self._begin_again(video)
        if whole:
            self._wait(whole)

    def is_wanted(self, part: Part) -> bool:
        """Whether it is still to be done: not of a video that is done meanwhile, or found not to be shareable."""
        video = self.long.get(part.item.digest)
        return part.shards is None if video is None else not video.is_whole

    def drop(self, item: VideoItem) -> None:
        """A video is given up, or done."""
        self.long.pop(item.digest, None)
        self.alone = deque(part for part in self.alone if part.item.digest != item.digest)

    def _wait(self, parts: list[Part]) -> None:
        """More whole videos, the longest first: a long video that starts last would be waited for."""
        self.waiting = deque(sorted([*self.waiting, *parts], key=lambda part: (-part.cost, part.item.digest)))
        self._cost_left += sum(part.cost for part in parts)

    def _begin_again(self, video: LongVideo) -> None:
        """Where nothing of it waits or is under way: a shard was lost, or its last process died before it published.

        It is done whole where it cannot be shared, or was begun often enough.
        """
        is_left = any(part.item.digest == video.item.digest for part in self.alone)
        if video.num_under_way or video.waiting or is_left:
            return
        if video.is_whole or video.num_begun >= _MOST_BEGUN:
            del self.long[video.item.digest]
            self.alone.append(Part(video.item))
        else:
            video.waiting.append(BEGIN)
