"""Killable worker processes: decoders hang and crash in native code, and must not take the run with them.

Each worker is a fresh interpreter (never a fork, and no import of the caller's __main__ as multiprocessing's spawn
does), and one thread here feeds it:

    tasks -> thread 0 -> process 0 -> bounded queue -> events()
          -> thread 1 -> process 1 ->

The thread starts the process, receives messages under the time limit of the task, and kills and replaces the process
when the limit is over or it died. A full queue blocks the thread, then the process's socket: memory stays bounded, and
time spent so does not count.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from numpy.typing import NDArray

from reelwright.stages.decode.processes import wire
from reelwright.stages.decode.processes.child import START_LIMIT_SECONDS, Child, next_child
from reelwright.storage.bucket.download_cache import local_file
from reelwright.storage.errors import InputError, ItemError, ReelwrightError
from reelwright.storage.store import is_url
from reelwright.storage.store_errors import why_broken

# Signals that a process brings upon itself; all others come from outside.
_FAULTS = frozenset({"SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGTRAP", "SIGSYS"})
_QUEUED_PER_WORKER = 2  # messages: one being used, one ready


@dataclass(frozen=True, kw_only=True)
class Task:
    """One call of ``function`` (as `module:name`) with plain keyword arguments; it yields (plain dict, arrays)."""

    name: str  # what events are told apart by
    function: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    timeout_seconds: float | None = None  # of waiting for this task, in all
    through: Callable[[dict[str, Any], list[NDArray[Any]]], list[NDArray[Any]]] | None = None
    """What becomes of the arrays of a message (it may change the body), in the thread that serves its process.

    An ItemError ends the task; any other error is raised where events are read."""


@dataclass(frozen=True)
class Message:
    """One message that a task yielded."""

    name: str
    body: dict[str, Any]
    arrays: list[NDArray[Any]]


@dataclass(frozen=True)
class TaskEnded:
    """The last event of a task."""

    name: str
    status: str  # ok, or failed, truncated, ... of an ItemError; timeout; crashed; wire.UNUSABLE
    cause: str
    message: str
    seconds: float  # waited for

    @property
    def is_killed(self) -> bool:
        """Whether the process was ended from outside (for want of memory, by a person, by a scheduler)."""
        return self.status == "crashed" and self.cause.startswith("SIG") and self.cause not in _FAULTS


class WorkerPool:
    """``workers`` processes that run tasks; use it in a `with` block, which kills them at its end."""

    def __init__(self, workers: int) -> None:
        self._tasks: deque[Task] = deque()
        self._events: queue.Queue[Message | TaskEnded | BaseException] = queue.Queue(
            maxsize=max(2, _QUEUED_PER_WORKER * workers)
        )
        self._changed = threading.Condition()
        self._closing = False
        self._unfinished = 0
        self._workers = [next_child() for _ in range(max(1, workers))]
        self._threads = [
            threading.Thread(target=self._serve, args=(worker,), daemon=True, name=f"decode-{number}")
            for number, worker in enumerate(self._workers)
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(self, task: Task, *, first: bool = False) -> None:
        """Add a task; ``first`` puts it before those that wait. May be called while `events` is being read."""
        with self._changed:
            self._unfinished += 1
            (self._tasks.appendleft if first else self._tasks.append)(task)
            self._changed.notify()

    def events(self) -> Iterator[Message | TaskEnded]:
        """Messages and ends of tasks as they come, until every submitted task has ended. A task's own come in order."""
        while self._unfinished:
            event = self._events.get()
            if isinstance(event, BaseException):
                raise event
            if isinstance(event, TaskEnded):
                self._unfinished -= 1
            yield event

    def run(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, list[Message], TaskEnded]]:
        """Each task with its messages, as it ends; one whose process was killed from outside is tried once more."""
        found: dict[str, tuple[Task, list[Message]]] = {}
        killed: set[str] = set()
        for task in tasks:
            found[task.name] = task, []
            self.submit(task)
        for event in self.events():
            task, messages = found[event.name]
            if isinstance(event, Message):
                messages.append(event)
            elif event.is_killed and task.name not in killed:
                killed.add(task.name)
                messages.clear()
                self.submit(task, first=True)
            else:
                del found[task.name]  # of many thousands one is in hand
                yield task, messages, event

    def close(self) -> None:
        """Kill the workers; tasks under way are lost. Safe to call twice."""
        with self._changed:
            self._closing = True
            self._tasks.clear()
            self._changed.notify_all()
        for worker in self._workers:
            worker.abandon()
        while any(thread.is_alive() for thread in self._threads):
            with contextlib.suppress(queue.Empty):
                self._events.get_nowait()
            for thread in self._threads:
                thread.join(0.01)

    def _serve(self, worker: Child) -> None:
        """What one thread does: a task at a time."""
        try:
            while (task := self._next_task()) is not None:
                ended = self._run(worker, task)
                if not self._closing:
                    self._events.put(ended)
        except BaseException as error:  # noqa: BLE001 - carried to the thread that reads events, and raised there
            self._events.put(error)
        finally:
            worker.kill()

    def _next_task(self) -> Task | None:
        with self._changed:
            while not self._tasks and not self._closing:
                self._changed.wait()
            return None if self._closing else self._tasks.popleft()

    def _run(self, worker: Child, task: Task) -> TaskEnded:
        arguments = _local_arguments(task)
        failed = arguments if isinstance(arguments, TaskEnded) else _start(worker, task)
        if failed is not None:
            return failed
        waited = 0.0
        try:
            worker.send({"function": task.function, "arguments": arguments})
        except OSError:
            return _died(task, worker.reap(), waited)
        while not self._closing:
            answer = _next_message(worker, task, waited)
            if isinstance(answer, TaskEnded):
                return answer
            body, arrays, waited = answer
            del answer
            try:  # apart: an OSError of `through` says nothing of the process
                arrays = arrays if task.through is None else task.through(body, arrays)
            except ItemError as error:  # the process has more to send
                worker.kill()
                return TaskEnded(task.name, error.status, error.cause, str(error), waited)
            self._events.put(Message(task.name, body, arrays))
            del arrays  # which may lie in a slot
        return TaskEnded(task.name, "failed", "closed", "the pool was closed", waited)


def _start(worker: Child, task: Task) -> TaskEnded | None:
    """Start the process where it is not running; how the task ended where that cannot be done."""
    try:
        worker.start()
    except TimeoutError:
        worker.kill()
        message = f"is not ready after {START_LIMIT_SECONDS:g} s. Is the machine overloaded, or its file system away?"
    except (EOFError, ConnectionError):
        cause = worker.reap()
        died = _died(task, cause, 0.0)
        if died.is_killed:
            return died
        message = f"ends at once ({cause}). What it printed says why: a package may be missing, or damaged"
    except OSError as error:
        worker.kill()
        message = f"cannot be started: {error}. Free some memory or processes (`ulimit -u`)"
    else:
        return None
    return TaskEnded(task.name, wire.UNUSABLE, wire.MACHINE, f"the decoding process {message}", 0.0)


def _next_message(
    worker: Child, task: Task, waited: float
) -> tuple[dict[str, Any], list[NDArray[Any]], float] | TaskEnded:
    """The body and arrays of the next message and the seconds waited by then, or how the task ended."""
    started = time.perf_counter()
    try:
        header, arrays = worker.receive(None if task.timeout_seconds is None else task.timeout_seconds - waited)
    except TimeoutError:
        worker.kill()
        message = (
            f"no end after {task.timeout_seconds:g} s; the process was stopped. Raise timeout_seconds if it is slow"
        )
        return TaskEnded(task.name, "timeout", "timeout", message, task.timeout_seconds or 0.0)
    except (EOFError, OSError):
        return _died(task, worker.reap(), waited)
    waited += time.perf_counter() - started
    if header["kind"] == "message":
        return header["body"], arrays, waited
    if header["kind"] == "done":
        return TaskEnded(task.name, "ok", "", "", waited)
    return TaskEnded(task.name, header["status"], header["cause"], header["message"], waited)


def _died(task: Task, cause: str, seconds: float) -> TaskEnded:
    ended = TaskEnded(task.name, "crashed", cause, f"the decoding process died ({cause})", seconds)
    if not ended.is_killed:
        return ended
    return replace(
        ended, message=f"the decoding process died: it was killed from outside ({cause}), as when memory is short"
    )


def _local_arguments(task: Task) -> dict[str, Any] | TaskEnded:
    """The arguments with a local copy where `path` is a URL; fetching does not count as the task's time."""
    path = str(task.arguments.get("path", ""))
    if not is_url(path):
        return dict(task.arguments)
    try:
        return {**task.arguments, "path": str(local_file(path))}
    except InputError as error:
        return TaskEnded(task.name, "failed", "missing_file", str(error), 0.0)
    except ReelwrightError as error:
        return TaskEnded(task.name, wire.UNUSABLE, wire.SOURCE, str(error), 0.0)
    except OSError as error:  # of the folder of copies
        message = why_broken(error) or f"{error}. See that the folder of copies can be written"
        return TaskEnded(task.name, wire.UNUSABLE, wire.MACHINE, f"{path} cannot be fetched: {message}", 0.0)
