"""Functions for worker processes to run in test_pool: they behave well, hang, crash, or talk a lot."""

import os
import signal
import sys
import time

import numpy as np

from reelwright.storage.errors import ItemError


def count(*, rows):
    for row in range(rows):
        yield {"row": row, "pid": os.getpid()}, [np.full((2, 3), row, np.int16), np.empty((0, 4), np.float32)]


def sleep(*, seconds):
    time.sleep(seconds)
    yield {}, []


def die(*, number):
    yield {"row": 0}, []
    os.kill(os.getpid(), number)
    time.sleep(30)
    yield {}, []


def leave(*, code):
    os._exit(code)
    yield {}, []


def refuse(*, cause):
    yield {"row": 0}, []
    raise ItemError(cause, "this one cannot be done", status="truncated")


def stumble():
    yield {}, [np.zeros(1) @ np.zeros((2, 2))]


def modules(*, names):
    import reelwright.stages.decode.tasks

    del reelwright
    yield {"loaded": [name for name in names if name in sys.modules]}, []


def hang_ignoring_signals():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    yield {"pid": os.getpid()}, []
    while True:
        time.sleep(1)
