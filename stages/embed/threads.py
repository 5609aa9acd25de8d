"""Two helpers that let reading, computing and writing overlap, with bounded queues and errors that come through."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Self, TypeVar

E = TypeVar("E")

_POLL_SECONDS = 0.1
_CLOSE_SECONDS = 5.0  # a reader that hangs in a decoder dies with us; do not wait for its time limit


class _End:
    """Put into a queue when nothing more comes; carries the error that ended it."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


@contextlib.contextmanager
def read_ahead(events: Iterator[E], *, depth: int) -> Iterator[Iterator[E]]:  # noqa: C901 - three small functions
    """Take ``events`` in a thread of its own, at most ``depth`` events ahead of who takes them.

    An error of the generator is raised where its next event would be taken. On leaving the block a generator is
    closed in its own thread, so that it ends its processes.
    """
    waiting: queue.Queue[E | _End] = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def put(entry: E | _End) -> None:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                waiting.put(entry, timeout=_POLL_SECONDS)
                return

    def read() -> None:
        error: BaseException | None = None
        try:
            for event in events:
                put(event)
                if stopped.is_set():
                    break
        except BaseException as caught:  # noqa: BLE001 - carried to the thread that takes the events, and raised there
            error = caught
        finally:
            if isinstance(events, Generator):
                events.close()
        put(_End(error))

    def take() -> Iterator[E]:
        while not isinstance(event := waiting.get(), _End):
            yield event
        if event.error is not None:
            raise event.error

    thread = threading.Thread(target=read, name="reelwright-reader", daemon=True)
    thread.start()
    try:
        yield take()
    finally:
        stopped.set()
        thread.join(_CLOSE_SECONDS)


class Background:
    """Runs calls in order in one thread of its own; their first error is raised at the next call or at the end."""

    def __init__(self, *, depth: int) -> None:
        self._calls: queue.Queue[Callable[[], None] | None] = queue.Queue(maxsize=depth)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="reelwright-writer", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._calls.put(None)
        self._thread.join()
        if kind is None:
            self._check()

    def call(self, function: Callable[[], None]) -> None:
        """Queue ``function``; waits while ``depth`` calls are waiting."""
        self._check()
        self._calls.put(function)

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        while (function := self._calls.get()) is not None:
            if self._error is None:
                try:
                    function()
                except BaseException as caught:  # noqa: BLE001 - carried to the thread that queued the call
                    self._error = caught
