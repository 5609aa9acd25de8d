"""Being asked to stop: SIGTERM and SIGUSR1 become a question that the training loop asks after every update."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))


class StopRequests:
    """While the `with` block runs, a signal sets ``is_stopping`` instead of ending the process.

    Handlers can be set in a process's main thread only; elsewhere nothing is caught, and whoever runs the thread may
    set ``is_stopping``.
    """

    def __init__(self) -> None:
        self.is_stopping = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._stop) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self.is_stopping = True
