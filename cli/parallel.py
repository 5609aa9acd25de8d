"""`run -m --parallel N`: combinations in processes of their own, as `reelwright run` would be typed for each.

Two combinations that would do the same node never run at once: the second waits until the first has left the record of
that node. So shared frames, embeddings and runs are made once, and no file has two writers.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from reelwright.pipeline.results import Failure, NodeResult, RunResult
from reelwright.storage.errors import ConfigError, Interrupted, StageError
from reelwright.storage.items import ItemRow

if TYPE_CHECKING:
    from reelwright.pipeline.grid import Combination, Unmade

_SECONDS_BETWEEN_LOOKS = 0.1
_START = "from reelwright.cli.main import main; main()"


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One combination at work."""

    number: int
    unmade: Unmade
    process: subprocess.Popen[bytes]
    answer: IO[bytes]
    log: IO[bytes]


def run_parallel(grid: Sequence[Combination], arguments: Sequence[str], *, processes: int) -> list[RunResult]:
    """Run all combinations, at most ``processes`` at once, each with the options ``arguments``; results in grid order.

    Raises ConfigError, Interrupted or StageError, after all others were stopped, when one could not run at all.
    """
    from reelwright.pipeline.grid import unmade

    waiting = {number: unmade(combination.file) for number, combination in enumerate(grid)}
    results: dict[int, RunResult] = {}
    with contextlib.ExitStack() as stack:
        running: list[_Job] = []
        stack.callback(_stop, running)
        while waiting or running:
            for number, nodes in list(waiting.items()):
                if len(running) < processes and not any(_clash(nodes, job.unmade) for job in running):
                    command = [*arguments, *_settings(grid[number])]
                    job = _start(number, waiting.pop(number), command, threads=_threads(processes), stack=stack)
                    running.append(job)
                    print(
                        f"[{number + 1}/{len(grid)}] starts: {' '.join(_settings(grid[number])[1::2])}", file=sys.stderr
                    )
            for job in [job for job in running if job.process.poll() is not None]:
                running.remove(job)
                results[job.number] = _result(job)
                print(f"[{job.number + 1}/{len(grid)}] ends with {results[job.number].exit_code}", file=sys.stderr)
            time.sleep(_SECONDS_BETWEEN_LOOKS)
    return [results[number] for number in sorted(results)]


def _settings(combination: Combination) -> list[str]:
    return [part for name, value in combination.settings for part in ("-S", f"{name}={value}")]


def _start(number: int, nodes: Unmade, arguments: Sequence[str], *, threads: int, stack: contextlib.ExitStack) -> _Job:
    answer, log = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(2))  # noqa: SIM115
    process = subprocess.Popen(  # noqa: S603 - our own command, arguments are never read by a shell
        [sys.executable, "-c", _START, "run", "--json", *arguments],
        stdout=answer,
        stderr=log,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
    )
    return _Job(number=number, unmade=nodes, process=process, answer=answer, log=log)


def _threads(processes: int) -> int:
    """Each process gets its share of the cores, so that they do not slow each other down."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdigit() else max(1, (os.cpu_count() or 1) // processes)


def _clash(one: Unmade, other: Unmade) -> bool:
    """Whether both would make a node that is not there yet."""
    return any(name in other and not _is_made(one[name]) for name in one)


def _is_made(record: Path | None) -> bool:
    return record is not None and record.exists()


def _result(job: _Job) -> RunResult:
    for file in (job.answer, job.log):
        file.seek(0)
    told = job.answer.read().decode()
    if job.process.returncode in {0, 1, 3} and told:
        return _parsed(json.loads(told))
    log = job.log.read().decode(errors="replace").strip() or f"exit code {job.process.returncode}"
    kinds = {2: ConfigError, 75: Interrupted}
    raise kinds.get(job.process.returncode, StageError)(log.removeprefix("reelwright: "))


def _parsed(values: Mapping[str, Any]) -> RunResult:
    """The inverse of `run_json`."""
    nodes = [NodeResult(**{**node, "reasons": tuple(node["reasons"])}) for node in values["nodes"]]
    failures = [
        Failure(node=entry["node"], video_ids=tuple(entry["video_ids"]), row=ItemRow(**entry["row"]))
        for entry in values["failures"]
    ]
    return RunResult(nodes=tuple(nodes), failures=tuple(failures))


def _stop(running: list[_Job]) -> None:
    """End what still runs: each keeps what it has done."""
    for job in running:
        job.process.terminate()
    for job in running:
        job.process.wait()
