"""Rows of frames on their way to be scored: which frames are looked at, in which crops, and what came of each video."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from reelwright.stages.datasets.sampling.needed import Needed
from reelwright.stages.datasets.stored_rows import mean_vectors
from reelwright.stages.decode.source import FrameTimes, Opened, Restarted
from reelwright.stages.embed.clips import FrameSpans
from reelwright.stages.embed.sink import MemorySink
from reelwright.stages.embed.videos import Events
from reelwright.stages.predict.crops import Crops, CropStreams
from reelwright.stages.predict.loaded_run import VideoRows
from reelwright.stages.predict.sink import ScoreWriter
from reelwright.storage.arrays.spans import Spans
from reelwright.storage.ledger.items import ItemRow

Whole = tuple[npt.NDArray[np.int64], Spans]  # which rows of a video came, and the spans of all


class RowStreams:
    """Streams of rows of each video: of which frames, in which crops. None: all frames, as the encoder wants them."""

    def __init__(self, needed: Needed | None, crops: Crops | None) -> None:
        self._needed = needed
        self._streams = None if crops is None else CropStreams(crops)
        self._times: dict[str, FrameTimes | None] = {}  # of all frames of a video, where only some come

    def through(self, events: Events) -> Events:
        """The events of all streams of rows."""
        noted = self._noted(events)
        return noted if self._streams is None else self._streams.through(noted)

    def video_of(self, digest: str) -> str:
        """The video that a stream of rows is of."""
        return digest if self._streams is None else self._streams.video_of(digest)

    def num_streams(self, video: str) -> int:
        """Streams of rows of a video: its different crops."""
        return 1 if self._streams is None else self._streams.num_crops(video)

    def take_whole(self, video: str) -> Whole | None:
        """Which rows of a video came; None: all. The video is then forgotten."""
        if self._streams is not None:
            self._streams.forget(video)
        times = self._times.pop(video, None)
        if times is None:
            return None
        assert self._needed is not None
        num_frames = len(times.source_frame)
        rows = self._needed.all_rows(num_frames)
        spans = FrameSpans(times.start_seconds, times.stop_seconds, times.source_frame)
        return self._needed.rows(num_frames), spans.of_rows(rows.start, rows.last_row(self._needed.row))

    def _noted(self, events: Events) -> Iterator[Any]:
        with closing(events):  # type: ignore[type-var]  # it is a generator, which has close
            for event in events:
                if isinstance(event, Opened | Restarted):
                    self._times[event.digest] = event.times
                yield event


class FrameScoreSink(MemorySink):
    """Rows of a video until all its streams are complete; then they are scored and forgotten."""

    def __init__(self, writer: ScoreWriter, *, output: str, streams: RowStreams, keeps_positions: bool) -> None:
        super().__init__()
        self._writer = writer
        self._output = output
        self._streams = streams
        self._keeps_positions = keeps_positions
        self._ended: dict[str, dict[str, ItemRow]] = {}  # by video, then by stream

    def finish(self, row: ItemRow) -> None:
        """All rows of one stream have come."""
        self._end(row)

    def fail(self, row: ItemRow) -> None:
        """One stream could not be decoded or encoded, and so the video."""
        self._end(row)

    def _end(self, row: ItemRow) -> None:
        video = self._streams.video_of(row.digest)
        ended = self._ended.setdefault(video, {})
        ended[row.digest] = row
        if len(ended) < self._streams.num_streams(video):
            return
        del self._ended[video]
        whole = self._streams.take_whole(video)
        failed = [entry for entry in ended.values() if not entry.is_done]
        seconds = round(sum(entry.seconds for entry in ended.values()), 3)
        summary = replace((failed or [ended[video]])[0], digest=video, seconds=seconds)
        if failed:
            for digest in ended:
                self.discard(digest)
            self._writer.fail(summary)
            return
        spread = {digest: self._rows(digest, whole) for digest in ended}
        rows, spans = spread.pop(video)
        self._writer.add(VideoRows(video, rows, spans, tuple(others for others, _ in spread.values())), summary)

    def _rows(self, digest: str, whole: Whole | None) -> tuple[npt.NDArray[Any], Spans]:
        """Rows (T, ...) of one stream; those that no clip needs, and that were never made, are NaN."""
        taken = self.take(digest)
        values = taken.outputs[self._output]
        rows = values if self._keeps_positions else mean_vectors(values)
        if whole is None:
            return rows, taken.spans
        places, spans = whole
        spread = np.full((len(spans.start_seconds), *rows.shape[1:]), np.nan, dtype=rows.dtype)
        spread[places] = rows
        return spread, spans
