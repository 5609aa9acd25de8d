"""Processes that start before there is work: pools take them, and none is left over."""

from __future__ import annotations

import os

import pytest

from reelwright.stages.decode.processes import child as children
from reelwright.stages.decode.processes.pool import TaskEnded, WorkerPool
from tests.stages.decode.test_pool import HERE, is_alive, pids, task


def test_a_pool_takes_what_was_started_and_the_rest_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HERE))
    with children.started_ahead(2, module="zipapp"):
        started = [child.process.pid for child in children._ready]
        assert all(map(is_alive, started))
        with WorkerPool(1) as pool:
            pool.submit(task("a", "modules", names=["zipapp", "torch"]))
            loaded, ended = pool.events()
            assert loaded.body["loaded"] == ["zipapp"]
            assert pids(pool) == started[:1]
        assert not is_alive(started[0])
        assert is_alive(started[1])
    assert isinstance(ended, TaskEnded)
    assert not children._ready
    assert not is_alive(started[1])


def test_one_that_died_before_it_was_needed_is_a_killed_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HERE))
    with children.started_ahead(1, module="no.such.module"), WorkerPool(1) as pool:
        os.kill(pids(pool)[0], 9)
        pool.submit(task("a", "count", rows=1))
        (ended,) = pool.events()
        assert (ended.status, ended.is_killed) == ("crashed", True)  # and is tried again, as any that was killed
        pool.submit(task("b", "count", rows=1))
        assert [event.status for event in pool.events() if isinstance(event, TaskEnded)] == ["ok"]
