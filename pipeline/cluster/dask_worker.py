"""What every dask worker of ours has: the unit of work as a task, and leaving in peace when it is asked to go."""

from __future__ import annotations

import json
import threading
from typing import Any

from distributed import WorkerPlugin

from reelwright.stages.unit import do_unit, leave

PLUGIN = "reelwright-leave"
_alone = threading.Lock()  # a worker may have several threads; stderr and models are of the process


def do_text(unit: str) -> str:
    """A unit as JSON; what became of it as JSON."""
    with _alone:
        return json.dumps(do_unit(json.loads(unit)))


class LeavePlugin(WorkerPlugin):  # type: ignore[misc]  # distributed has no types
    """Says of what is under way, when the worker ends by a signal, its lifetime or its scheduler, that it was left."""

    name = PLUGIN

    def teardown(self, worker: Any) -> None:
        """Called when a worker closes; not when it is killed. What it does goes on until the process ends."""
        del worker
        leave()
