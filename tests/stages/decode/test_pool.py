"""Worker processes: order, arrays, time limits, crashes, replacement, back-pressure, no orphans."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from reelwright.stages.decode.processes.pool import Message, Task, TaskEnded, WorkerPool

HERE = Path(__file__).parent
pytestmark = pytest.mark.usefixtures("_own_decoders")


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HERE))


def task(name: str, function: str, *, timeout_seconds: float | None = 20.0, **arguments) -> Task:
    return Task(name=name, function=f"worker_tasks:{function}", arguments=arguments, timeout_seconds=timeout_seconds)


def pids(pool: WorkerPool) -> list[int]:
    """Of the workers that are running."""
    return [worker.process.pid for worker in pool._workers if worker.process is not None]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z" if Path("/proc").is_dir() else True
    except (ProcessLookupError, FileNotFoundError):
        return False


def wait_until_dead(pids: list[int]) -> None:
    limit = time.monotonic() + 10
    while any(is_alive(pid) for pid in pids):
        assert time.monotonic() < limit, f"still running: {pids}"
        time.sleep(0.02)


def test_messages_of_a_task_come_in_order_with_their_arrays() -> None:
    with WorkerPool(2) as pool:
        for name in "abc":
            pool.submit(task(name, "count", rows=4))
        events = list(pool.events())
    for name in "abc":
        own = [event for event in events if event.name == name]
        assert [event.body["row"] for event in own[:-1]] == [0, 1, 2, 3]
        assert isinstance(own[-1], TaskEnded)
        assert own[-1].status == "ok"
        filled, empty = own[2].arrays
        np.testing.assert_array_equal(filled, np.full((2, 3), 2, np.int16))
        assert (filled.dtype, empty.shape, empty.dtype) == (np.int16, (0, 4), np.float32)


@pytest.mark.parametrize(
    ("bad", "status", "cause", "match"),
    [
        pytest.param(task("bad", "sleep", seconds=30, timeout_seconds=0.3), "timeout", "timeout", "0.3 s", id="hangs"),
        pytest.param(task("bad", "die", number=int(signal.SIGSEGV)), "crashed", "SIGSEGV", "died", id="segfault"),
        pytest.param(task("bad", "die", number=int(signal.SIGABRT)), "crashed", "SIGABRT", "died", id="abort"),
        pytest.param(
            task("bad", "die", number=int(signal.SIGKILL)), "crashed", "SIGKILL", "died", id="killed-for-memory"
        ),
        pytest.param(task("bad", "leave", code=7), "crashed", "exit_7", "died", id="exits"),
        pytest.param(task("bad", "refuse", cause="damaged"), "truncated", "damaged", "cannot be done", id="item-error"),
        pytest.param(task("bad", "stumble"), "failed", "error", "ValueError: matmul", id="exception"),
    ],
)
def test_one_bad_task_does_not_stop_the_others(bad: Task, status: str, cause: str, match: str) -> None:
    with WorkerPool(1) as pool:
        pool.submit(bad)
        pool.submit(task("good", "count", rows=2))
        events = list(pool.events())
    ends = {event.name: event for event in events if isinstance(event, TaskEnded)}
    assert (ends["bad"].status, ends["bad"].cause) == (status, cause)
    assert match in ends["bad"].message
    assert ends["good"].status == "ok"


@pytest.mark.parametrize("error", [OSError("No space left"), TimeoutError("no answer")], ids=["full", "slow-server"])
def test_a_system_error_of_what_becomes_of_messages_is_no_death_of_the_process(error: OSError) -> None:
    def through(body, arrays):
        raise error

    with WorkerPool(1) as pool:
        pool.submit(replace(task("a", "count", rows=2), through=through))
        with pytest.raises(OSError, match=str(error)):
            list(pool.events())


@pytest.mark.slow
def test_waiting_for_the_reader_is_no_time_of_the_worker() -> None:
    with WorkerPool(1) as pool:
        pool.submit(task("slow-reader", "count", rows=30, timeout_seconds=1.0))
        for event in pool.events():
            if isinstance(event, Message):
                time.sleep(0.05)
        assert isinstance(event, TaskEnded)
        assert event.status == "ok"


def test_tasks_may_be_added_while_events_are_read() -> None:
    with WorkerPool(1) as pool:
        pool.submit(task("first", "count", rows=1))
        names = []
        for event in pool.events():
            if isinstance(event, TaskEnded):
                names.append(event.name)
                if len(names) < 3:
                    pool.submit(task(f"more-{len(names)}", "count", rows=1))
    assert names == ["first", "more-1", "more-2"]


def test_close_kills_even_those_that_hang() -> None:
    with WorkerPool(2) as pool:
        for name in "ab":
            pool.submit(task(name, "hang_ignoring_signals", timeout_seconds=None))
        events = pool.events()
        pids = [next(events).body["pid"], next(events).body["pid"]]
    wait_until_dead(pids)


def test_workers_die_with_a_parent_that_is_killed() -> None:
    script = (
        "from reelwright.stages.decode.processes.pool import *\n"
        "pool = WorkerPool(1); pool.submit(Task(name='a', function='worker_tasks:hang_ignoring_signals'))\n"
        "print(next(pool.events()).body['pid'], flush=True); import time; time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment, text=True) as parent:
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
        parent.kill()
    wait_until_dead([pid])


def test_workers_start_without_torch_and_zarr() -> None:
    with WorkerPool(1) as pool:
        pool.submit(task("a", "modules", names=["torch", "torchvision", "timm", "torchcodec", "zarr"]))
        found = next(pool.events())
    assert found.body["loaded"] == []
