"""How far a node is, for `status` in another process: a small file in the store, written now and then, gone at the end.

Left behind by a killed run it is told from a living one by the node's lock, which nobody holds any more.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reelwright.stages.work import Reporter
from reelwright.storage.files import write_json
from reelwright.storage.heartbeat import check_held
from reelwright.storage.items import ItemRow
from reelwright.storage.store import Store
from reelwright.storage.unusable import told_by_work

_SECONDS_BETWEEN = 2.0


@dataclass(kw_only=True)
class Progress:
    """How far a node is. Videos are those of this run; of a node without items, both are 0."""

    node: str
    videos: int  # to do
    done: int = 0
    failed: int = 0
    running: int | None = None  # with workers now; None: not known
    amount: int = 0  # of ``unit`` done
    total: int = 0
    unit: str = ""
    seconds: float = 0.0  # since it began

    @property
    def waiting(self) -> int:
        """Videos that no worker has yet."""
        return max(0, self.videos - self.done - self.failed - (self.running or 0))

    @property
    def share(self) -> float:
        """Of the work that is done, from 0 to 1."""
        if self.videos:
            return (self.done + self.failed) / self.videos
        return self.amount / self.total if self.total else 0.0

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
        return self.amount / seconds, self.unit


class LiveReporter:
    """Passes on what a stage says, and notes how far it is."""

    def __init__(self, reporter: Reporter, path: Path, *, node: str, videos: int) -> None:
        self._reporter, self._path = reporter, path
        self.progress = Progress(node=node, videos=videos)
        self._started = time.monotonic()
        self._written = -_SECONDS_BETWEEN

    def item(self, row: ItemRow) -> None:
        """See Reporter."""
        if row.is_done:
            self.progress.done += 1
        else:
            self.progress.failed += 1
        self._reporter.item(row)
        self._write()

    def advance(self, amount: int) -> None:
        """See Reporter."""
        self.progress.amount += amount
        self._reporter.advance(amount)
        self._write()

    def total(self, amount: int, unit: str) -> None:
        """See Reporter."""
        self.progress.total, self.progress.unit = amount, unit
        self._reporter.total(amount, unit)
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
        with told_by_work():
            write_json(self._path, asdict(self.progress))


@contextlib.contextmanager
def telling(reporter: Reporter, store: Store, *, key: str, node: str, videos: int) -> Iterator[LiveReporter]:
    """A reporter that also notes how far the node is, while the block runs."""
    path = store.progress(key)
    try:
        yield LiveReporter(reporter, path, node=node, videos=videos)
    finally:
        with told_by_work():
            path.unlink(missing_ok=True)


def read_progress(store: Store, key: str) -> Progress | None:
    """How far the node is by its last note; None without one."""
    try:
        values: Mapping[str, Any] = json.loads(store.progress(key).read_text(encoding="utf-8"))
        return Progress(**values)
    except (FileNotFoundError, ValueError, TypeError):
        return None
