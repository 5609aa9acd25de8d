"""Making synthetic videos on the workers of a cluster: calls as units of plain data, and their results as they come.

A sample follows from its own seed, whoever makes it, and a file is put in place whole: so what was with a worker that
died is simply made again, one by one; a sample that was alone with DEATHS workers that died ends the making.
"""

from __future__ import annotations

import itertools
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from reelwright.pipeline.executors.unit_scheduler import DEATHS, Ended, Pool
from reelwright.stages.synthesize.calls import ENTRY, kind_of, plain_arguments, results_of
from reelwright.storage import errors
from reelwright.storage.errors import StageError

_AHEAD = 4096  # calls that wait here
_MOST_CALLS = 256  # of a unit
_LOOK_SECONDS = 0.5


@dataclass
class _Call:
    arguments: list[Any]  # plain
    deaths: int = 0  # of workers that had it


@dataclass
class CallSpreader:
    """See `stages.synthesize.spread.Spread`."""

    pool: Pool
    cpus: int  # of a worker: processes that make samples there
    unit_seconds: float
    _waiting: deque[_Call] = field(default_factory=deque)
    _under_way: dict[str, list[_Call]] = field(default_factory=dict)
    _seconds: float = 0.0  # of workers
    _num_done: int = 0

    def __call__(
        self, function: Callable[..., Any], calls: Iterable[tuple[Any, ...]], *, workers: int
    ) -> Iterator[Any]:
        """As `spread`; ``workers`` is of this machine."""
        del workers
        kind, rest = kind_of(function), iter(calls)
        try:
            while True:
                room = _AHEAD - len(self._waiting)
                self._waiting.extend(_Call(plain_arguments(kind, call)) for call in itertools.islice(rest, room))
                if not self._waiting and not self._under_way:
                    return
                self._submit(kind)
                for ended in self.pool.ended(_LOOK_SECONDS):
                    yield from self._end(ended)
        finally:
            if self._under_way:
                self.pool.cancel()
            self.pool.want(0)

    def _submit(self, kind: str) -> None:
        """Fill the pool; units take unit_seconds by what was seen, and less towards the end."""
        self.pool.want(len(self._under_way) + len(self._waiting))
        size = self.pool.size()
        while self._waiting and len(self._under_way) < size:
            count = 1 if self._waiting[0].deaths else self._num_calls(size)
            unit = [self._waiting.popleft() for _ in range(min(count, len(self._waiting)))]
            name = uuid.uuid4().hex[:16]
            self._under_way[name] = unit
            values = {"kind": kind, "calls": [call.arguments for call in unit], "workers": self.cpus}
            self.pool.submit(name, values, needs_gpu=False, entry=ENTRY)

    def _num_calls(self, num_workers: int) -> int:
        if not self._num_done or not self._seconds:
            return self.cpus
        wanted = int(self.unit_seconds * self._num_done / self._seconds)
        fair = len(self._waiting) // (2 * num_workers)
        return max(self.cpus, min(wanted, fair, _MOST_CALLS))

    def _end(self, ended: Ended) -> list[Any]:
        unit = self._under_way.pop(ended.name)
        if ended.done is None:
            for call in unit:
                call.deaths += not ended.is_lost
            if len(unit) == 1 and unit[0].deaths >= DEATHS:
                why = f" ({ended.why})" if ended.why else ""
                raise StageError(
                    f"{DEATHS} workers died over one sample{why}: too little memory (cluster.memory), or the "
                    "environment is broken. See the logs of the workers; what was made is kept, run again to go on"
                )
            self._waiting.extendleft(unit)
            return []
        if "error" in ended.done:
            kind, message = ended.done["error"]
            raise getattr(errors, kind, StageError)(message)
        self._seconds += ended.done["seconds"]
        self._num_done += len(unit)
        return results_of(ended.done)
