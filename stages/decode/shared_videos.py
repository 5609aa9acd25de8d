"""A long video of decode that several processes write together, each some of its shards; lossless frames only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from reelwright.stages.base.work import Reporter, Shards, Work, ledger_of
from reelwright.stages.decode.config import DecodeConfig
from reelwright.stages.decode.processes.attempts import Attempt, attempt_all
from reelwright.stages.decode.readers import backend_order
from reelwright.stages.decode.source import decode_plan
from reelwright.storage.arrays.frame_writer import SharedFrames
from reelwright.storage.arrays.frames import FrameStore
from reelwright.storage.ledger.items import ItemRow
from reelwright.storage.store import Store


class SharedDecode:
    """See `SharedVideo`; the video is the only item of ``work``."""

    def __init__(self, work: Work, reporter: Reporter) -> None:
        (self._item,) = work.items
        self._config = DecodeConfig.model_validate(dict(work.config))
        store = Store.at(work.store)
        self._frames, self._index = FrameStore.create(store.frames(work.key), work.spec), store.frame_index
        self._ledger, self._reporter = ledger_of(work), reporter
        self._shared: SharedFrames | None = None
        self._tag = ""  # the backend that began it, and decodes all of it
        self._row: ItemRow | None = None  # of what was done of it here

    def begin(self) -> Shards | None:
        """See `SharedVideo`."""
        if self._config.codec != "lossless":
            return None
        return self.look() if self._decode(0, 0, order=backend_order(self._config.backend)) else None

    def look(self) -> Shards | None:
        """See `SharedVideo`."""
        found = SharedFrames.find(self._frames.path, self._item.digest)
        if found is None:
            return None
        self._shared, self._tag = found
        return Shards(count=self._shared.num_shards, missing=tuple(self._shared.missing_shards()))

    def write(self, start: int, stop: int) -> bool:
        """See `SharedVideo`."""
        return self._decode(start, stop, order=[self._tag])

    def publish(self) -> None:
        """See `SharedVideo`."""
        assert self._row is not None
        assert self._shared is not None
        num_rows = self._shared.num_rows
        row = replace(self._row, rows=num_rows, bytes=self._shared.commit())
        self._ledger.commit(row)
        self._reporter.item(row)

    def _decode(self, start: int, stop: int, *, order: Sequence[str]) -> bool:
        """Shards [start, stop), or begin the video, in a process that can be killed; whether all went well at once."""
        plan = decode_plan(
            "store_tasks:share_video",
            self._config,
            workers=1,
            index=self._index,
            backends=lambda _: order,
            also=lambda *_: {"store": str(self._frames.path), "start": start, "stop": stop},
        )
        num_opened = 0
        for event in attempt_all([self._item], plan):
            if isinstance(event, Attempt):
                num_opened += 1
                continue
            if event.status != "ok" or num_opened != 1:
                return False
            self._row = event.row()
        return self._row is not None
