"""Start the processes that train one run together, pass on what the first one says, and end them all if one dies.

They are started as torchrun starts them (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT; the store of the
rendezvous lives here), as `python -m reelwright.stages.fit.processes.process WORK`. torchrun itself, on one machine or
several, can start the same command.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch.distributed

from reelwright.stages.base.work import Reporter, Work, work_to_plain
from reelwright.stages.fit.processes.stopping import StopRequests
from reelwright.storage import errors
from reelwright.storage.errors import Interrupted, ReelwrightError, StageError
from reelwright.storage.heartbeat import check_held
from reelwright.storage.store import Store

INTERRUPTED = 75  # exit code
_GRACE_SECONDS = 3.0  # for the others to say why, once one has failed
_PATIENCE_SECONDS = 120.0  # for the others to finish their checkpoint, once one has stopped as asked
_POLL_SECONDS = 0.1
_TAIL_LINES = 6


@dataclass
class _Process:
    """One of them, and what it said last."""

    rank: int
    popen: subprocess.Popen[str]
    stderr: Path
    ended: dict[str, Any] = field(default_factory=dict)  # its last event: result, error or interrupted

    def tail(self) -> str:
        """The end of what it wrote on stderr."""
        lines = self.stderr.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return "\n  ".join(lines[-_TAIL_LINES:])


def launch(work: Work, reporter: Reporter, *, num_processes: int) -> dict[str, Any]:
    """Train the run of ``work`` in ``num_processes`` processes on this machine; returns what the stage returns.

    SIGTERM and SIGUSR1 are passed on to all, which checkpoint together. Raises what the stage raises, and StageError
    when a process dies.
    """
    open_store: Any = torch.distributed.TCPStore  # type: ignore[attr-defined]  # documented, but not exported by name
    store = open_store("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    reporter.note(f"{num_processes} processes share each batch")
    with tempfile.TemporaryDirectory(prefix="reelwright-") as folder, StopRequests() as stop:
        file = Path(folder) / "work.json"
        file.write_text(json.dumps(work_to_plain(work)), encoding="utf-8")
        with _started(file, num_processes, port=store.port) as processes:
            _watch(processes, reporter, stop, store=Store.at(work.store))
        return _outcome(processes, is_asked=stop.is_asked)


@contextlib.contextmanager
def _started(file: Path, num_processes: int, *, port: int) -> Iterator[list[_Process]]:
    processes: list[_Process] = []
    try:
        for rank in range(num_processes):
            stderr = file.with_name(f"stderr-{rank}")
            with stderr.open("w", encoding="utf-8") as written:
                popen = subprocess.Popen(  # noqa: S603 - our own module
                    [sys.executable, "-m", "reelwright.stages.fit.processes.process", str(file)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=written,
                    env=_environment(rank, num_processes, port),
                    text=True,
                    start_new_session=True,  # a Ctrl-C reaches us alone, and we end them
                )
            processes.append(_Process(rank, popen, stderr))
        yield processes
    finally:
        for process in processes:
            if process.popen.poll() is None:
                process.popen.kill()
            process.popen.wait()


def _environment(rank: int, num_processes: int, port: int) -> dict[str, str]:
    threads = max(1, (os.cpu_count() or 1) // num_processes)
    return {
        "OMP_NUM_THREADS": str(threads),
        "TORCH_CPP_LOG_LEVEL": "ERROR",  # DDP warns when every parameter was used
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(num_processes),
        "LOCAL_WORLD_SIZE": str(num_processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
    }


def _watch(processes: list[_Process], reporter: Reporter, stop: StopRequests, *, store: Store) -> None:
    """Pass on what is said until all have ended, or one has failed and the others had time to say why.

    Raises LostLockError when the lock of the run is lost, which is this process's.
    """
    events: queue.Queue[tuple[_Process, dict[str, Any]]] = queue.Queue()
    readers = [threading.Thread(target=_read, args=(process, events), daemon=True) for process in processes]
    for reader in readers:
        reader.start()
    is_sent, until = False, None
    while any(reader.is_alive() for reader in readers) or not events.empty():
        check_held(store.root / "runs")
        with contextlib.suppress(queue.Empty):
            _take(*events.get(timeout=_POLL_SECONDS), reporter)
        if stop.is_stopping and not is_sent:
            is_sent = True
            for process in processes:
                process.popen.terminate()
        codes = [process.popen.poll() for process in processes]
        if until is None and any(code not in {None, 0} for code in codes):
            has_failed = any(code not in {None, 0, INTERRUPTED} for code in codes)
            until = time.monotonic() + (_GRACE_SECONDS if has_failed else _PATIENCE_SECONDS)
        if until is not None and time.monotonic() > until:
            for process in processes:
                if process.popen.poll() is None:
                    process.ended = {"event": "stopped"}
                    process.popen.kill()
    for process in processes:
        process.popen.wait()


def _read(process: _Process, events: queue.Queue[tuple[_Process, dict[str, Any]]]) -> None:
    assert process.popen.stdout is not None
    with process.popen.stdout as lines:
        for line in lines:
            events.put((process, json.loads(line)))


def _take(process: _Process, event: dict[str, Any], reporter: Reporter) -> None:
    kind = event["event"]
    if kind == "total":
        reporter.total(event["amount"], event["unit"], event["done"])
    elif kind == "advance":
        reporter.advance(event["amount"])
    elif kind == "note":
        reporter.note(event["text"])
    elif not process.ended:
        process.ended = event


def _outcome(processes: list[_Process], *, is_asked: bool) -> dict[str, Any]:
    """What the first process returned. Raises what is wrong: what was meant for people first, then deaths.

    Of those that were asked to stop (``is_asked``), one that the signal ended did not train yet.
    """
    message = [process.ended for process in processes if process.ended.get("event") == "error"]
    if message:
        kind = getattr(errors, message[0]["kind"], StageError)
        error: ReelwrightError = kind(message[0]["message"])
        raise error
    if is_asked and any(process.popen.returncode == -signal.SIGTERM for process in processes):
        raise Interrupted("asked to stop before training began; run again to go on")
    for process in processes:
        code = process.popen.returncode
        if code not in {0, INTERRUPTED} and not process.ended:
            how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
            hint = " (out of memory?)" if code == -signal.SIGKILL else ""
            raise StageError(
                f"process {process.rank} of {len(processes)} {how}{hint}; the others were stopped. The last checkpoint "
                f"is intact: run again to go on. It said last:\n  {process.tail() or 'nothing'}"
            )
    crashed = [process for process in processes if process.ended.get("event") == "crashed"]
    if crashed:
        raise StageError(
            f"process {crashed[0].rank} of {len(processes)} failed; the last checkpoint is intact. "
            f"It said last:\n  {crashed[0].tail()}"
        )
    stopped = [process.ended for process in processes if process.ended.get("event") == "interrupted"]
    if stopped:
        raise Interrupted(stopped[0]["message"])
    result: dict[str, Any] = processes[0].ended["result"]
    return result
