"""Forward passes side by side on a CPU: several batches at once, each by few threads of its own.

Two passes of one thread each take less than one pass after the other by two threads: nobody waits at the end of every
layer for the slower one, which is slow whenever decoding has its core.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Generic, Protocol, TypeVar

import torch

from reelwright.models.encoders.base import Encoder

MOST_STREAMS = 8  # each holds the activations of a batch
MOST_OF_CLIPS = 2  # of an encoder of clips, one of which takes hundreds of MB

T = TypeVar("T")


class Streams:
    """``num`` passes at once; a single one is done by who starts it, with the threads that it has."""

    def __init__(self, num: int = 1) -> None:
        self.num = num
        threads = torch.get_num_threads()
        self.threads = max(1, threads // num)  # of each
        self._pool: ThreadPoolExecutor | None = None
        if num > 1:
            self._pool = ThreadPoolExecutor(num, "reelwright-forward", _limit_threads, (self.threads,))
            all_there = threading.Barrier(num)
            with contextlib.ExitStack() as unless_all:  # where a thread cannot be started, others wait for it
                unless_all.callback(self._pool.shutdown, wait=False, cancel_futures=True)
                unless_all.callback(all_there.abort)
                for each in [self._pool.submit(all_there.wait) for _ in range(num)]:
                    each.result()
                unless_all.pop_all()
            torch.set_num_threads(threads)  # threads that others start later take what was set last

    @classmethod
    def beside(cls, encoder: Encoder, device: torch.device, *, is_fixed: bool) -> Streams:
        """As many as this machine has threads; one on a GPU, of a fixed computation, and where passes share state."""
        is_single = device.type != "cpu" or is_fixed or not encoder.is_reentrant
        most = 1 if is_single else MOST_OF_CLIPS if encoder.kind == "video" else MOST_STREAMS
        return cls(min(most, torch.get_num_threads()))

    def start(self, function: Callable[[], T]) -> Started[T]:
        """Start a pass, in inference mode; more than `num` of them wait for each other."""
        call = partial(_clocked, function)
        if self._pool is None:
            found: Future[tuple[T, float]] = Future()
            found.set_result(call())
            return Started(found, share=1.0)
        return Started(self._pool.submit(call), share=1 / self.num)

    def seconds(self, start: Callable[[], OnItsWay]) -> float:
        """How long a pass that ``start`` starts here takes of the machine's time, measured in all streams at once."""
        started = time.perf_counter()
        for each in [start() for _ in range(self.num)]:
            each.result()
        return (time.perf_counter() - started) / self.num


class OnItsWay(Protocol):
    """What was started, as `Started` is."""

    def result(self) -> object:
        """Waits for it."""


class Started(Generic[T]):
    """A pass that was started."""

    def __init__(self, future: Future[tuple[T, float]], *, share: float) -> None:
        self._future, self._share = future, share

    def result(self) -> T:
        """What it gave. Raises what it raised."""
        return self._future.result()[0]

    def cancel(self) -> None:
        """Leave it out where it has not begun: at the end of the process all that were started are waited for."""
        self._future.cancel()

    @property
    def seconds(self) -> float:
        """How long it kept its share of the machine, in seconds of the whole."""
        return self._future.result()[1] * self._share


def _limit_threads(num: int) -> None:
    torch.get_num_threads()  # asked for the first time, a thread takes what was set last, whatever it was given before
    torch.set_num_threads(num)


def _clocked(function: Callable[[], T]) -> tuple[T, float]:
    started = time.perf_counter()
    with torch.inference_mode():
        return function(), time.perf_counter() - started
