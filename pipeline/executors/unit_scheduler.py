"""A node's videos as units of work: what is under way, what died, what is tried again, and what is given up.

A unit is some parts, each some shards of a video (see `parts`). A worker that dies over one takes the innocent with
it, so its parts are then done one by one. A video of which a part has killed DEATHS workers, the last of them alone, is
given up: it becomes a row that says so. A unit that no worker had started is not to blame, and when workers die before
they start anything the node ends with what to look at.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from reelwright.pipeline.config.cluster import ClusterSettings
from reelwright.pipeline.executors.parts import Part, Parts
from reelwright.stages.base.registry import stage_of
from reelwright.stages.base.unit import LEFT, STARTED, Unit, UnitDone, forget
from reelwright.stages.base.work import Reporter, Work
from reelwright.storage.errors import StageError
from reelwright.storage.ledger.items import ItemLedger, ItemRow
from reelwright.storage.store import Store
from reelwright.storage.store_errors import best_effort

DEATHS = 3  # workers that a video may kill
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
    report_running: Callable[[int], None] = lambda _: None  # videos that are with workers
    under_way: dict[str, Unit] = field(default_factory=dict)
    idle_deaths: int = 0
    unfolded: list[ItemRow] = field(default_factory=list)
    notes: set[str] = field(default_factory=set)  # notes of workers: each says the same
    num_folded: int = 0
    num_units: int = 0

    def run(self) -> None:
        """Do all items. Raises what ends the stage as a whole; what is under way is dropped then."""
        store = Store.at(self.work.store)
        self._clear_marks(store)
        items = {item.digest: item for item in self.work.items}
        self.parts = Parts.of(items.values(), self.work, self.settings)
        self.ledger = ItemLedger(store.node(self.work.key))
        self.payload = {name: value for name, value in self.work.payload.items() if name != "videos"}
        self.needs_gpu = stage_of(self.work.stage).prepare is not None and self.work.config.get("device") != "cpu"
        self.reporter.total(len(items), "videos")
        try:
            while self.parts.num_waiting or self.under_way:
                self._submit()
                for ended in self.pool.ended(_LOOK_SECONDS):
                    self._end(ended)
        finally:
            if self.under_way:
                self.pool.cancel()
            with best_effort():  # the disk may be full: marks say the same
                self._fold()

    def _submit(self) -> None:
        """Fill the pool."""
        self.pool.want(len(self.under_way) + self.parts.num_expected)
        size = self.pool.size()
        while len(self.under_way) < size and (parts := self.parts.take(num_workers=size)):
            work = replace(self.work, items=tuple(part.item for part in parts), payload=self.payload)
            unit = Unit.of(work, name=uuid.uuid4().hex[:16], shards=parts[0].shards)
            self.under_way[unit.name] = unit
            self.num_units += 1
            self.pool.submit(unit.name, unit.plain(), needs_gpu=self.needs_gpu)
        self.report_running(len({item.digest for unit in self.under_way.values() for item in unit.work.items}))

    def _end(self, ended: Ended) -> None:
        unit = self.under_way.pop(ended.name)
        parts = tuple(Part(item, unit.shards) for item in unit.work.items)
        self.parts.ended(parts)
        mark = forget(unit)
        if ended.is_lost or (ended.done is None and mark == LEFT):
            self.parts.put_back(parts)  # nobody is to blame
            return
        done = UnitDone(died=True) if ended.done is None else UnitDone.from_plain(ended.done)
        for note in done.notes:
            if note not in self.notes:
                self.notes.add(note)
                self.reporter.note(note)
        done.raise_error()
        if done.died:
            self._mourn(parts, ended.why, was_started=mark is not None)
            return
        self.idle_deaths = 0
        if parts[0].shards is None:
            self.parts.done(parts, seconds=done.seconds)
            self._take(done.rows)
            return
        row, message = self.parts.wrote(parts[0], done)
        if message:
            self.reporter.note(message)
        self._take([] if row is None else [row])

    def _take(self, rows: Iterable[ItemRow]) -> None:
        for row in rows:
            self.unfolded.append(row)
            self.reporter.item(row)
            self.reporter.advance(1)
        if len(self.unfolded) >= max(_FOLD_ROWS, self.num_folded // 4):
            self._fold()

    def _mourn(self, parts: tuple[Part, ...], why: str, *, was_started: bool) -> None:
        """A worker died over a unit."""
        how = f" ({why})" if why else ""
        self.idle_deaths = 0 if was_started else self.idle_deaths + 1
        if not was_started:
            if self.idle_deaths >= IDLE_DEATHS:
                raise StageError(
                    f"{self.work.node}: {self.idle_deaths} workers in a row died before they started on a video"
                    f"{how}: too little memory for the model, or the environment is broken. See "
                    "the logs of the workers; `reelwright doctor` checks the rest"
                )
            self.parts.put_back(parts)
            return
        rest = self._not_done(parts)
        self.parts.deaths.update(part.name for part in rest if self.parts.is_wanted(part))
        if len(parts) == 1 and rest and self.parts.deaths[rest[0].name] >= DEATHS:
            self._give_up(rest[0], how)
            return
        if parts[0].shards is None:
            self.reporter.note(f"a worker died{how}; {len(rest)} videos it had are done again, one by one")
        else:
            self.reporter.note(f"a worker died{how}; its shards of {parts[0].item.video_id} are done again")
        self.parts.put_back(rest)

    def _not_done(self, parts: Iterable[Part]) -> list[Part]:
        """Those of videos without a row that is done; rows of the others are told as usual."""
        rest = []
        for part in parts:
            row = self.ledger.pending(part.item.digest) if self.parts.is_wanted(part) else None
            if row is not None and row.is_done:
                self._take([row])
                self.parts.drop(part.item)
            else:
                rest.append(part)
        return rest

    def _give_up(self, part: Part, how: str) -> None:
        count, item = self.parts.deaths[part.name], part.item
        row = ItemRow(
            digest=item.digest,
            status="crashed",
            cause="killed_worker",
            message=(
                f"{count} workers died over this video, the last one with nothing else to do"
                f"{how}. It may need more memory than a worker has (cluster.memory). "
                f"`reelwright logs {item.video_id}` shows what was said"
            ),
            attempts=count,
            name=item.video_id,
        )
        self.ledger.commit(row)
        self._take([row])
        self.parts.drop(item)

    def _fold(self) -> None:
        self.num_folded += len(self.unfolded)
        self.ledger.fold(self.unfolded)
        self.unfolded = []

    def _clear_marks(self, store: Store) -> None:
        """Of units whose driver is gone: this process alone shares out the node's work."""
        claims = store.claims(self.work.key)
        store.backend.delete(claims / name for name in store.backend.names(claims) if name.endswith((STARTED, LEFT)))
