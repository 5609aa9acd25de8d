"""Runs `reelwright` again and again without its start-up time: a process that has all imported, and forks.

A line of JSON on stdin starts one run; its answers on stdout are the process number, then the exit status. A run may be
told to kill its whole process group when it is about to give a file its name: the only way in which our files appear.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True, kw_only=True)
class Moment:
    """When a run is killed: some time after the ``number``-th renaming to a path that fits ``pattern`` is asked for."""

    pattern: str
    number: int
    delay_seconds: float = 0.0  # 0: before it is done


class Forks:
    """The process that forks; a context manager."""

    def __enter__(self) -> Self:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.slow.forks"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        self._answer()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait(timeout=30)
        self._server.stdout.close()

    def run(
        self,
        folder: Path,
        *,
        kill: Moment | None = None,
        renamed: Path | None = None,
        meanwhile: Callable[[int], None] | None = None,
    ) -> int:
        """The exit status of `reelwright run` in ``folder``, negative where a signal ended it.

        What it says is added to log.txt; ``renamed`` gets a line for every file that got its name; ``meanwhile`` is
        called with the number of its process group.
        """
        assert self._server.stdin is not None
        asked = {"folder": str(folder), "kill": vars(kill) if kill else None, "renamed": str(renamed or "")}
        self._server.stdin.write(json.dumps(asked) + "\n")
        self._server.stdin.flush()
        group = self._answer()
        if meanwhile is not None:
            meanwhile(group)
        return self._answer()

    def _answer(self) -> int:
        assert self._server.stdout is not None
        return int(self._server.stdout.readline())


def serve() -> None:
    """Fork for each line on stdin."""
    import av  # noqa: F401 - all that a run would import, so that a fork begins to work at once
    import pyarrow.parquet  # noqa: F401
    import torch.utils.tensorboard  # noqa: F401
    import zarr  # noqa: F401

    import reelwright.stages.decode.work
    import reelwright.stages.embed.work
    import reelwright.stages.predict.work
    import reelwright.stages.train.work  # noqa: F401

    print(0, flush=True)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _become(json.loads(line))
        with contextlib.suppress(ProcessLookupError):  # before its number is told, so that the group can be killed
            os.setpgid(child, child)
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _become(asked: dict[str, Any]) -> None:
    """Be `reelwright run` in a process group of its own."""
    from reelwright.cli.main import main

    os.setpgid(0, 0)
    os.chdir(asked["folder"])
    log = os.open("log.txt", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if asked["kill"]:
        sys.addaudithook(_killer(Moment(**asked["kill"])))
    if asked["renamed"]:
        sys.addaudithook(_noting(asked["renamed"]))
    sys.argv = ["reelwright", "run"]
    code = 70
    try:
        main()
        code = 0
    except SystemExit as done:
        code = int(done.code or 0)
    finally:
        sys.stdout.flush()
        os._exit(code)


def _killer(moment: Moment) -> Callable[[str, tuple[Any, ...]], None]:
    fits, seen = re.compile(moment.pattern), [0]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event != "os.rename" or not fits.search(str(arguments[1])):
            return
        seen[0] += 1
        if seen[0] == moment.number:
            if moment.delay_seconds == 0.0:
                os.killpg(0, signal.SIGKILL)
            threading.Timer(moment.delay_seconds, os.killpg, (0, signal.SIGKILL)).start()

    return hook


def _noting(path: str) -> Callable[[str, tuple[Any, ...]], None]:
    note = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.rename":
            os.write(note, f"{arguments[1]}\n".encode())

    return hook


if __name__ == "__main__":
    serve()
