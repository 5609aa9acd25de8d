"""A long video of embed that several processes write together, each some of its shards."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from reelwright.stages.base.devices import deterministic_results
from reelwright.stages.base.work import Reporter, Shards, SilentReporter, Work, ledger_of
from reelwright.stages.decode.source import Ended, Opened, Restarted, stream_frames
from reelwright.stages.embed.clips import clips_leave_out
from reelwright.stages.embed.sink import ShardFiller
from reelwright.stages.embed.videos import clip_of, embed_videos, frame_input
from reelwright.stages.embed.views import views_of
from reelwright.stages.embed.work import open_writer, ready
from reelwright.storage.arrays.embedding_writer import EmbeddingWriter
from reelwright.storage.errors import ItemError
from reelwright.storage.ledger.items import WORK_STEPS, ItemRow


class SharedEmbedding:
    """See `SharedVideo`; the video is the only item of ``work``."""

    def __init__(self, work: Work, reporter: Reporter) -> None:
        self._work = work
        (self._item,) = work.items
        self._digest = self._item.digest
        self._loaded, self._forward = ready(work, reporter)
        self._frames = frame_input(work)
        self._writer = open_writer(work, self._loaded, self._forward)
        self._ledger, self._reporter = ledger_of(work), reporter
        self._row: ItemRow | None = None  # of what was done of it here

    def begin(self) -> Shards | None:
        """See `SharedVideo`."""
        num_frames = self._count()
        clip = clip_of(self._loaded, where="embed")
        num_rows = clip.num_rows(num_frames)
        if num_rows < 1:
            return None
        num_left = clip.num_left_out(num_frames)
        message = clips_leave_out(clip).add(self._item.video_id, num_left=num_left, num_rows=num_frames)
        self._row = None if self._row is None else replace(self._row, message=message)
        self._writer.begin(self._digest, num_rows=num_rows)
        return self._shards()

    def look(self) -> Shards | None:
        """See `SharedVideo`."""
        return self._shards() if self._writer.reopen(self._digest) else None

    def write(self, start: int, stop: int) -> bool:
        """See `SharedVideo`."""
        shard_rows, num_rows = self._writer.shard_rows(self._digest), self._writer.num_rows(self._digest)
        stop_row = stop * shard_rows
        sink = ShardSink(self._writer, start_row=start * shard_rows, stop_row=min(stop_row, num_rows))
        is_deterministic = self._loaded.config.deterministic
        with deterministic_results(is_deterministic):
            embed_videos(
                [self._item],
                loaded=self._loaded,
                forward=self._forward,
                frames=self._frames,
                sink=sink,
                reporter=SilentReporter(),
                shard_rows=self._writer.layout.rows_per_shard() if is_deterministic else None,
                selection=views_of(self._loaded, where=self._work.node),
                stop_rows={self._digest: stop_row} if stop_row < num_rows else None,
            )
        self._row = sink.row
        return sink.row is not None

    def publish(self) -> None:
        """See `SharedVideo`."""
        assert self._row is not None
        num_rows = self._writer.num_rows(self._digest)
        stored_bytes = self._writer.finish(self._digest, num_rows=num_rows)
        # Seconds of steps of one process are but a part.
        unknown: dict[str, Any] = dict.fromkeys((f"{step}_seconds" for step in WORK_STEPS), 0.0)
        row = replace(self._row, rows=num_rows, bytes=stored_bytes, **unknown)
        self._ledger.commit(row)
        self._reporter.item(row)
        if row.message:
            self._reporter.note(f"warning: {self._item.video_id}: {row.message}")

    def _shards(self) -> Shards:
        missing = tuple(self._writer.missing_shards(self._digest))
        return Shards(count=self._writer.num_shards(self._digest), missing=missing)

    def _count(self) -> int:
        """Frames that the sampling takes, by opening the video alone; 0 where that does not go well at once."""
        events = stream_frames(
            [self._item],
            decode=self._frames.decode,
            frames_store=self._frames.frames_store,
            index=self._frames.index,
            geometry=None,
            workers=1,
            stop_rows={self._digest: 0},
        )
        num_frames = 0
        for event in events:
            match event:
                case Restarted():
                    return 0
                case Opened():
                    num_frames = 0 if event.is_open else event.num_rows  # an open one is decoded from its start
                case Ended():
                    self._row = event.row()
        return num_frames if self._row is not None and self._row.status == "ok" else 0


class ShardSink(ShardFiller):
    """Takes the rows [start_row, stop_row) of one video, whole shards; what others write of it is left alone."""

    def __init__(self, writer: EmbeddingWriter, *, start_row: int, stop_row: int) -> None:
        super().__init__(writer)
        self._start_row, self._stop_row = start_row, stop_row
        self.row: ItemRow | None = None  # once all is written

    def start_row(self, digest: str) -> int:  # noqa: ARG002 - the protocol's
        """Where the shards begin."""
        return self._start_row

    def begin(self, digest: str, *, num_rows: int | None) -> int:
        """Raises ItemError where the video has another number of rows than its arrays."""
        if num_rows != self._writer.num_rows(digest):
            raise ItemError("changed", f"{num_rows} rows, but its arrays were made for {self._writer.num_rows(digest)}")
        self.go_on(digest, start=self._start_row, num_rows=num_rows)
        return self._start_row

    def discard(self, digest: str) -> None:
        """Only what is not written yet is forgotten."""
        self._shards.pop(digest, None)

    def finish(self, row: ItemRow) -> None:
        """All went well where the video is whole, and all rows were written."""
        if row.status == "ok" and row.rows == self._stop_row:
            self.row = row

    def fail(self, row: ItemRow) -> None:
        """The video is not done in parts; when it is done whole, its row says why it failed."""
