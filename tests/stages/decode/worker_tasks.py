"""Functions for worker processes to run in tests: they behave well, hang, crash, are killed, or talk a lot."""

import json
import os
import signal
import sys
import time
from importlib import import_module
from pathlib import Path

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


def killed(**arguments):
    """Do what KILLED names, and kill this process (kill -9) in the first ``times`` calls, before message ``after``.

    ``only`` is part of the path of the videos that this is for.
    """
    plan = json.loads(os.environ["KILLED"])
    with Path(plan["calls"]).open("a") as file:
        file.write(arguments.get("backend", "-") + "\n")
    calls = len(Path(plan["calls"]).read_text().splitlines())
    module, name = plan["function"].split(":")
    for number, message in enumerate(getattr(import_module(module), name)(**arguments)):
        if calls <= plan["times"] and number == plan["after"] and plan["only"] in arguments["path"]:
            os.kill(os.getpid(), plan.get("signal", signal.SIGKILL))
        yield message


def wait_to_be_killed():
    yield {"pid": os.getpid()}, []
    while True:
        time.sleep(1)


def system_error(*, number, filename, path=""):
    yield {}, []
    raise OSError(number, os.strerror(number), filename)


def fails_or_is_not_there(*, backend):
    if backend == "decord":
        raise ImportError("no libdecord.so")
    raise RuntimeError("broken")
    yield {}, []


def refused():
    yield {}, []
    raise ConnectionRefusedError("nobody listens")


def large(*, rows, size):
    for row in range(rows):
        yield {"pid": os.getpid()}, [np.full(size, row, np.uint8), np.arange(3)]
