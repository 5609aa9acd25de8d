"""Decode the videos of a node into the frame store; decoding processes write, nothing but counts comes back."""

from __future__ import annotations

import contextlib

from reelwright.stages.base.work import Reporter, Work, ledger_of
from reelwright.stages.decode.config import DecodeConfig
from reelwright.stages.decode.processes.attempts import Attempt, DecodeResult, attempt_all, num_workers
from reelwright.stages.decode.readers import backend_order
from reelwright.stages.decode.source import decode_plan
from reelwright.storage.arrays.frames import FrameStore
from reelwright.storage.ledger.items import DONE, ItemLedger, ItemRow
from reelwright.storage.store import Store


def run_items(work: Work, reporter: Reporter) -> None:
    """Decode all ``work.items``; each is committed in the item ledger after its frames are in place.

    A video that cannot be decoded becomes a row with status, cause and what was tried; the others go on. Raises
    ConfigError for a backend that is not installed, StoreError when the store holds another spec under this key, is
    full, read-only or gone.
    """
    store = Store.at(work.store)
    frames = FrameStore.create(store.frames(work.key), work.spec)
    ledger = ledger_of(work)
    counts = _Counts(reporter)
    config = DecodeConfig.model_validate(dict(work.config))
    order, workers = backend_order(config.backend), num_workers(config.workers, len(work.items))
    plan = decode_plan(
        "store_tasks:store_video",
        config,
        workers=workers,
        index=store.frame_index,
        backends=lambda _: order,
        also=lambda *_: {"store": str(frames.path)},
    )
    with contextlib.ExitStack() as interrupted:
        interrupted.callback(_compact, ledger)
        for event in attempt_all(work.items, plan):
            if isinstance(event, Attempt):
                counts.take(event)
            else:
                row = counts.row(event)
                ledger.commit(row)
                reporter.item(row)
        interrupted.pop_all()
    ledger.compact()


def _compact(ledger: ItemLedger) -> None:
    with contextlib.suppress(OSError):  # the disk may be full: marks say the same
        ledger.compact()


class _Counts:
    """Rows planned and written, so that progress never runs backwards when a second backend starts again."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._total = 0
        self._planned: dict[str, int] = {}
        self._reported: dict[str, int] = {}  # the most rows any attempt has written
        self._written: dict[str, tuple[int, int]] = {}  # (attempt, rows so far)
        self._stored: dict[str, tuple[int, int]] = {}  # (rows, bytes) in the store

    def take(self, event: Attempt) -> None:
        """Count one message of a decoding process."""
        digest, body = event.item.digest, event.body
        match body["event"]:
            case "opened":
                self._total += body["num_rows"] - self._planned.get(digest, 0)
                self._planned[digest] = body["num_rows"]
                self._reporter.total(self._total, "frames")
            case "rows":
                number, rows = self._written.get(digest, (event.number, 0))
                rows = body["rows"] + (rows if number == event.number else 0)
                self._written[digest] = (event.number, rows)
                self._advance(digest, rows)
            case "stored":
                self._stored[digest] = (body["rows"], body["bytes"])

    def row(self, outcome: DecodeResult) -> ItemRow:
        """The item row of a video that is finished."""
        rows, num_bytes = self._stored.get(outcome.item.digest, (0, 0)) if outcome.status in DONE else (0, 0)
        return outcome.row(rows=rows, num_bytes=num_bytes, seconds=outcome.seconds)

    def _advance(self, digest: str, rows: int) -> None:
        new = rows - self._reported.get(digest, 0)
        if new > 0:
            self._reported[digest] = rows
            self._reporter.advance(new)
