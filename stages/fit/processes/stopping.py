"""Being asked to stop: SIGTERM, SIGUSR1 or a time limit become a question that the training loop asks every update."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))


class StopRequests:
    """While the `with` block runs, a signal makes ``is_stopping`` true instead of ending the process.

    So does a time limit, counted from ``since`` (time.monotonic). Handlers can be set in a process's main thread only;
    elsewhere no signal is caught, and whoever runs the thread may call `stop`.
    """

    def __init__(self, *, limit_minutes: float | None = None, since: float | None = None) -> None:
        self.is_asked = False  # by a signal or `stop`, not by the time limit
        self._before: dict[int, Any] = {}
        started = time.monotonic() if since is None else since
        self._until = None if limit_minutes is None else started + 60 * limit_minutes

    @property
    def is_stopping(self) -> bool:
        """Whether to stop now."""
        return self.is_asked or self.is_late

    @property
    def is_late(self) -> bool:
        """Whether the time limit is reached."""
        return self._until is not None and time.monotonic() >= self._until

    def stop(self) -> None:
        """As a signal would."""
        self.is_asked = True

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
        self.is_asked = True
