"""Large arrays in memory that a decoding process and its parent share: right, reused, bounded, and gone with both."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from reelwright.stages.decode.processes import slots
from reelwright.stages.decode.processes.pool import Message, TaskEnded, WorkerPool
from tests.stages.decode.test_pool import HERE, pids, task, wait_until_dead

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="memory without a name is Linux's")
SIZE = slots.LEAST_BYTES


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> tuple[slots.Slots, slots.Slots]:
    """The process's and the parent's end of one memory."""
    monkeypatch.setattr(slots, "_WAIT_SECONDS", 0.01)
    descriptor = slots.create()
    assert descriptor is not None
    theirs = slots.Slots(os.dup(descriptor))
    return theirs, slots.Slots(descriptor)


def test_an_array_is_the_same_and_its_slot_free_once_no_view_is_left(ends: tuple[slots.Slots, slots.Slots]) -> None:
    theirs, ours = ends
    sent = np.arange(SIZE, dtype=np.int64).reshape(4, -1)
    assert theirs.put([sent]) == 0
    found = ours.take(0, sent.dtype, sent.shape)
    np.testing.assert_array_equal(found, sent)
    row = found[3:].T  # a view of a view keeps it
    del found
    assert theirs.put([sent + 1]) == 1
    np.testing.assert_array_equal(row, sent[3:].T)
    del row
    assert theirs.put([sent]) == 0


def test_what_does_not_fit_goes_another_way(ends: tuple[slots.Slots, slots.Slots]) -> None:
    theirs, ours = ends
    chunk = np.zeros(SIZE, np.uint8)
    assert theirs.put([chunk[1:]]) is None
    assert theirs.put([np.zeros(slots.SLOT_BYTES + 1, np.uint8)]) is None
    assert [theirs.put([chunk]) for _ in range(slots.NUM_SLOTS + 2)] == [*range(slots.NUM_SLOTS), None, None]
    ours.take(5, chunk.dtype, chunk.shape)
    assert theirs.put([chunk]) == 5


@pytest.mark.parametrize("has_memory", [True, False], ids=["memory", "socket"])
def test_who_keeps_all_arrays_gets_all(monkeypatch: pytest.MonkeyPatch, *, has_memory: bool) -> None:
    monkeypatch.syspath_prepend(str(HERE))
    if not has_memory:
        monkeypatch.setattr(slots, "create", lambda: None)
    with WorkerPool(1) as pool:
        pool.submit(task("a", "large", rows=3 * slots.NUM_SLOTS, size=SIZE))
        kept = list(pool.events())
    assert isinstance(kept[-1], TaskEnded)
    assert kept[-1].status == "ok"
    for row, event in enumerate(kept[:-1]):
        assert isinstance(event, Message)
        assert (event.arrays[0] == row).all()
        assert event.arrays[1].tolist() == [0, 1, 2]


def test_arrays_outlive_a_process_that_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HERE))
    with WorkerPool(1) as pool:
        pool.submit(task("a", "large", rows=2 * slots.NUM_SLOTS, size=SIZE))
        events = pool.events()
        kept = [next(events) for _ in range(4)]
        os.kill(pids(pool)[0], 9)
        assert [event.status for event in events if isinstance(event, TaskEnded)] == ["crashed"]
    assert [int(event.arrays[0].max()) for event in kept] == [0, 1, 2, 3]


def test_a_fault_in_what_becomes_of_arrays_is_raised_where_events_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def through(_body: object, _arrays: object) -> list[np.ndarray]:
        raise RuntimeError("no memory left")

    monkeypatch.syspath_prepend(str(HERE))
    with WorkerPool(1) as pool:
        work = task("a", "large", rows=4, size=SIZE)
        pool.submit(type(work)(**{**vars(work), "through": through}))
        with pytest.raises(RuntimeError, match="no memory left"):
            list(pool.events())


@pytest.mark.parametrize("victim", ["parent", "ctrl-c"])
def test_nothing_is_left_of_the_memory(victim: str) -> None:
    """Neither in /dev/shm nor in a process, whoever is killed."""
    script = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is ignored\n"
        "from reelwright.stages.decode.processes.pool import *\n"
        "pool = WorkerPool(1).__enter__()\n"
        f"pool.submit(Task(name='a', function='worker_tasks:large', arguments=dict(rows=1000, size={SIZE})))\n"
        "event = next(pool.events()); print(event.body['pid'], flush=True); import time; time.sleep(60)\n"
    )
    before = set(Path("/dev/shm").iterdir())
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, text=True
    ) as parent:
        pid = int(parent.stdout.readline())
        maps = Path(f"/proc/{pid}/maps").read_text()
        assert "memfd:reelwright-frames (deleted)" in maps  # no name: the kernel frees it with its last user
        parent.send_signal(9 if victim == "parent" else 2)
    wait_until_dead([pid])
    assert not {name for name in set(Path("/dev/shm").iterdir()) - before if "reelwright" in name.name}
