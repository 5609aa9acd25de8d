"""How far a node is, for `status` in another process: a small file in the store, written now and then, gone at the end.

Left behind by a killed run it is told from a living one by the node's lock, which nobody holds any more.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reelwright.stages.base.work import Reporter, VideoItem
from reelwright.storage.files import write_json
from reelwright.storage.heartbeat import check_held
from reelwright.storage.ledger.items import ItemRow
from reelwright.storage.store import Store
from reelwright.storage.store_errors import best_effort

_SECONDS_BETWEEN = 2.0


@dataclass(kw_only=True)
class Progress:
    """How far a node is. Videos are those of this run; of a node without items, both are 0."""

    node: str
    videos: int  # to do
    done: int = 0
    failed: int = 0
    running: int | None = None  # with workers now; None: not known
    video_seconds: float = 0.0  # of the videos to do, together; 0: not known
    done_seconds: float = 0.0  # of those of them that are done
    failed_seconds: float = 0.0
    done_rows: int = 0  # of those that are done
    amount: int = 0  # of ``unit`` done
    total: int = 0
    resumed: int = 0  # of ``amount``: done by an earlier run, in time that is not counted here
    unit: str = ""
    seconds: float = 0.0  # since work began

    def start(self, amount: int, unit: str, done: int) -> None:
        """See Reporter.total."""
        self.total, self.unit = amount, unit
        if done > self.amount:
            self.resumed += done - self.amount
            self.amount = done

    def end(self, row: ItemRow, seconds: float) -> None:
        """A video of ``seconds`` is done, or failed."""
        if row.is_done:
            self.done, self.done_seconds = self.done + 1, self.done_seconds + seconds
            self.done_rows += row.rows
        else:
            self.failed, self.failed_seconds = self.failed + 1, self.failed_seconds + seconds

    @property
    def waiting(self) -> int:
        """Videos that no worker has yet."""
        return max(0, self.videos - self.done - self.failed - (self.running or 0))

    @property
    def share(self) -> float:
        """Of the work of this run that is done, from 0 to 1; 0 while none of several videos is finished.

        Frames count, those of videos at work too. How many there will be in all a stage may not know before it has
        opened every video: there are at least as many a second of video as the finished ones have.
        """
        if not self.videos:
            whole = self.total - self.resumed
            return (self.amount - self.resumed) / whole if whole > 0 else 0.0
        if self.unit == "frames" and self.total and (self.done_seconds or self.videos == 1):
            rate = self.done_rows / self.done_seconds if self.done_seconds else 0.0
            return min(1.0, self.amount / max(self.total, rate * (self.video_seconds - self.failed_seconds)))
        if self.video_seconds:
            return min(1.0, (self.done_seconds + self.failed_seconds) / self.video_seconds)
        return (self.done + self.failed) / self.videos

    @property
    def seconds_left(self) -> float | None:
        """By the speed so far; None when nothing is done yet."""
        return self.seconds * (1 - self.share) / self.share if 0 < self.share <= 1 else None

    @property
    def rate(self) -> tuple[float, str]:
        """A second, and of what."""
        seconds = max(self.seconds, 1e-9)
        if self.videos:
            return (self.done + self.failed) / seconds, "videos"
        return (self.amount - self.resumed) / seconds, self.unit


def progress_of(node: str, items: Sequence[VideoItem]) -> Progress:
    """Nothing done yet of ``items`` (none: of a node without items)."""
    durations = [item.duration_seconds or 0.0 for item in items]
    return Progress(node=node, videos=len(items), video_seconds=sum(durations) if all(durations) else 0.0)


class LiveReporter:
    """Passes on what a stage says, and notes how far it is."""

    def __init__(self, reporter: Reporter, path: Path, *, node: str, items: Sequence[VideoItem] = ()) -> None:
        self._reporter, self._path = reporter, path
        self.progress = progress_of(node, items)
        self._seconds = {item.digest: item.duration_seconds or 0.0 for item in items}
        self._started = time.monotonic()
        self._written = -_SECONDS_BETWEEN

    def item(self, row: ItemRow) -> None:
        """See Reporter."""
        self.progress.end(row, self._seconds.get(row.digest, 0.0))
        self._reporter.item(row)
        self._write()

    def advance(self, amount: int) -> None:
        """See Reporter."""
        self.progress.amount += amount
        self._reporter.advance(amount)
        self._write()

    def total(self, amount: int, unit: str, done: int = 0) -> None:
        """See Reporter."""
        if not self.progress.total:
            self._started = time.monotonic()  # what came before was loading
        self.progress.start(amount, unit, done)
        self._reporter.total(amount, unit, done)
        self._write()

    def note(self, text: str) -> None:
        """See Reporter."""
        self._reporter.note(text)

    def running(self, num_videos: int) -> None:
        """So many videos are with workers now."""
        self.progress.running = num_videos
        self._write()

    def _write(self) -> None:
        check_held(self._path)  # whatever the stage: what is reported is where its work can end
        now = time.monotonic()
        if now - self._written < _SECONDS_BETWEEN:
            return
        self._written = now
        self.progress.seconds = round(now - self._started, 3)
        with best_effort():
            write_json(self._path, asdict(self.progress))


@contextlib.contextmanager
def reporting(
    reporter: Reporter, store: Store, *, key: str, node: str, items: Sequence[VideoItem] = ()
) -> Iterator[LiveReporter]:
    """A reporter that also notes how far the node is, while the block runs."""
    path = store.progress(key)
    try:
        yield LiveReporter(reporter, path, node=node, items=items)
    finally:
        with best_effort():
            path.unlink(missing_ok=True)


def read_progress(store: Store, key: str) -> Progress | None:
    """How far the node is by its last note; None without one."""
    try:
        values: Mapping[str, Any] = json.loads(store.progress(key).read_text(encoding="utf-8"))
        return Progress(**values)
    except (FileNotFoundError, ValueError, TypeError):
        return None
