"""The rows of a video as they are read: the frame and span of each, batches of them, and what is sent of them."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reelwright.stages.decode import geometry as geometries
from reelwright.stages.decode.config import DecodeConfig
from reelwright.stages.decode.geometry import Geometry
from reelwright.stages.decode.processes.wire import Arrays
from reelwright.stages.decode.reader import Frame, FrameTimes, Reader
from reelwright.stages.decode.readers import open_reader
from reelwright.stages.decode.sampling import RowPicker, plan_rows
from reelwright.storage.arrays.spans import RowTimes
from reelwright.storage.digests import file_digest
from reelwright.storage.errors import ItemError
from reelwright.storage.ledger.digest_cache import Snapshot

CHUNK_BYTES = 4 << 20  # of frames that are handed over at once; a single frame may have more

Sent = tuple[dict[str, Any], Arrays]
Row = tuple[int, float, float, Frame]  # source frame, when it appears and leaves the screen, pixels


@dataclass(frozen=True)
class Batch:
    """Consecutive rows: frames (n, h, w, 3), or one by one as they were read, and their times (n,)."""

    pictures: geometries.Frames | list[Frame]
    times: RowTimes
    decode_seconds: float = 0.0  # that reading these rows took
    preprocess_seconds: float = 0.0  # that the steps took

    @property
    def frames(self) -> geometries.Frames:
        """The frames as one array."""
        return np.stack(self.pictures) if isinstance(self.pictures, list) else self.pictures


@dataclass
class VideoRows:
    """The rows of an open video that a decode configuration asks for."""

    reader: Reader
    settings: DecodeConfig
    snapshot: Snapshot | None = None
    times: RowTimes | None = field(init=False)  # of all rows; None where only decoding tells them

    def __post_init__(self) -> None:
        """Plan the rows where the frames are known."""
        self.plan()

    def plan(self) -> None:
        """Plan the rows where the frames are known by now."""
        times = self.reader.times
        self.times = None if times is None else planned_times(times, self.settings)

    @property
    def num_rows(self) -> int:
        """How many rows there are; about, where only decoding tells."""
        if self.times is not None:
            return self.times.num_rows
        first, end = self.reader.estimated_seconds
        seconds = max(end - first, 1e-3)
        return max(
            1,
            math.ceil(self.settings.expected_frames(num_frames=self.reader.estimated_frames, duration_seconds=seconds)),
        )

    def opened(self, start_row: int) -> Sent:
        """What is sent first."""
        return opened(self.num_rows, start_row, is_open=self.times is None)

    def batches(
        self, rows: int, *, start: int = 0, stop: int | None = None, most_bytes: float = math.inf
    ) -> Iterator[Batch]:
        """Rows [start, stop) as the settings cut and size them, ``rows`` at once or as many as have ``most_bytes``.

        What was read before an error comes out before it. Raises ItemError at the end where the file is damaged, or
        other rows were asked for than it has.
        """
        yield from self._batches(self._rows(start, stop), rows, start=start, total=self.num_rows, most_bytes=most_bytes)

    def take(self, rows: int, *, wanted: NDArray[np.int64], most_bytes: float) -> Iterator[Batch]:
        """Some rows (ascending) of a video whose rows are known, as `batches`."""
        assert self.times is not None
        found = planned_rows(self.reader, self.times.take(wanted))
        yield from self._batches(found, rows, start=0, total=len(wanted), most_bytes=most_bytes)

    def _batches(self, rows: Iterator[Row], size: int, *, start: int, total: int, most_bytes: float) -> Iterator[Batch]:
        step = Geometry.of(self.settings)
        batch: list[Row] = []
        produced = start
        clock = _Clock()
        while True:
            damage: ItemError | None = None
            clock.lap()
            try:
                row = next(rows, None)
            except ItemError as error:
                damage, row = error, None
            clock.decode_seconds += clock.lap()
            if row is not None:
                frame = row[3] if step is None else applied(row[3][None], step)[0]  # small frames wait, not large ones
                batch.append((*row[:3], frame))
            clock.preprocess_seconds += clock.lap()
            if batch and (row is None or len(batch) == size or len(batch) * batch[-1][3].nbytes >= most_bytes):
                produced += len(batch)
                yield _stacked(batch, clock)
                batch, clock = [], _Clock()
            if damage is not None:
                raise _counted(damage, produced, total)
            if row is None:
                return

    def check_complete(self) -> None:
        """To be asked before what was read is kept.

        Raises ItemError: `changed` where the file was replaced while it was read; status truncated when what the file
        has lost may have been asked for, or damage was met on the way to what was.
        """
        if self.snapshot is not None:
            self.snapshot.check()
        settings, reader = self.settings, self.reader
        end = reader.times.end_seconds if reader.times is not None else math.inf
        reaches_end = settings.times is None and (settings.stop is None or settings.stop > end)
        damage = reader.damage if reaches_end else reader.damage_met
        if damage:
            raise ItemError("damaged_file", f"{damage}; what can be decoded is there", status="truncated")

    def _rows(self, start: int, stop: int | None) -> Iterator[Row]:
        if self.times is None:
            return self._picked(start, stop)
        return planned_rows(self.reader, self.times.take(np.arange(self.times.num_rows)[start:stop]))

    def _picked(self, start: int, stop: int | None) -> Iterator[Row]:
        """Rows of a video whose frames are not known, chosen while it is decoded."""
        picker, first = RowPicker(self.settings), None
        waiting = None
        for shown in self.reader.frames():
            first = shown.pts_seconds if first is None else first
            if waiting is not None:
                yield from _repeated(waiting, picker, start, stop, is_last=False)
                if picker.is_done or (stop is not None and picker.num_rows >= stop):
                    return
            waiting = shown
        assert waiting is not None
        assert first is not None
        yield from _repeated(waiting, picker, start, stop, is_last=True)
        picker.close(first, waiting.stop_seconds)


def _repeated(shown: Any, picker: RowPicker, start: int, stop: int | None, *, is_last: bool) -> Iterator[Row]:
    row = picker.num_rows
    count = picker.rows_of(shown.pts_seconds, shown.stop_seconds, is_last=is_last)
    wanted = range(max(row, start), row + count if stop is None else min(row + count, stop))
    if wanted:
        pixels = shown.pixels()
        for _ in wanted:
            yield shown.number, shown.pts_seconds, shown.stop_seconds, pixels


@contextlib.contextmanager
def reading(
    *,
    path: str,
    config: Mapping[str, Any],
    backend: str,
    num_threads: int,
    digest: str = "",
    stamp: Sequence[int] | None = None,
    index: str | None = None,
    is_doubted: bool = False,
) -> Iterator[VideoRows]:
    """A video opened with ``backend``, and the rows that ``config`` (plain) asks for.

    digest, stamp: of the content, and of the file that it was read from. index: the folder of frame indexes; what
    decoding teaches of the video is kept there. is_doubted: packets were found to tell other frames than there are.
    Raises ItemError `changed` when the file is not the one that the digest was made of, before or after it was read.
    """
    settings = DecodeConfig.model_validate(dict(config))
    folder = None if index is None else Path(index)
    snapshot = _snapshot(Path(path), digest, stamp)
    reader = open_reader(
        Path(path),
        settings,
        backend=backend,
        num_threads=num_threads,
        digest=digest,
        index_folder=folder,
        is_doubted=is_doubted,
    )
    before = getattr(reader, "index", None)
    try:
        yield VideoRows(reader, settings, snapshot)
    finally:
        reader.close()
        after = getattr(reader, "index", None)
        if after is not None and after is not before:
            from reelwright.stages.decode.timing.index import keep_index

            keep_index(after, digest=digest, folder=folder)


def _snapshot(path: Path, digest: str, stamp: Sequence[int] | None) -> Snapshot | None:
    """The file as it is now. Raises ItemError `changed` where it is not as it was when its digest was made."""
    try:
        snapshot = Snapshot.of(path)
    except OSError:
        return None  # the reader says what is wrong
    is_other = stamp is not None and tuple(stamp) != snapshot.stamp
    if is_other and digest not in (file_digest(path), file_digest(path, quick=True)):
        raise ItemError("changed", f"{path} is not the file any more that was indexed: it was replaced; run again")
    return snapshot


def planned_times(times: FrameTimes, config: DecodeConfig) -> RowTimes:
    """Source frame and span of every row that ``config`` asks for."""
    source = plan_rows(times.pts_seconds, config, end_seconds=times.end_seconds)
    return RowTimes(source_frame=source, pts_seconds=times.pts_seconds[source], stop_seconds=times.stop_seconds[source])


def planned_rows(reader: Reader, times: RowTimes) -> Iterator[Row]:
    """The rows of ``times``, read by number."""
    spans = zip(times.pts_seconds.tolist(), times.stop_seconds.tolist(), strict=True)
    for (number, frame), (start, stop) in zip(reader.read(times.source_frame), spans, strict=True):
        yield number, start, stop, frame


class _Clock:
    """Seconds of the steps that made a batch; what is done with it by others does not count."""

    def __init__(self) -> None:
        self.decode_seconds = self.preprocess_seconds = 0.0
        self._last = time.perf_counter()

    def lap(self) -> float:
        """Seconds since the last call."""
        before, self._last = self._last, time.perf_counter()
        return self._last - before


def _stacked(rows: list[Row], clock: _Clock) -> Batch:
    numbers, starts, stops, frames = zip(*rows, strict=True)
    times = RowTimes(
        source_frame=np.asarray(numbers, np.int64),
        pts_seconds=np.asarray(starts, np.float64),
        stop_seconds=np.asarray(stops, np.float64),
    )
    return Batch(list(frames), times, clock.decode_seconds, clock.preprocess_seconds)


def _counted(error: ItemError, produced: int, total: int) -> ItemError:
    if error.status != "truncated":
        return error
    if produced == 0:
        return ItemError("no_frames", f"no row could be decoded: {error}")
    return ItemError(error.cause, f"{produced} of {total} rows are there, then {error}", status="truncated")


def applied(frames: geometries.Frames, step: Geometry) -> geometries.Frames:
    """(n, h, w, 3) frames after ``step``. Raises ItemError (geometry) where it does not fit them."""
    try:
        return geometries.apply(frames, step)
    except ValueError as error:
        raise ItemError("geometry", str(error)) from None


def opened(num_rows: int, start_row: int = 0, *, is_open: bool = False, times: RowTimes | None = None) -> Sent:
    """What is sent first; where only some rows follow, with the times of all."""
    body = {"event": "opened", "num_rows": num_rows, "start_row": start_row, "is_open": is_open}
    return body, [] if times is None else [*vars(times).values()]


def chunk(batch: Batch, start: int) -> Sent:
    """What is sent of rows [start, start + n): their frames and times."""
    seconds = [batch.decode_seconds, batch.preprocess_seconds]
    return {"event": "chunk", "start_row": start, "seconds": seconds}, [batch.pictures, *vars(batch.times).values()]


def row_times(arrays: Sequence[NDArray[Any]]) -> RowTimes:
    """Times as `opened` and `chunk` send them."""
    source_frame, pts_seconds, stop_seconds = arrays
    return RowTimes(source_frame=source_frame, pts_seconds=pts_seconds, stop_seconds=stop_seconds)


def notes(reader: Reader) -> Iterator[Sent]:
    """What people should know of the file, if anything; to be sent when all was read."""
    if reader.notes:
        yield {"event": "notes", "notes": list(reader.notes)}, []
