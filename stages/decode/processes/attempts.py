"""Try each video with one backend after the other, in killable processes, and say what became of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from reelwright.stages.base.work import VideoItem
from reelwright.stages.decode.processes.pool import Message, Task, TaskEnded, WorkerPool
from reelwright.stages.decode.processes.wire import MACHINE, NO_BACKEND, UNUSABLE
from reelwright.storage.errors import ReelwrightError, UnusableMachineError, UnusableStoreError
from reelwright.storage.ledger.items import DONE, ItemRow

MAX_WORKERS = 8
INDEX_CORRECTED = "index_corrected"  # cause: packets had said other frames than decode; opened again, all is right
_BASE_LIMIT_SECONDS = 60.0
_UNKNOWN_DURATION_SECONDS = 600.0
_AGAIN = 1  # so often a backend is tried again whose process was killed from outside
# What another backend may do better. All else (a file that is missing, empty, no video) is the same for every backend.
_ANOTHER_MAY = frozenset({"backend_unsuited", "backend_failed", NO_BACKEND, "error", "out_of_memory"})


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a list of videos is worked on."""

    function: str  # of the worker, as `module:name`
    arguments: Callable[[VideoItem, str, int], Mapping[str, Any]]  # (item, backend, attempts broken off) -> arguments
    backends: Callable[[VideoItem], Sequence[str]]  # to try, in order
    workers: int
    timeout_seconds: float | None = None  # per attempt; None: 60 s plus twice the duration
    through: Callable[[dict[str, Any], list[NDArray[Any]]], list[NDArray[Any]]] | None = None  # see `Task`


@dataclass(frozen=True)
class Attempt:
    """A message of one attempt at one video."""

    item: VideoItem
    number: int  # 0 for the first
    backend: str
    body: dict[str, Any]
    arrays: list[NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class DecodeResult:
    """What became of a video in the end."""

    item: VideoItem
    status: str
    cause: str
    message: str  # every attempt that failed, with its reason
    backend: str
    seconds: float
    attempts: int

    def row(self, *, rows: int = 0, num_bytes: int = 0, seconds: float = 0.0) -> ItemRow:
        """The item row of a video that ended so, with ``rows`` in ``num_bytes`` of its stage after ``seconds``."""
        how = {name: getattr(self, name) for name in ("status", "backend", "cause", "message", "attempts")}
        return ItemRow(digest=self.item.digest, rows=rows, bytes=num_bytes, seconds=seconds, **how)


@dataclass
class _Progress:
    item: VideoItem
    backends: Sequence[str]
    number: int = 0  # of the present attempt
    place: int = 0  # of the present backend among them
    kills: int = 0  # of processes of the present backend, from outside
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)
    about: list[str] = field(default_factory=list)  # what people should know of the file
    is_corrected: bool = False  # its index was found wrong, and made again
    is_begun: bool = False  # something came of the present attempt
    num_broken: int = 0  # attempts that failed after something had come of them

    @property
    def backend(self) -> str:
        """The present one."""
        return self.backends[self.place]


def num_workers(wanted: int | None, num_items: int) -> int:
    """Processes to start: as wanted, else one for each usable core, at most 8 and no more than there are videos."""
    return max(1, min(wanted or min(MAX_WORKERS, num_cores()), num_items))


def num_cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def attempt_all(items: Sequence[VideoItem], plan: Plan) -> Iterator[Attempt | DecodeResult]:
    """Messages of all videos as they come (those of one video in order), and one `Outcome` for each.

    A process that is killed from outside is no fault of the video's before its backend was tried once more. Raises
    UnusableStoreError when a process finds the store full, read-only or gone or a source out of reach,
    UnusableMachineError when this machine lacks what decoding needs; no video is blamed for either.
    """
    states = {str(index): _Progress(item, plan.backends(item)) for index, item in enumerate(items)}
    with WorkerPool(plan.workers) as pool:
        for name, state in states.items():
            pool.submit(_task(name, state, plan))
        for event in pool.events():
            state = states[event.name]
            if isinstance(event, Message) and event.body.get("event") == "notes":
                state.about = list(event.body["notes"])
            elif isinstance(event, Message):
                state.is_begun = True
                yield Attempt(state.item, state.number, state.backend, event.body, event.arrays)
            elif _should_retry(event, state):
                pool.submit(_task(event.name, state, plan), first=True)
            else:
                if event.cause != NO_BACKEND or not _telling(state):
                    raise_unusable(event, message="; ".join(state.notes))
                yield _outcome(event, states.pop(event.name))


def _task(name: str, state: _Progress, plan: Plan) -> Task:
    duration = state.item.duration_seconds
    arguments = plan.arguments(state.item, state.backend, state.num_broken)
    limit = _BASE_LIMIT_SECONDS + (_UNKNOWN_DURATION_SECONDS if duration is None else 2 * duration)
    return Task(
        name=name,
        function=plan.function,
        arguments={**arguments, "is_doubted": True} if state.is_corrected else arguments,
        timeout_seconds=plan.timeout_seconds or limit,
        through=plan.through,
    )


def raise_unusable(ended: TaskEnded, *, message: str = "") -> None:
    """Raise what ends a stage where a task ended by no fault of its video's. told: what to say of all attempts."""
    kind: type[ReelwrightError] = UnusableMachineError if ended.cause == MACHINE else UnusableStoreError
    if ended.status == UNUSABLE:
        raise kind(ended.message)
    if ended.cause == NO_BACKEND:
        raise UnusableMachineError(
            f"no backend that is left can be loaded here: {message or ended.message}. Install it again (pip install "
            "--force-reinstall av decord), or what it needs of the system, then run again"
        )


def _should_retry(ended: TaskEnded, state: _Progress) -> bool:
    """Note a failed attempt, and whether there is to be another: with the same backend, or with the next one."""
    state.seconds += ended.seconds
    if ended.status in ("ok", UNUSABLE):
        return False
    state.failures.append((ended.status, ended.cause))
    state.num_broken += state.is_begun
    state.is_begun = False
    may = ended.status in ("timeout", "crashed") or (ended.status == "failed" and ended.cause in _ANOTHER_MAY)
    by_backend = may or ended.status == "truncated"
    is_routine = ended.cause in ("backend_unsuited", INDEX_CORRECTED) and (
        state.place + 1 < len(state.backends) or bool(state.notes)
    )
    if not is_routine:  # which backend is right for a kind of file is nobody's concern
        state.notes.append(f"{state.backend}: {ended.message}" if by_backend else ended.message)
    if ended.cause == INDEX_CORRECTED and not state.is_corrected:
        state.is_corrected = True
    elif ended.is_killed and state.kills < _AGAIN:
        state.kills += 1
        state.notes[-1] += "; it was tried again"
    elif may and state.place + 1 < len(state.backends):
        state.place += 1
        state.kills = 0
    else:
        return False
    state.number += 1
    return True


def _telling(state: _Progress) -> list[tuple[str, str]]:
    """The failures that say more than that a backend is not for this file, or not here."""
    return [failure for failure in state.failures if failure[1] not in ("backend_unsuited", NO_BACKEND)]


def _outcome(ended: TaskEnded, state: _Progress) -> DecodeResult:
    status, cause = ended.status, ended.cause
    if status not in DONE:
        status, cause = [(status, cause), *_telling(state)][-1]
    return DecodeResult(
        item=state.item,
        status=status,
        cause=cause,
        message="; ".join([*state.notes, *state.about]),
        backend=state.backend,
        seconds=round(state.seconds, 3),
        attempts=state.number + 1,
    )
