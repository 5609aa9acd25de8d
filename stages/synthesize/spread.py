"""Run calls in processes of their own, a few at a time, and give their results as they come."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for
from typing import Any, TypeVar

from reelwright.storage.errors import StageError

R = TypeVar("R")

_AHEAD = 2  # calls a process: one being done, one waiting


def spread(function: Callable[..., R], calls: Iterable[tuple[Any, ...]], *, workers: int) -> Iterator[R]:
    """Results of ``function(*arguments)`` in the order they end; ``calls`` is read only as far as processes are free.

    With one worker all is done in this process. Raises what a call raises, StageError where a process died.
    """
    if workers == 1:
        for arguments in calls:
            yield function(*arguments)
        return
    # Spawned, since a forked copy of a process with threads (torch, av) may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_prepare) as pool:
        waiting: set[Future[R]] = set()
        try:
            for arguments in calls:
                waiting.add(pool.submit(function, *arguments))
                if len(waiting) >= _AHEAD * workers:
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        except BrokenProcessPool as error:
            raise StageError(
                "a process died at its work (out of memory?); what was done is kept, run again to go on"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _prepare() -> None:
    """Leave Ctrl-C to the caller, and end with it even where it is killed: nobody would wait for the results."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait_for([sentinel])
    os._exit(1)
