"""What every dask worker of ours has: the unit of work as a task, and leaving in peace when it is asked to go."""

from __future__ import annotations

import json
import math
import os
import signal
import threading
from types import FrameType
from typing import Any

from distributed import WorkerPlugin

from reelwright.stages.base.unit import do_unit, leave

PLUGIN = "reelwright-leave"
_TOO_MUCH = 0.8  # of the memory a worker may have: what is stopped then is stopped for it
_alone = threading.Lock()  # a worker may have several threads; stderr and models are of the process


def do_text(unit: str) -> str:
    """Do a unit, as JSON; returns what became of it as JSON."""
    with _alone:
        return json.dumps(do_unit(json.loads(unit)))


class LeavePlugin(WorkerPlugin):  # type: ignore[misc]  # distributed has no types
    """Says of what is under way, when the worker ends by a signal, its lifetime or its scheduler, that it was left."""

    name = PLUGIN

    def setup(self, worker: Any) -> None:
        """SLURM ends a job with SIGTERM to all its processes; the nanny one that has too much memory, alike."""
        if threading.current_thread() is not threading.main_thread():
            return  # as where workers are threads of a test
        if isinstance(worker.name, int):  # of this machine's own cluster, whose workers all see all of its GPUs
            os.environ.setdefault("LOCAL_RANK", str(worker.name))
        limit = worker.memory_manager.memory_limit or math.inf

        def stop(number: int, frame: FrameType | None) -> None:
            del frame
            if worker.monitor.proc.memory_info().rss < _TOO_MUCH * limit:
                leave()
            os._exit(128 + number)

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who shares out the work, and ends the workers

    def teardown(self, worker: Any) -> None:
        """Called when a worker closes; not when it is killed. What it does goes on until the process ends."""
        del worker
        leave()
