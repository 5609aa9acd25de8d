"""Where rows to be predicted go: gathered until a batch of windows is full, scored, written, committed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from reelwright.stages.base.work import Reporter
from reelwright.stages.datasets.sampling.left_out import LeftOut
from reelwright.stages.predict.loaded_run import VideoRows
from reelwright.stages.predict.scorer import Scorer
from reelwright.storage.ledger.items import ItemLedger, ItemRow
from reelwright.storage.results.scores import write_scores

WAITING_BYTES = 256 << 20  # rows that wait for a full batch, so that memory stays bounded


class ScoreWriter:
    """Scores videos in groups of at least ``batch_size`` windows, and writes each video's scores under its digest."""

    def __init__(
        self,
        scorer: Scorer,
        *,
        folder: Path,
        ledger: ItemLedger,
        reporter: Reporter,
        batch_size: int,
        names: Mapping[str, str],
    ) -> None:
        """``names`` of the videos, by digest, are for messages."""
        self._scorer = scorer
        self._names = names
        self._folder = folder
        self._ledger = ledger
        self._reporter = reporter
        self._batch_size = batch_size
        self._waiting: list[tuple[VideoRows, ItemRow]] = []
        self._num_windows = self._num_bytes = 0  # of all that waits
        is_strict = scorer.run.task.traits.per_row
        fate = "have no score" if is_strict else "are in no window"
        self.left_out = LeftOut(shape=scorer.shape, block="window", rows="rows", fate=fate, is_strict=is_strict)

    def add(self, video: VideoRows, row: ItemRow) -> None:
        """Take one video; ``row`` says how its rows came about. It may be scored later, with others (`flush`)."""
        num_windows = self._scorer.num_windows(len(video.rows))
        if num_windows == 0:
            message = self.left_out.add_short(self._names[video.digest], num_rows=len(video.rows))
            self.fail(replace(row, status="skipped", cause="too_short", message=message))
            return
        self._waiting.append((video, row))
        self._num_windows += num_windows * len(video.all_crops)
        self._num_bytes += video.num_bytes
        if self._num_windows >= self._batch_size or self._num_bytes >= WAITING_BYTES:
            self.flush()

    def fail(self, row: ItemRow) -> None:
        """Commit why a video has no scores."""
        self._commit(row)

    def flush(self) -> None:
        """Score, write and commit what waits."""
        waiting, self._waiting = self._waiting, []
        self._num_windows = self._num_bytes = 0
        if not waiting:
            return
        started = time.perf_counter()
        scored = self._scorer.score([video for video, _ in waiting])
        seconds = (time.perf_counter() - started) / len(waiting)
        for (video, row), scores in zip(waiting, scored, strict=True):
            digest, kept = video.digest, self._scorer.kept
            written = 0 if kept is None else kept.take_bytes(digest)
            written += write_scores(self._folder, digest, scores, kept=() if kept is None else kept.names)
            num_left = self._scorer.num_left_out(scores)
            message = self.left_out.add(self._names[digest], num_left=num_left, num_rows=len(video.rows))
            self._commit(
                replace(
                    row,
                    rows=len(scores.start_row),
                    bytes=written,
                    seconds=round(row.seconds + seconds, 4),
                    message="; ".join(filter(None, (row.message, message))),
                )
            )

    def _commit(self, row: ItemRow) -> None:
        self._ledger.commit(row)
        self._reporter.item(row)
