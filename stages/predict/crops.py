"""Several crops of every frame: each crop of a video goes through the encoder as if it were a video of its own.

    frames      opened  chunk          chunk     ...  ended
    3 crops     opened  left           left           ended      under the video's digest
                opened  centre         centre         ended      under <digest>.1
                opened  right          right          ended      under <digest>.2

How many differ is known with the first frame (a square one has a single crop), so `opened` waits for it. Source: CAST
(1.2, 1.6).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from reelwright.models.encoders.build import DataConfig
from reelwright.stages.datasets.sampling.needed import Needed
from reelwright.stages.datasets.sampling.views import Box, line_crops
from reelwright.stages.decode.geometry import Geometry
from reelwright.stages.decode.source import Ended, Event, Events, FrameChunk, Opened
from reelwright.storage.arrays.spans import RowTimes, Spans
from reelwright.storage.errors import ConfigError

Whole = tuple[npt.NDArray[np.int64], Spans]  # which rows of a video came, and the spans of all


@dataclass(frozen=True, kw_only=True)
class Crops:
    """`num_crops` squares of `size` pixels along the longer side of frames whose shorter side has `short_side`."""

    num_crops: int
    size: int
    short_side: int

    @classmethod
    def of(cls, config: DataConfig, *, num_crops: int, short_side: int | None, where: str) -> Crops:
        """Crops as the encoder takes them. Raises ConfigError where it takes none that are square, or larger ones."""
        height, width = config.size
        if height != width:
            raise ConfigError(
                f"{where}: crops are square, but the encoder sees {height} x {width} (height x width). Leave crops and "
                "short_side out."
            )
        if short_side is not None and short_side < height:
            raise ConfigError(
                f"{where}: short_side: {short_side} is not allowed: the encoder sees {height} pixels, which do not fit."
                f" Give {height} or more, or leave it out."
            )
        return cls(num_crops=num_crops, size=height, short_side=short_side or height)

    def geometry(self, config: DataConfig) -> Geometry:
        """What is done to decoded frames: resize, without a crop."""
        return Geometry(
            resize=self.short_side,
            interpolation=config.interpolation,
            antialias=config.antialias,
            resize_with=config.resize_with,
        )

    def boxes(self, height: int, width: int) -> tuple[Box, ...]:
        """The crops of resized frames of that size, each once."""
        return tuple(dict.fromkeys(line_crops(height, width, num_crops=self.num_crops, size=self.size)))


class RowStreams:
    """The streams of rows of each video: of which of its frames, in which crops.

    Without ``needed`` of all frames, without ``crops`` of frames as the encoder sees them.
    """

    def __init__(self, needed: Needed | None, crops: Crops | None) -> None:
        self._needed, self._crops = needed, crops
        self._boxes: dict[str, tuple[Box, ...]] = {}
        self._opened: dict[str, Opened] = {}  # waiting for the first frame
        self._video: dict[str, str] = {}  # of crops after the first
        self._times: dict[str, RowTimes | None] = {}  # of all frames of a video, where only some come

    def video_of(self, digest: str) -> str:
        """The digest of the video that the stream ``digest`` is of."""
        return self._video.get(digest, digest)

    def num_streams(self, video: str) -> int:
        """Different crops of a video, once its streams have begun; 1 before."""
        return len(self._boxes.get(video, ("",)))

    def take_whole(self, video: str) -> Whole | None:
        """Which rows of a video came; None: all. All its streams have ended, and it is forgotten."""
        for number in range(1, len(self._boxes.pop(video, ()))):
            self._video.pop(_name(video, number), None)
        times = self._times.pop(video, None)
        if times is None:
            return None
        assert self._needed is not None
        rows = self._needed.all_rows(times.num_rows)
        return self._needed.rows(times.num_rows), times.spans(rows.start, rows.last_row(self._needed.row))

    def through(self, events: Events) -> Events:
        """The events of all streams; closing it closes ``events``."""
        with closing(events):  # type: ignore[type-var]  # it is a generator, which has close
            for event in events:
                if isinstance(event, Opened):
                    self._times[event.digest] = event.times
                yield from (event,) if self._crops is None else self._split(event, self._crops)

    def _split(self, event: Event, crops: Crops) -> Iterator[Event]:
        digest = event.digest
        match event:
            case Opened():
                self._opened[digest] = event
            case FrameChunk():
                if digest in self._opened:
                    yield from self._open(event, crops)
                for number, box in enumerate(self._boxes[digest]):
                    frames = event.frames[:, box.top : box.top + box.height, box.left : box.left + box.width]
                    yield self._named(replace(event, frames=np.ascontiguousarray(frames)), number)
            case Ended():
                waiting = self._opened.pop(digest, None)
                if waiting is not None:  # no frame came
                    yield from self._all(waiting if digest in self._boxes else Opened(**vars(waiting)))
                yield from self._all(event)

    def _open(self, chunk: FrameChunk, crops: Crops) -> Iterator[Event]:
        event = self._opened.pop(chunk.digest)
        if chunk.digest not in self._boxes:  # another backend gives the same frames
            self._boxes[chunk.digest] = crops.boxes(*chunk.frames.shape[1:3])
            event = Opened(**vars(event))  # the streams of the crops begin, whatever was tried before
        yield from self._all(event)

    def _all(self, event: Event) -> Iterator[Event]:
        for number in range(self.num_streams(event.digest)):
            yield self._named(event, number)

    def _named(self, event: Event, number: int) -> Event:
        if number == 0:
            return event
        name = _name(event.digest, number)
        self._video[name] = event.digest
        return replace(event, item=event.item._replace(digest=name))


def _name(video: str, number: int) -> str:
    return f"{video}.{number}"
