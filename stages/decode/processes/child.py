"""A decoding process and the socket to it: a fresh interpreter, started when needed or ahead, killed at any time."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from numpy.typing import NDArray

from reelwright.stages.decode.processes import slots, wire

START_LIMIT_SECONDS = 60.0
_END_SECONDS = 10.0  # for a process that dies by itself to be gone: writing a core file takes a while


class Child:
    """One process and the socket to it; started when first needed, and again after it was killed."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None
        self._slots: slots.Slots | None = None
        self._lock = threading.Lock()
        self._abandoned = False
        self._is_ready = False

    def start(self) -> None:
        """Start it where it is not running, and wait until it is ready."""
        if self.process is None:
            self.launch()
        if not self._is_ready:
            self.send({"path": [os.path.abspath(entry) for entry in sys.path]})  # noqa: PTH100 - '' means here, now
            self.receive(START_LIMIT_SECONDS)
            self._is_ready = True

    def launch(self, module: str = "") -> None:
        """Start it without waiting; it imports ``module`` at once."""
        ours, theirs = socket.socketpair()
        with theirs, self._lock:
            self._connection = ours
            if self._abandoned:
                raise EOFError("the pool is closing")
            memory = slots.create()
            self._slots = None if memory is None else slots.Slots(os.dup(memory))
            try:
                self.process = start_process(module, [theirs.fileno(), *([] if memory is None else [memory])])
            finally:
                if memory is not None:
                    os.close(memory)

    def send(self, header: dict[str, Any]) -> None:
        """Send it a task."""
        assert self._connection is not None
        self._connection.settimeout(None)
        wire.send(self._connection, header)

    def receive(self, limit_seconds: float | None) -> tuple[dict[str, Any], list[NDArray[Any]]]:
        """Wait for its next message. Raises TimeoutError, and EOFError or OSError where it died."""
        assert self._connection is not None
        self._connection.settimeout(None if limit_seconds is None else max(0.001, limit_seconds))
        return wire.receive(self._connection, slots=self._slots)

    def abandon(self) -> None:
        """Kill the process from another thread; the one that serves it sees the end of the stream."""
        with self._lock:
            self._abandoned = True
            if self.process is not None:
                self.process.kill()

    def reap(self) -> str:
        """Wait for a process that died, and say what of: a signal's name or its exit code."""
        if self.process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(_END_SECONDS)
        return self.kill()

    def kill(self) -> str:
        """End the process, and say what it died of."""
        process, self.process = self.process, None
        connection, self._connection = self._connection, None
        self._slots, self._is_ready = None, False  # arrays that are still looked at keep the memory
        if connection is not None:
            connection.close()
        if process is None:
            return "not_started"
        process.kill()
        code = process.wait()
        return _signal_name(-code) if code < 0 else f"exit_{code}"


def start_process(module: str, descriptors: Sequence[int]) -> subprocess.Popen[bytes]:
    """Start the process, with these open files: the socket that it serves, and memory where there is some."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # else Ctrl-C meets an interpreter that starts
    try:
        return subprocess.Popen(  # noqa: S603 - this interpreter, our own module
            [sys.executable, "-m", "reelwright.stages.decode.processes.worker", module, *map(str, descriptors)],
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
            env=environment(),
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"SIG{number}"


def environment() -> dict[str, str]:
    """One thread for numeric libraries: the processes are the parallelism.

    glibc gives freed frames back to the system at once as long as they lie above a threshold that is fixed; left to
    itself it raises the threshold to 32 MB and keeps them (PyAV, 720p: 327 MB instead of 141).
    """
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {**os.environ, **threads, "MALLOC_MMAP_THRESHOLD_": str(1 << 20), "MALLOC_ARENA_MAX": "2"}


_ready: list[Child] = []  # started, and taken by no pool yet


@contextlib.contextmanager
def started_ahead(count: int, *, module: str) -> Iterator[None]:
    """``count`` processes that import ``module`` at once, for the pools opened inside; what none takes ends with it.

    So they start while their user makes ready what it needs itself.
    """
    own: list[Child] = []
    try:
        for _ in range(count):
            child = Child()
            own.append(child)
            try:
                child.launch(module)
            except OSError:  # memory or processes are short: the pool tries again when it needs one, and says so
                own.pop().kill()
                break
        _ready.extend(own)
        yield
    finally:
        for child in own:
            if child in _ready:
                _ready.remove(child)
                child.kill()


def next_child() -> Child:
    """One that was started ahead, else a new one that starts when it is needed."""
    return _ready.pop(0) if _ready else Child()
