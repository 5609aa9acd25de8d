"""One of several processes that train a run together: `python -m reelwright.stages.fit.processes.process WORK.json`.

Who it is stands in the environment, as torchrun sets it. The first process says on stdout what happens, a JSON object a
line; every process says how it ended. Where REELWRIGHT_EVENTS names a file they say it there instead, each in a file of
its own (FILE.<rank>.jsonl), and one that was interrupted leaves `stopped.<rank>` beside it. Exit codes: 0, 1 failed, 75
interrupted with a checkpoint.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from reelwright.stages.base.inputs import bring_inputs
from reelwright.stages.base.registry import load, stage_of
from reelwright.stages.base.work import work_from_plain
from reelwright.storage.errors import Interrupted, ReelwrightError
from reelwright.storage.ledger.items import ItemRow

EVENTS_VARIABLE = "REELWRIGHT_EVENTS"


class EventReporter:
    """Writes what it is told as JSON lines."""

    def __init__(self, out: TextIO, *, is_main: bool) -> None:
        self._out, self._is_main = out, is_main

    def send(self, event: str, **values: Any) -> None:
        """One line."""
        self._out.write(json.dumps({"event": event, **values}) + "\n")
        self._out.flush()

    def item(self, row: ItemRow) -> None:
        """Runs have no items."""

    def advance(self, amount: int) -> None:
        """See Reporter."""
        if self._is_main:
            self.send("advance", amount=amount)

    def total(self, amount: int, unit: str, done: int = 0) -> None:
        """See Reporter."""
        if self._is_main:
            self.send("total", amount=amount, unit=unit, done=done)

    def note(self, text: str) -> None:
        """See Reporter."""
        if self._is_main:
            self.send("note", text=text)


def main(path: str) -> int:
    """Do the work in the file; returns the exit code."""
    work = work_from_plain(json.loads(Path(path).read_text(encoding="utf-8")))
    with _events() as out:
        reporter = EventReporter(out, is_main=os.environ.get("RANK", "0") == "0")
        try:
            bring_inputs(work)  # no process trains before all have joined, and so have brought theirs
            result = load(stage_of(work.stage).work)(work, reporter)
        except Interrupted as stopped:
            reporter.send("interrupted", message=str(stopped))
            _note_stop()
            return 75
        except ReelwrightError as error:
            reporter.send("error", kind=type(error).__name__, message=str(error))
            return 1
        except Exception:  # noqa: BLE001 - the boundary of the process: told to who started it
            traceback.print_exc()
            reporter.send("crashed")
            return 1
        reporter.send("result", result=result)
    return 0


@contextlib.contextmanager
def _events() -> Iterator[TextIO]:
    """The file of events, or stdout for events alone: whatever else is printed goes to stderr."""
    path = _events_file()
    if path is not None:
        with path.open("a", encoding="utf-8") as out:
            yield out
        return
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)
        yield out


def _events_file() -> Path | None:
    given = os.environ.get(EVENTS_VARIABLE)
    return None if not given else Path(f"{given}.{os.environ.get('RANK', '0')}.jsonl")


def _note_stop() -> None:
    """So that the job, which sees only torchrun's exit code, queues itself again."""
    path = _events_file()
    if path is not None:
        (path.parent / f"stopped.{os.environ.get('RANK', '0')}").touch()


if __name__ == "__main__":
    code = main(sys.argv[1])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # threads of a broken process group may never end
