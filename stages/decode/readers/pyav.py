"""Read frames with PyAV: every format, in the order in which FFmpeg decodes them, and learn what only that tells.

known index      frames by number: in order from the start, or from a key frame where one lies ahead; each frame's
                 time is compared with the index, so that a wrong one is found and made again by decoding
unknown index    all frames in order with their times (`frames`); at the end the index is known
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from reelwright.stages.decode.processes.attempts import INDEX_CORRECTED
from reelwright.stages.decode.reader import Frame, Shown, runs
from reelwright.stages.decode.readers.damage import Damage
from reelwright.stages.decode.readers.pictures import Pictures
from reelwright.stages.decode.timing.bitstream import is_random_access
from reelwright.stages.decode.timing.index import FrameIndex, Indexed, learned
from reelwright.stages.decode.timing.packets import open_stream
from reelwright.stages.decode.timing.timeline import Timeline, guess_step
from reelwright.storage.errors import ItemError

_WORTH_SEEKING_FRAMES = 8  # frames that must be saved for a jump to a key frame to pay


class _WrongLanding(Exception):  # noqa: N818 - control flow inside this module
    """What follows a seek is not what the index says."""


class PyavReader(Indexed):
    """A `Reader`; the pixels are those of `pictures`."""

    backend = "pyav"

    def __init__(self, path: Path, index: FrameIndex, *, num_threads: int = 1, stretch: float = 1.0) -> None:
        self.index = index
        self._path, self._num_threads = path, num_threads
        self._pictures = Pictures(index.matrix, size=(index.height, index.width), stretch=stretch)
        self._opened: Any = None
        self._keys: dict[int, int] = {}  # decoding times of key frames by their presentation time, as they were met
        self._key_numbers: list[int] = []  # of the same, as far as the index is not known
        self._met = Damage()

    @property
    def damage(self) -> str:
        """See `Reader.damage`."""
        return "; ".join(filter(None, (self._met.text() if self.index.origin != "decoded" else "", super().damage)))

    @property
    def damage_met(self) -> str:
        """See `Reader.damage_met`."""
        return self._met.text_of_asked(self._key_numbers or self.index.key_frames)

    @property
    def notes(self) -> tuple[str, ...]:
        """See `Reader.notes`."""
        return (*super().notes, *self._pictures.notes)

    def read(self, source_frames: Sequence[int] | NDArray[np.int64]) -> Iterator[tuple[int, Frame]]:
        """See `Reader.read`."""
        wanted = list(runs(source_frames))
        decoding = self._numbered(wanted[0][0]) if wanted else iter(())
        position = -1
        for number, repeats in wanted:
            if position >= 0 and self.index.key_before(number) > position + _WORTH_SEEKING_FRAMES:
                decoding = self._numbered(number)
            position, picture = next(found for found in decoding if found[0] == number)
            self._met.asked(self.index.key_before(number))
            frame = self._pictures.pixels(picture)
            for _ in range(repeats):
                yield number, frame

    def frames(self) -> Iterator[Shown]:
        """See `Reader.frames`."""
        timeline = self._timeline()
        waiting: tuple[int, Any] | None = None
        keys: list[tuple[int, int]] = []
        for number, picture in enumerate(self._in_order()):
            tick = timeline.add(picture.pts, picture.dts)
            self._note_concealed(number, picture)
            if waiting is not None:
                yield self._shown(number - 1, waiting, tick)
            if picture.pts in self._keys:
                keys.append((number, self._keys[picture.pts]))
                self._key_numbers.append(number)
            waiting = (tick, picture)
        if waiting is None:
            raise ItemError("no_frames", "not one frame can be decoded. Replace the file.")
        duration = int(getattr(waiting[1], "duration", 0) or 0)
        self.index = learned(self.index, timeline, keys, last_duration=duration, damage=self._met.text())
        end = round(self.index.end_seconds / self.index.tick_seconds)
        yield self._shown(self.index.num_frames - 1, waiting, end)

    def close(self) -> None:
        """See `Reader.close`."""
        if self._opened is not None:
            self._opened.__exit__(None, None, None)
            self._opened = None

    def _shown(self, number: int, waiting: tuple[int, Any], stop: int) -> Shown:
        tick, picture = waiting
        seconds, key = self.index.tick_seconds, self._key_numbers[-1] if self._key_numbers else 0

        def pixels() -> Frame:
            self._met.asked(key)
            return self._pictures.pixels(picture)

        return Shown(number, tick * seconds, stop * seconds, pixels)

    def _timeline(self) -> Timeline:
        index = self.index
        step = guess_step(index.average_fps, index.tick_seconds)
        return Timeline(tick_seconds=index.tick_seconds, step=step)

    def _numbered(self, number: int) -> Iterator[tuple[int, Any]]:
        """(frame number, picture), from the key frame before ``number`` or from the start, without a gap."""
        key, reached = self.index.key_before(number), -1
        for seek in self._ways_to(key) if key > _WORTH_SEEKING_FRAMES else ():
            try:
                for reached, picture in self._landed(key, seek):
                    yield reached, picture
            except _WrongLanding:
                if reached < 0:
                    continue
            if reached == self.index.num_frames - 1:
                return
            break
        yield from (found for found in self._checked() if found[0] > reached)

    def _ways_to(self, key: int) -> list[int]:
        """Times to seek for key frame ``key``; in MP4 with B-frames its decoding time leads to the one before it."""
        place = int(np.searchsorted(self.index.key_frames, key))
        return list(dict.fromkeys((int(self.index.ticks[key]), int(self.index.key_dts[place]))))

    def _landed(self, key: int, seek: int) -> Iterator[tuple[int, Any]]:
        """Frames from key frame ``key`` on, sought by time ``seek``."""
        ticks, number = self.index.ticks, key
        try:
            for picture in self._decode(self._num_threads, seek=seek):
                time = picture.pts if picture.pts is not None else picture.dts
                if number == key and time is not None and time < ticks[key]:
                    continue  # shown before the key frame, decoded after it
                if number >= len(ticks) or time != ticks[number]:
                    raise _WrongLanding
                self._note_concealed(number, picture)
                yield number, picture
                number += 1
        except av.FFmpegError:
            raise _WrongLanding from None

    def _checked(self) -> Iterator[tuple[int, Any]]:
        """All frames from the start. Raises ItemError where they are not those of the index."""
        timeline, ticks, number = self._timeline(), self.index.ticks, -1
        for number, picture in enumerate(self._in_order()):
            if number >= len(ticks) or timeline.add(picture.pts, picture.dts) != ticks[number]:
                raise self._corrected(number)
            self._note_concealed(number, picture)
            yield number, picture
        raise self._corrected(number + 1)  # whoever has all frames that the index knows of asks for no more

    def _corrected(self, number: int) -> ItemError:
        message = f"the packets promise {self.index.num_frames} frames, and from frame {number} on others are decoded"
        self.index = self.index.doubted()
        return ItemError(INDEX_CORRECTED, message)

    def _in_order(self) -> Iterator[Any]:
        """All pictures that FFmpeg decodes, packets that cannot be decoded left out.

        With threads, PyAV loses pictures beside a packet that fails: all is then decoded by one.
        """
        count = 0
        if self._num_threads > 1:
            try:
                for picture in self._decode(self._num_threads):
                    yield picture
                    count += 1
            except av.FFmpegError:
                pass
            else:
                return
        for place, picture in enumerate(self._decode(1, is_lenient=True)):
            if place >= count:
                yield picture

    def _decode(self, num_threads: int, *, seek: int | None = None, is_lenient: bool = False) -> Iterator[Any]:
        """Pictures as they are decoded. Raises av.FFmpegError at the first bad packet unless lenient."""
        self.close()
        self._opened = open_stream(self._path)
        container, stream = self._opened.__enter__()
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = num_threads
        extradata = bytes(stream.codec_context.extradata or b"")
        if seek is not None:
            container.seek(seek, stream=stream, backward=True)
        num_pictures = 0
        packets = container.demux(stream)
        for place in itertools.count():
            try:
                packet = next(packets, None)
                if packet is None:
                    return
                is_timed = not self.index.is_known and packet.pts is not None and packet.dts is not None
                if is_timed and packet.is_keyframe and is_random_access(self.index.codec, extradata, packet):
                    self._keys[packet.pts] = packet.dts
                pictures = packet.decode()
            except av.FFmpegError as error:
                if not is_lenient:
                    raise
                self._met.packet(place, num_pictures=num_pictures, error=error.strerror or str(error))
                continue  # where reading itself has failed, there is no further packet
            num_pictures += len(pictures)
            yield from pictures

    def _note_concealed(self, number: int, picture: Any) -> None:
        if picture.is_corrupt:
            self._met.concealed(number)
