"""A node's videos as units of work: what is under way, what died, what is tried again, and what is given up.

A worker that dies over a unit takes the innocent with it, so its videos are then done one by one. A video that has
killed DEATHS workers, the last of them alone, is given up: it becomes a row that says so. A unit that no worker had
started is not to blame, and when workers die before they start anything the node ends with what to look at.
Long videos are shared by several workers (see `sharing`).
"""

from __future__ import annotations

import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from reelwright.pipeline.config.cluster import ClusterSettings
from reelwright.pipeline.executors.grouping import Grouping
from reelwright.pipeline.executors.long_videos import DEATHS, Sharing
from reelwright.stages.base.registry import stage_of
from reelwright.stages.base.unit import LEFT, STARTED, Unit, UnitDone, forget
from reelwright.stages.base.work import Reporter, VideoItem, Work
from reelwright.storage.errors import StageError
from reelwright.storage.ledger.items import ItemLedger, ItemRow
from reelwright.storage.store import Store
from reelwright.storage.store_errors import told_by_work

IDLE_DEATHS = 4  # workers in a row that may die before they start anything
_FOLD_ROWS = 2_000  # marks of items are folded into the table when so many more, and a quarter of it, have come
_LOOK_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A unit that is not under way any more."""

    name: str
    done: dict[str, Any] | None = None  # a `UnitDone` as plain data; None: its worker died
    why: str = ""  # how the worker died
    is_lost: bool = False  # with the scheduler, not with a worker: nobody is to blame


class Pool(Protocol):
    """Processes that do units of work."""

    def size(self) -> int:
        """Units that may be under way now: one for each worker that is there, 0 while none is; `want` starts some."""

    def want(self, num_units: int) -> None:
        """So many units wait or are under way: see that workers come, up to the most allowed; 0: they may go."""

    def submit(self, name: str, unit: dict[str, Any], *, needs_gpu: bool) -> None:
        """Start a unit, as plain data."""

    def ended(self, timeout_seconds: float) -> list[Ended]:
        """Units that have ended since; waits for the first, at most so long. Raises StageError without scheduler."""

    def cancel(self) -> None:
        """Drop all units under way."""


@dataclass
class Spreader:
    """One node's videos on their way through a pool."""

    work: Work
    pool: Pool
    reporter: Reporter
    settings: ClusterSettings  # how much a unit takes, and which videos are shared
    tell_running: Callable[[int], None] = lambda _: None  # videos that are with workers
    under_way: dict[str, Unit] = field(default_factory=dict)
    alone: deque[VideoItem] = field(default_factory=deque)  # to be done one by one
    deaths: Counter[str] = field(default_factory=Counter)  # digest -> workers that died over it
    idle_deaths: int = 0
    unfolded: list[ItemRow] = field(default_factory=list)
    message: set[str] = field(default_factory=set)  # notes of workers: each says the same
    num_folded: int = 0
    num_units: int = 0

    def run(self) -> None:
        """Do all items. Raises what ends the stage as a whole; what is under way is dropped then."""
        store = Store.at(self.work.store)
        self._clear_marks(store)
        items = {item.digest: item for item in self.work.items}
        self.sharing = Sharing.of(items.values(), self.work, self.settings)
        single = (item for digest, item in items.items() if digest not in self.sharing.videos)
        self.grouping = Grouping.of(single, unit_seconds=self.settings.unit_seconds)
        self.ledger = ItemLedger(store.node(self.work.key))
        self.payload = {name: value for name, value in self.work.payload.items() if name != "videos"}
        self.needs_gpu = stage_of(self.work.stage).prepare is not None and self.work.config.get("device") != "cpu"
        self.reporter.total(len(items), "videos")
        try:
            while self.num_waiting or self.under_way:
                self._submit()
                for ended in self.pool.ended(_LOOK_SECONDS):
                    self._end(ended)
        finally:
            if self.under_way:
                self.pool.cancel()
            with told_by_work():  # the disk may be full: marks say the same
                self._fold()

    @property
    def num_waiting(self) -> int:
        """Videos, and ranges of long ones, that wait."""
        return len(self.alone) + self.sharing.num_waiting + len(self.grouping.waiting)

    def _submit(self) -> None:
        """Fill the pool."""
        waiting = len(self.alone) + self.sharing.num_expected + len(self.grouping.waiting)
        self.pool.want(len(self.under_way) + waiting)
        size = self.pool.size()
        while len(self.under_way) < size and (unit := self._next(num_workers=size)) is not None:
            self.under_way[unit.name] = unit
            self.num_units += 1
            self.pool.submit(unit.name, unit.plain(), needs_gpu=self.needs_gpu)
        self.tell_running(len({item.digest for unit in self.under_way.values() for item in unit.work.items}))

    def _next(self, *, num_workers: int) -> Unit | None:
        """What was with a worker that died, ranges of long videos, then all others."""
        name, shards = uuid.uuid4().hex[:16], None
        if self.alone:
            items: tuple[VideoItem, ...] = (self.alone.popleft(),)
        elif (found := self.sharing.take(name)) is not None:
            items, shards = (found[0],), found[1]
        else:
            items = self.grouping.take(num_workers=num_workers)
        work = replace(self.work, items=items, payload=self.payload)
        return Unit.of(work, name=name, shards=shards) if items else None

    def _end(self, ended: Ended) -> None:
        unit = self.under_way.pop(ended.name)
        mark = forget(unit)
        if ended.is_lost or (ended.done is None and mark == LEFT):
            self._wait_again(unit)
            return
        done = UnitDone(died=True) if ended.done is None else UnitDone.from_plain(ended.done)
        for note in done.notes:
            if note not in self.message:
                self.message.add(note)
                self.reporter.note(note)
        done.raise_error()
        if done.died:
            self._mourn(unit, ended.why, was_started=mark is not None)
            return
        self.idle_deaths = 0
        if unit.shards is not None:
            self._take_part(unit, done)
            return
        self.grouping.seen(unit.work.items, seconds=done.seconds)
        self._take(done.rows)

    def _take_part(self, unit: Unit, done: UnitDone) -> None:
        """Some shards of a long video are written."""
        row, message = self.sharing.ended(unit.name, unit.work.items[0].digest, done)
        if message:
            self.reporter.note(message)
        self._take([row] if row is not None else [])
        self.alone.extend(self.sharing.whole())

    def _take(self, rows: Iterable[ItemRow]) -> None:
        for row in rows:
            self.unfolded.append(row)
            self.reporter.item(row)
            self.reporter.advance(1)
        if len(self.unfolded) >= max(_FOLD_ROWS, self.num_folded // 4):
            self._fold()

    def _mourn(self, unit: Unit, why: str, *, was_started: bool) -> None:
        """A worker died over a unit."""
        items = unit.work.items
        if not was_started:
            self.idle_deaths += 1
            if self.idle_deaths >= IDLE_DEATHS:
                raise StageError(
                    f"{self.work.node}: {self.idle_deaths} workers in a row died before they started on a video"
                    f"{f' ({why})' if why else ''}: too little memory for the model, or the environment is broken. See "
                    "the logs of the workers; `reelwright doctor` checks the rest"
                )
            if len(items) == 1 and unit.shards is None:
                self.alone.extend(items)
            else:
                self._wait_again(unit)
            return
        self.idle_deaths = 0
        if unit.shards is not None:
            self._mourn_part(unit, why)
            return
        rest = self._not_done(items)
        for item in rest:
            self.deaths[item.digest] += 1
        if len(items) == 1 and rest and self.deaths[rest[0].digest] >= DEATHS:
            self._give_up(rest[0], why)
            return
        self.reporter.note(
            f"a worker died{f' ({why})' if why else ''}; {len(rest)} videos it had are done again, one by one"
        )
        self.alone.extend(rest)

    def _mourn_part(self, unit: Unit, why: str) -> None:
        """A worker died over shards of a long video, which may have been published by then."""
        (item,) = unit.work.items
        self.deaths[item.digest] = self.sharing.died(unit.name, item.digest)
        if self.deaths[item.digest] and not self._not_done([item]):
            self.sharing.drop(item.digest)
        elif self.deaths[item.digest] >= DEATHS:
            self.sharing.drop(item.digest)
            self._give_up(item, why)
        else:
            self.reporter.note(
                f"a worker died{f' ({why})' if why else ''}; its shards of {item.video_id} are done again"
            )
        self.alone.extend(self.sharing.whole())

    def _wait_again(self, unit: Unit) -> None:
        """Nobody is to blame."""
        if unit.shards is not None:
            self.sharing.again(unit.name, unit.work.items[0].digest)
            self.alone.extend(self.sharing.whole())
            return
        self.grouping = Grouping.of([*self.grouping.waiting, *unit.work.items], unit_seconds=self.settings.unit_seconds)

    def _not_done(self, items: Iterable[VideoItem]) -> list[VideoItem]:
        """Those without a row that is done; rows of the others are told as usual."""
        rows = {item.digest: row for item in items if (row := self.ledger.pending(item.digest)) is not None}
        done = [row for row in rows.values() if row.is_done]
        self._take(done)
        digests = {row.digest for row in done}
        return [item for item in items if item.digest not in digests]

    def _give_up(self, item: VideoItem, why: str) -> None:
        count = self.deaths[item.digest]
        row = ItemRow(
            digest=item.digest,
            status="crashed",
            cause="killed_worker",
            message=(
                f"{count} workers died over this video, the last one with nothing else to do"
                f"{f' ({why})' if why else ''}. It may need more memory than a worker has (cluster.memory). "
                f"`reelwright logs {item.video_id}` shows what was said"
            ),
            attempts=count,
            name=item.video_id,
        )
        self.ledger.commit(row)
        self._take([row])

    def _fold(self) -> None:
        self.num_folded += len(self.unfolded)
        self.ledger.fold(self.unfolded)
        self.unfolded = []

    def _clear_marks(self, store: Store) -> None:
        """Of units whose driver is gone: this process alone shares out the node's work."""
        claims = store.claims(self.work.key)
        store.backend.delete(claims / name for name in store.backend.names(claims) if name.endswith((STARTED, LEFT)))
