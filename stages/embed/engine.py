"""The engine: frames of many videos in, rows of each into a sink; decoding, forward pass and writing overlap.

    decode, then geometry    reader thread          main thread         encoder          main, writer thread
    worker processes  ---->  events, bounded  --->  rows -> batches ->  (streams)  --->  sink (shards, ledger)

Batches are filled across videos, and a few of them are on their way through the encoder at once; their rows come out in
order. What a failed attempt left is dropped, wherever it is. Memory is bounded by the queues, these batches, and one
shard for each video in work, whatever the length of a video.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from reelwright.stages.base.work import FrameProgress
from reelwright.stages.datasets.sampling.left_out import LeftOut
from reelwright.stages.datasets.sampling.needed import Needed
from reelwright.stages.decode.source import Ended, Event, Events, FrameChunk, Opened, Restarted
from reelwright.stages.embed.batches import Batch, Batcher, Owner, Part
from reelwright.stages.embed.clips import Clip, ClipAssembler, InputRows, NeededRowMaker, clips_leave_out
from reelwright.stages.embed.encoding.forward import ForwardPass, Rows, Submitted
from reelwright.stages.embed.sink import OutputRows, RowSink
from reelwright.stages.embed.threads import Background, read_ahead
from reelwright.storage.errors import ItemError
from reelwright.storage.ledger.items import DONE, ItemRow

EVENTS_AHEAD = 4  # chunks of frames that wait for the forward pass
WRITES_AHEAD = 16  # batches of rows that wait for the disk
_TIMED = ("decode_seconds", "preprocess_seconds", "forward_seconds")
BATCHES_ON_GPU = 2  # so that the copy of one and the kernels of the next overlap


@dataclass(kw_only=True)
class _Video:
    """One video on its way through the engine. Only ``error`` is touched by the writer thread."""

    digest: str
    maker: ClipAssembler | NeededRowMaker
    rows_done: int  # handed to the writer, those of earlier runs included
    num_frames: int | None  # planned, of the whole video; 0 where only those needed come, None: known at the end
    attempt: int = 0
    ended: Ended | None = None
    decode_seconds: float = 0.0
    preprocess_seconds: float = 0.0
    forward_seconds: float = 0.0
    error: ItemError | None = None

    @property
    def owner(self) -> Owner:
        """The present attempt."""
        return Owner(self.digest, self.attempt)


@dataclass
class _InFlight:
    batch: Batch
    submitted: Submitted


class EmbedEngine:
    """One pass over a stream of frame events."""

    def __init__(
        self,
        forward: ForwardPass,
        *,
        clip: Clip,
        sink: RowSink,
        progress: FrameProgress,
        shard_rows: int | None = None,
        needed: Needed | None = None,
        left_out: LeftOut | None = None,
    ) -> None:
        """What is in no row is noted in ``left_out``."""
        self._forward = forward
        self._clip = clip
        self._needed = needed
        self._left_out = left_out or clips_leave_out(clip)
        self._sink = sink
        self._progress = progress
        self._batcher = Batcher(shard_rows=shard_rows)
        self._videos: dict[str, _Video] = {}
        self._in_flight: deque[_InFlight] = deque()
        num_streams = forward.streams.num
        is_gpu = forward.execution.device.type == "cuda"
        self._max_in_flight = BATCHES_ON_GPU if is_gpu else num_streams if num_streams > 1 else 0

    def run(self, events: Events, *, start_rows: Mapping[str, int]) -> None:
        """Take all events; on return every video is in the sink, finished or failed.

        ``start_rows`` says at which row videos go on that an earlier run left unfinished.
        """
        with Background(depth=WRITES_AHEAD) as writer, read_ahead(events, depth=EVENTS_AHEAD) as incoming:
            self._write = writer.call
            try:
                self._take_all(incoming, start_rows)
            finally:
                for each in self._in_flight:  # there are some only where it ended early
                    each.submitted.cancel()
        assert not self._videos, f"videos that never ended: {sorted(self._videos)}"

    def _take_all(self, events: Iterable[Event], start_rows: Mapping[str, int]) -> None:
        for event in events:
            match event:
                case Restarted():
                    self._restart(event)
                case Opened():
                    self._open(event, start_rows.get(event.digest, 0))
                case FrameChunk():
                    self._take(event)
                case Ended():
                    self._end(event)
        self._submit(self._batcher.flush())
        self._drain(0)

    def _open(self, event: Opened, start: int) -> None:
        is_whole = event.start_row < self._clip.first_frame(start)  # a second backend begins at the first frame
        start = 0 if is_whole else start
        video = _Video(digest=event.digest, maker=self._maker(event, start=start), rows_done=start, num_frames=0)
        self._videos[event.digest] = video
        self._progress.opened(event.digest, self._num_coming(event) - event.start_row)
        if is_whole:
            self._write(lambda: self._sink.discard(video.digest))
        self._begin(video, event, start=start)

    def _maker(self, event: Opened, *, start: int = 0) -> ClipAssembler | NeededRowMaker:
        if event.times is None:
            return ClipAssembler(self._clip, start_row=start)
        assert self._needed is not None
        return NeededRowMaker(self._needed, num_frames=event.num_rows)

    def _num_coming(self, event: Opened) -> int:
        if event.times is None:
            return event.num_rows
        assert self._needed is not None
        return len(self._needed.frames(event.num_rows))

    def _take(self, event: FrameChunk) -> None:
        video = self._videos[event.digest]
        self._progress.advance(len(event.frames))
        video.decode_seconds += event.decode_seconds
        video.preprocess_seconds += event.preprocess_seconds
        self._feed(video, video.maker.add(event.frames, event.times))

    def _restart(self, event: Restarted) -> None:
        """Another attempt begins at the first frame: what came of the one before is void."""
        video = self._videos[event.digest]
        self._void(video)
        video.maker = self._maker(event)
        self._begin(video, event, start=0)

    def _end(self, event: Ended) -> None:
        video = self._videos.get(event.digest)
        if video is None:  # it could not even be opened
            row = _failed(event, ItemError(event.cause, event.message, status=event.status))
            self._write(lambda: self._sink.fail(row))
            return
        if event.status in DONE:
            self._feed(video, video.maker.close())
            self._submit(self._batcher.flush(video.owner))
        else:
            self._void(video)
        video.ended = event
        self._finish_if_complete(video)

    def _void(self, video: _Video) -> None:
        video.attempt += 1
        video.maker = ClipAssembler(self._clip)
        video.rows_done = 0

        def discard() -> None:
            self._sink.discard(video.digest)
            video.error = None

        self._write(discard)

    def _begin(self, video: _Video, event: Opened, *, start: int) -> None:
        maker = video.maker
        video.num_frames = 0 if isinstance(maker, NeededRowMaker) else event.num_rows
        num_rows: int | None = self._clip.num_rows(event.num_rows)
        if isinstance(maker, NeededRowMaker):
            num_rows = maker.num_planned
        elif event.is_open:
            num_rows = video.num_frames = None

        def begin() -> None:
            if num_rows is not None and num_rows < 1 and event.num_rows:
                raise self._too_short(event, event.num_rows)
            if num_rows is not None and num_rows < 1:
                raise ItemError("no_frames", "the sampling takes no frame of this video; check fps, start and stop")
            if self._sink.begin(video.digest, num_rows=num_rows) != start:
                raise ItemError("changed", "the video does not go on where an interrupted run left it; run again")

        self._write(lambda: self._guard(video, begin))

    def _guard(self, video: _Video, function: Callable[[], None]) -> None:
        """Run a sink call in the writer thread; an ItemError is kept for the end of the video, the rest is skipped."""
        if video.error is not None:
            return
        try:
            function()
        except ItemError as error:
            video.error = error
            self._sink.discard(video.digest)

    def _feed(self, video: _Video, rows: Iterable[InputRows]) -> None:
        for part in rows:
            self._submit(self._batcher.add(video.owner, part, batch_size=self._forward.rows_at_once))

    def _submit(self, batches: Iterable[Batch]) -> None:
        for batch in batches:
            if not any(self._is_current(part) for part in batch.parts):
                continue
            self._in_flight.append(_InFlight(batch, self._forward.submit(batch.frames(), batch.mask())))
            self._drain(self._max_in_flight)

    def _drain(self, depth: int) -> None:
        while len(self._in_flight) > depth:
            done = self._in_flight.popleft()
            outputs = done.submitted.result()
            seconds = done.submitted.seconds / done.batch.size
            start = 0
            for part in done.batch.parts:
                self._deliver(part, {name: rows[start : start + len(part)] for name, rows in outputs.items()}, seconds)
                start += len(part)

    def _deliver(self, part: Part, outputs: dict[str, Rows], seconds_each: float) -> None:
        if not self._is_current(part):
            return
        video = self._videos[part.owner.digest]
        rows = OutputRows(part.rows.start, outputs, part.rows.spans)
        self._write(lambda: self._guard(video, lambda: self._sink.rows(video.digest, rows)))
        video.rows_done += len(part)
        video.forward_seconds += seconds_each * len(part)
        self._finish_if_complete(video)

    def _is_current(self, part: Part) -> bool:
        video = self._videos.get(part.owner.digest)
        return video is not None and video.attempt == part.owner.attempt

    def _finish_if_complete(self, video: _Video) -> None:
        event = video.ended
        if event is None or video.rows_done < video.maker.num_rows:
            return
        del self._videos[video.digest]
        num_rows, seconds = video.rows_done, event.seconds + video.forward_seconds

        def finish() -> None:
            self._guard(video, lambda: self._check_rows(event, num_rows))
            if video.error is not None:
                self._sink.fail(_failed(event, video.error, seconds=seconds))
            else:
                steps = {name: round(getattr(video, name), 6) for name in _TIMED}
                row = replace(event.row(rows=num_rows, seconds=round(seconds, 3)), **steps)
                self._sink.finish(replace(row, message=self._message(event, video.num_frames)))

        self._write(finish)

    def _check_rows(self, event: Ended, num_rows: int) -> None:
        if event.status not in DONE:
            raise ItemError(event.cause, event.message, status=event.status)
        if num_rows < 1 and event.num_rows:
            raise self._too_short(event, event.num_rows)
        if num_rows < 1:
            raise ItemError("no_frames", "no frame of this video could be decoded")

    def _message(self, event: Ended, num_planned: int | None) -> str:
        """What is told of a video with rows; of one that is whole, of all its frames, wherever work on it ended."""
        planned = event.num_rows if num_planned is None else num_planned
        num_frames = min(event.num_rows, planned) if event.status != "ok" else planned
        num_left = self._clip.num_left_out(num_frames)
        message = self._left_out.add(event.item.video_id, num_left=num_left, num_rows=num_frames)
        return "; ".join(filter(None, (event.message, message)))

    def _too_short(self, event: Event, num_frames: int) -> ItemError:
        message = self._left_out.add_short(event.item.video_id, num_rows=num_frames)
        damage = event.message if isinstance(event, Ended) else ""
        return ItemError("too_short", "; ".join(filter(None, (damage, message))), status="skipped")


def _failed(event: Ended, error: ItemError, *, seconds: float = 0.0) -> ItemRow:
    how = replace(event, status=error.status, cause=error.cause, message=str(error))
    return how.row(seconds=round(seconds, 3))
