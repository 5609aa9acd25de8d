"""A unit of work on a worker of a cluster: some videos of one node, as plain data in, and what became of each out.

A long video is a unit's only one, and the unit some of its shards; see `SharedVideo`.

    unit --> mark `started` --> models, once a process --> claims on its videos --> the stage --> rows

Arrays go from the stage straight into the store. A unit that is started a second time, because its worker died or left,
says so instead of doing it again, unless the worker left in peace: who shares the work out decides what is tried next.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import os
import socket
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from reelwright.stages.base.inputs import bring_inputs
from reelwright.stages.base.item_locks import do_shards, do_videos
from reelwright.stages.base.registry import load, stage_of
from reelwright.stages.base.work import Shards, SilentReporter, Work
from reelwright.storage import errors
from reelwright.storage.errors import ReelwrightError
from reelwright.storage.heartbeat import check_held
from reelwright.storage.ledger.items import ItemRow
from reelwright.storage.store import Store

STARTED, LEFT = ".started", ".left"
_MODELS_KEPT = 2
_HEAD = "# unit"


@dataclass(frozen=True, kw_only=True)
class Unit:
    """Some videos of one node."""

    name: str  # unlike that of any other unit
    work: Work
    function: str  # `module:name` of the stage's work
    prepare: str | None  # `module:name` of what a worker loads once
    shards: tuple[int, int] | None = None  # of its only video, half-open; (0, 0) begins the video; None: all of it

    @classmethod
    def of(cls, work: Work, *, name: str, shards: tuple[int, int] | None = None) -> Unit:
        """The unit of a part of a node's work."""
        stage = stage_of(work.stage)
        function = stage.work if shards is None else str(stage.share)
        part = replace(work, is_part=True)
        return cls(name=name, work=part, function=function, prepare=stage.prepare, shards=shards)

    def plain(self) -> dict[str, Any]:
        """Dicts, lists, texts and numbers."""
        plain: dict[str, Any] = _adapters()[0].dump_python(self, mode="json")
        return plain

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> Unit:
        """What `plain` gave."""
        return _adapters()[0].validate_python(values)

    def mark(self, ending: str) -> Path:
        """The file that says that the unit was started, or that its worker left it in peace."""
        return Store.at(self.work.store).claims(self.work.key) / f"{self.name}{ending}"


@dataclass(frozen=True, kw_only=True)
class UnitDone:
    """What became of a unit; plain data."""

    rows: tuple[ItemRow, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0  # on the items, without loading
    host: str = field(default_factory=socket.gethostname)
    process: int = field(default_factory=os.getpid)
    died: bool = False  # a worker died over it before; nothing was done now
    error: tuple[str, str] | None = None  # kind and message of what ended the stage as a whole
    shards: Shards | None = None  # of a video in work; None without a row: it cannot be shared

    def plain(self) -> dict[str, Any]:
        """Dicts, lists, texts and numbers."""
        plain: dict[str, Any] = _adapters()[1].dump_python(self, mode="json")
        return plain

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> UnitDone:
        """What `plain` gave."""
        return _adapters()[1].validate_python(values)

    def raise_error(self) -> None:
        """Raise what ended the stage as a whole."""
        if self.error is not None:
            kind = getattr(errors, self.error[0], errors.StageError)
            raise kind(self.error[1])


@functools.cache
def _adapters() -> tuple[TypeAdapter[Unit], TypeAdapter[UnitDone]]:
    return TypeAdapter(Unit), TypeAdapter(UnitDone)


class _Collector(SilentReporter):
    """Keeps rows and notes; where claims on the unit's videos were lost, its work ends with what is reported next."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self.notes: list[str] = []
        self._store = store

    def item(self, row: ItemRow) -> None:
        """Keep the row."""
        check_held(self._store.root)
        super().item(row)

    def advance(self, amount: int) -> None:
        """Ignore progress."""
        check_held(self._store.root)
        super().advance(amount)

    def note(self, text: str) -> None:
        """Keep the note."""
        self.notes.append(text)


_running: dict[str, Unit] = {}  # in this process


def do_unit(values: Mapping[str, Any]) -> dict[str, Any]:
    """Do a unit, as plain data; returns a `UnitDone` as plain data. Runs in a process of a worker."""
    unit = Unit.from_plain(values)
    collector = _Collector(Store.at(unit.work.store))
    keep_models(_MODELS_KEPT)
    try:
        bring_inputs(unit.work)
        if unit.prepare is not None:
            load(unit.prepare)(unit.work, collector)
        if _was_started(unit):
            return UnitDone(died=True).plain()
        _running[unit.name] = unit
        started = time.monotonic()
        with _logged(unit, collector):
            shards = None
            if unit.shards is None:
                do_videos(unit.work, unit.function, what=unit.name, reporter=collector)
            else:
                shards = do_shards(unit.work, unit.function, unit.shards, what=unit.name, reporter=collector)
    except ReelwrightError as error:
        return UnitDone(notes=tuple(collector.notes), error=(type(error).__name__, str(error))).plain()
    finally:
        _running.pop(unit.name, None)
    seconds = time.monotonic() - started
    rows, notes = tuple(collector.rows), tuple(collector.notes)
    return UnitDone(rows=rows, notes=notes, seconds=seconds, shards=shards).plain()


def leave() -> bool:
    """Say that this process leaves what it does in peace, so that nothing is blamed; whether there was anything."""
    units = list(_running.values())
    for unit in units:
        with contextlib.suppress(OSError, ReelwrightError):
            Store.at(unit.work.store).backend.move(unit.mark(STARTED), unit.mark(LEFT))
    return bool(units)


def forget(unit: Unit) -> str | None:
    """Take the marks of a unit away. Returns LEFT where its worker left in peace, STARTED, or None: never started."""
    backend = Store.at(unit.work.store).backend
    found = next((ending for ending in (LEFT, STARTED) if backend.has(unit.mark(ending))), None)
    backend.delete([unit.mark(STARTED), unit.mark(LEFT)])
    return found


def _was_started(unit: Unit) -> bool:
    """Mark the unit as started; whether it was before, by a process that did not leave in peace."""
    backend = Store.at(unit.work.store).backend
    backend.delete([unit.mark(LEFT)])
    return not backend.create(unit.mark(STARTED))


@contextlib.contextmanager
def _logged(unit: Unit, collector: _Collector) -> Iterator[None]:
    """What is written on stderr goes to a file beside the store's other logs; it stays where not all went well."""
    folder = Store.at(unit.work.store).logs(unit.work.key)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{unit.name}.log"
    sys.stderr.flush()
    before = os.dup(2)
    file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
    try:
        os.write(file, _head(unit).encode())
        os.dup2(file, 2)
        yield
        sys.stderr.flush()
    finally:
        os.dup2(before, 2)
        os.close(before)
        bad = [row for row in collector.rows if not row.is_done]
        for row in bad:
            os.write(file, f"{row.digest} {row.status} ({row.cause}): {row.message}\n".encode())
        os.close(file)
    if bad:
        Store.at(unit.work.store).backend.push(path)
    else:
        path.unlink(missing_ok=True)


def _head(unit: Unit) -> str:
    """When, where, and of which videos, a line each, so that the log of a video is found by its digest."""
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    job = f", SLURM job {os.environ['SLURM_JOB_ID']}" if "SLURM_JOB_ID" in os.environ else ""
    where = f"process {os.getpid()} on {socket.gethostname()}{job}"
    node = os.environ.get("SLURMD_NODENAME")
    lines = [f"{_HEAD} {unit.name} of {unit.work.node}, {now}, {where}{f', node {node}' if node else ''}"]
    lines += [f"# video {item.digest} {item.video_id} {item.path}" for item in unit.work.items]
    return "\n".join(lines) + "\n"


T = TypeVar("T")

_models: OrderedDict[str, Any] = OrderedDict()
_limits = {"models": 0}  # how many are kept; 0: none


def keep_models(limit: int) -> None:
    """From now on keep the ``limit`` models that were used last; 0 lets go of all."""
    _limits["models"] = limit
    while len(_models) > limit:
        _models.popitem(last=False)


def cached_model(name: str, make: Callable[[], T]) -> T:
    """The model kept under ``name``, else the one that ``make`` makes."""
    if name in _models:
        _models.move_to_end(name)
        found: T = _models[name]
        return found
    made = make()
    if _limits["models"]:
        _models[name] = made
        keep_models(_limits["models"])
    return made
