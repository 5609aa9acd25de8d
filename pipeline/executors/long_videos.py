"""Long videos that several workers do together, by ranges of shards: which are long, and what is to be done next.

    probed frames, declared speed --> is it long?  --> begin: arrays are made, shards are counted
                                          ranges of missing shards, each a unit --> published by who writes the last

A range that was with a worker that died is done again while nothing else of its video is under way; a video of which
one range has killed DEATHS workers is given up. What turns out not to be shareable (it is damaged, or needs a second
backend in its middle) is done whole, by one worker.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from reelwright.pipeline.config.cluster import ClusterSettings
from reelwright.stages.base.registry import stage_of
from reelwright.stages.base.unit import UnitDone
from reelwright.stages.base.work import Shards, VideoItem, Work
from reelwright.stages.decode.config import DecodeConfig
from reelwright.storage.ledger.items import ItemRow
from reelwright.storage.urls import is_url

Range = tuple[int, int]  # shards, half-open

DEATHS = 3  # workers that a video may kill
BEGIN: Range = (0, 0)
_MOST_SHARDS = 64  # of a unit: each has a claim
_MOST_BEGUN = 3  # times that a video is begun before it is done whole


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
    """One of them on its way."""

    item: VideoItem
    seconds: float  # expected of one worker
    waiting: deque[Range] = field(default_factory=lambda: deque([BEGIN]))
    suspects: deque[Range] = field(default_factory=deque)  # were with workers that died
    under_way: dict[str, Range] = field(default_factory=dict)  # by name of the unit
    deaths: Counter[Range] = field(default_factory=Counter)
    done_seconds: float = 0.0
    processes: Counter[tuple[str, int]] = field(default_factory=Counter)  # that wrote ranges
    num_begun: int = 0
    is_whole: bool = False  # cannot be shared

    def take(self) -> Range | None:
        """The next range, if one may be started now."""
        if self.suspects:
            return None if self.under_way else self.suspects.popleft()
        return self.waiting.popleft() if self.waiting else None

    @property
    def is_idle(self) -> bool:
        """Whether nothing of it waits or is under way."""
        return not (self.waiting or self.suspects or self.under_way)


@dataclass
class Sharing:
    """The long videos that are not done."""

    unit_seconds: float  # of a range
    videos: dict[str, LongVideo] = field(default_factory=dict)  # by digest; the longest first

    @classmethod
    def of(cls, items: Iterable[VideoItem], work: Work, settings: ClusterSettings) -> Sharing:
        """Those of ``items`` that are long; none in a bucket, where others see no unfinished work."""
        found = []
        if stage_of(work.stage).share is not None and not is_url(work.store):
            found = [(seconds, item) for item in items if (seconds := long_seconds(item, work, settings)) is not None]
        found.sort(key=lambda entry: (-entry[0], entry[1].digest))
        return cls(settings.unit_seconds, {item.digest: LongVideo(item, seconds) for seconds, item in found})

    @property
    def num_waiting(self) -> int:
        """Ranges that wait."""
        return sum(len(video.waiting) + len(video.suspects) for video in self.videos.values())

    @property
    def num_expected(self) -> int:
        """Ranges that wait, or will when their videos are begun: so that workers for them come meanwhile."""
        unbegun = [video for video in self.videos.values() if not video.num_begun]
        return self.num_waiting + sum(math.ceil(video.seconds / self.unit_seconds) for video in unbegun)

    def take(self, name: str) -> tuple[VideoItem, Range] | None:
        """The next range, for the unit ``name``; None when none may be started now."""
        for video in self.videos.values():
            wanted = video.take()
            if wanted is not None:
                video.under_way[name] = wanted
                return video.item, wanted
        return None

    def again(self, name: str, digest: str) -> None:
        """A unit ended of which nobody is to blame."""
        video = self.videos.get(digest)
        if video is not None:
            wanted = video.under_way.pop(name)
            if not video.is_whole:
                video.waiting.appendleft(wanted)

    def died(self, name: str, digest: str) -> int:
        """A worker died over a unit; returns how many have died over its range, 0 where that does not matter."""
        video = self.videos.get(digest)
        if video is None:
            return 0
        wanted = video.under_way.pop(name)
        if video.is_whole:
            return 0
        video.deaths[wanted] += 1
        video.suspects.append(wanted)
        return video.deaths[wanted]

    def ended(self, name: str, digest: str, done: UnitDone) -> tuple[ItemRow | None, str]:
        """A unit ended well. Returns the row of a video that is done now, and what to tell of it."""
        video = self.videos.get(digest)
        if video is None:  # another unit told of its end before
            return None, ""
        wanted = video.under_way.pop(name)
        video.done_seconds += done.seconds
        if wanted != BEGIN:
            video.processes[done.host, done.process] += 1
        if done.rows:
            row = replace(done.rows[0], seconds=round(video.done_seconds, 3))
            message = f"{video.item.video_id}: {row.rows:,} rows by {len(video.processes)} processes"
            del self.videos[digest]
            return row, message if len(video.processes) > 1 else ""
        if done.shards is None:
            video.is_whole = True
            video.waiting.clear()
            video.suspects.clear()
        elif wanted == BEGIN:
            video.num_begun += 1
            video.waiting.extend(ranges(done.shards, seconds=video.seconds, unit_seconds=self.unit_seconds))
        if video.is_idle and not video.is_whole:  # a shard was lost, or its last process died before it published
            if video.num_begun < _MOST_BEGUN:
                video.waiting.append(BEGIN)
            video.is_whole = video.is_idle
        return None, ""

    def drop(self, digest: str) -> None:
        """The video is given up, or was done."""
        self.videos.pop(digest, None)

    def whole(self) -> list[VideoItem]:
        """Videos that cannot be shared and of which nothing is under way any more: to be done by one worker."""
        found = [video.item for video in self.videos.values() if video.is_whole and not video.under_way]
        for item in found:
            del self.videos[item.digest]
        return found
