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

from reelwright.models.encoders.build import DataConfig
from reelwright.stages.datasets.sampling.views import Box, line_crops
from reelwright.stages.decode.geometry import Geometry
from reelwright.stages.decode.source import Ended, FrameChunk, Opened, Restarted
from reelwright.stages.embed.videos import Events
from reelwright.storage.errors import ConfigError

Event = Opened | FrameChunk | Restarted | Ended


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


class CropStreams:
    """Splits the events of each video into those of its crops, and knows whose a crop is."""

    def __init__(self, crops: Crops) -> None:
        self._crops = crops
        self._boxes: dict[str, tuple[Box, ...]] = {}
        self._opened: dict[str, Opened | Restarted] = {}  # waiting for the first frame
        self._video: dict[str, str] = {}  # of crops after the first

    def video_of(self, digest: str) -> str:
        """The digest of the video that the stream ``digest`` is a crop of."""
        return self._video.get(digest, digest)

    def num_crops(self, video: str) -> int:
        """Different crops of a video, once its streams have begun; 1 before."""
        return len(self._boxes.get(video, ("",)))

    def forget(self, video: str) -> None:
        """All its streams have ended."""
        for number in range(1, len(self._boxes.pop(video, ()))):
            self._video.pop(_name(video, number), None)

    def through(self, events: Events) -> Events:
        """The events of the crops; closing it closes ``events``."""
        with closing(events):  # type: ignore[type-var]  # it is a generator, which has close
            for event in events:
                yield from self._split(event)

    def _split(self, event: Event) -> Iterator[Event]:
        digest = event.digest
        match event:
            case Opened() | Restarted():
                self._opened[digest] = event
            case FrameChunk():
                if digest in self._opened:
                    yield from self._open(event)
                for number, box in enumerate(self._boxes[digest]):
                    frames = event.frames[:, box.top : box.top + box.height, box.left : box.left + box.width]
                    yield self._named(replace(event, frames=np.ascontiguousarray(frames)), number)
            case Ended():
                waiting = self._opened.pop(digest, None)
                if waiting is not None:  # no frame came
                    yield from self._all(waiting if digest in self._boxes else _first(waiting))
                yield from self._all(event)

    def _open(self, chunk: FrameChunk) -> Iterator[Event]:
        event, is_new = self._opened.pop(chunk.digest), chunk.digest not in self._boxes
        if is_new:  # another backend gives the same frames
            self._boxes[chunk.digest] = self._crops.boxes(*chunk.frames.shape[1:3])
        yield from self._all(_first(event) if is_new else event)

    def _all(self, event: Event) -> Iterator[Event]:
        for number in range(self.num_crops(event.digest)):
            yield self._named(event, number)

    def _named(self, event: Event, number: int) -> Event:
        if number == 0:
            return event
        name = _name(event.digest, number)
        self._video[name] = event.digest
        return replace(event, item=event.item._replace(digest=name))


def _name(video: str, number: int) -> str:
    return f"{video}.{number}"


def _first(event: Opened | Restarted) -> Opened:
    """As the first event of a video."""
    if isinstance(event, Opened):
        return event
    return Opened(
        item=event.item, num_rows=event.num_rows, backend=event.backend, start_row=event.start_row, times=event.times
    )
