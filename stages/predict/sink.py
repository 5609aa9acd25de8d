"""Where rows to be predicted go: gathered until a batch of windows is full, scored, written, committed."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

from reelwright.stages.predict.scorer import Scorer, VideoRows
from reelwright.stages.work import Reporter
from reelwright.storage.items import ItemLedger, ItemRow
from reelwright.storage.scores import write_scores

WAITING_BYTES = 256 << 20  # rows that wait for a full batch, so that memory stays bounded


@dataclass
class _Waiting:
    video: VideoRows
    row: ItemRow


class ScoreWriter:
    """Scores videos in groups of at least ``batch_size`` windows, and writes each video's scores under its digest."""

    def __init__(
        self, scorer: Scorer, *, folder: Path, ledger: ItemLedger, reporter: Reporter, batch_size: int
    ) -> None:
        self._scorer = scorer
        self._folder = folder
        self._ledger = ledger
        self._reporter = reporter
        self._batch_size = batch_size
        self._waiting: list[_Waiting] = []
        self._num_windows = self._num_bytes = 0  # of all that waits

    def add(self, video: VideoRows, row: ItemRow) -> None:
        """Take one video; ``row`` says how its rows came about. It may be scored later, with others (`flush`)."""
        num_windows = self._scorer.num_windows(len(video.rows))
        if num_windows == 0:
            needed = self._scorer.shape.span_rows
            message = f"{len(video.rows)} rows are fewer than the {needed} of a window; set window.pad: true"
            self.fail(replace(row, status="skipped", cause="too_short", message=message))
            return
        self._waiting.append(_Waiting(video, row))
        self._num_windows += num_windows * len(video.looks)
        self._num_bytes += video.num_bytes
        if self._num_windows >= self._batch_size or self._num_bytes >= WAITING_BYTES:
            self.flush()

    def fail(self, row: ItemRow) -> None:
        """Commit why a video has no scores."""
        self._ledger.commit(row)
        self._reporter.item(row)

    def flush(self) -> None:
        """Score, write and commit what waits."""
        waiting, self._waiting = self._waiting, []
        self._num_windows = self._num_bytes = 0
        if not waiting:
            return
        started = time.perf_counter()
        scored = self._scorer.score([entry.video for entry in waiting])
        seconds = (time.perf_counter() - started) / len(waiting)
        for entry, scores in zip(waiting, scored, strict=True):
            written = write_scores(self._folder, entry.video.digest, scores)
            row = replace(
                entry.row, rows=len(scores.start_row), bytes=written, seconds=round(entry.row.seconds + seconds, 4)
            )
            self._ledger.commit(row)
            self._reporter.item(row)
