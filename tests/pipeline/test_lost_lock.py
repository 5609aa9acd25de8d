"""A lock that is lost in a run that Python started: the node fails with a clear word, and writes no more."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from reelwright.pipeline.plan.graph import FRESH, NodePlan
from reelwright.pipeline.project import Project, SilentObserver
from reelwright.stages.base.work import Reporter, SilentReporter
from reelwright.storage import heartbeat
from reelwright.storage.ledger.items import ItemLedger, ItemRow
from reelwright.storage.locks import locks


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is decided sooner who has the lock."""
    monkeypatch.setattr(locks, "_DECIDING_SECONDS", (0.01, 0.01, 0.01))


class _Thief(SilentReporter):
    """Takes the lock over after the first video, as another machine does that waited long enough."""

    def __init__(self, lock: Path) -> None:
        super().__init__()
        self._lock = lock

    def item(self, row: ItemRow) -> None:
        super().item(row)
        if len(self.rows) == 1:
            (self._lock / "000099.json").write_text("{}", encoding="utf-8")
            for claim in list(heartbeat._heart.claims.values()):
                claim.give_sign()  # as its thread does within seconds


class _Observer(SilentObserver):
    def __init__(self, project: Project) -> None:
        super().__init__()
        self._project = project

    def started(self, plan: NodePlan) -> Reporter:
        return _Thief(self._project.file.store.lock(plan.spec_key))


def test_a_run_from_python_ends_where_its_lock_is_lost(folder: Path) -> None:
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL  # nobody handles what was sent before
    project = Project.open(folder / "reelwright.yaml")
    key = project.planner().plan("frames").spec_key
    store = project.file.store
    result = project.run(until=["frames"], observer=_Observer(project))
    (node,) = result.nodes
    assert result.exit_code == 1
    assert node.state == "failed"
    assert "another process took this lock over" in node.message
    assert len(ItemLedger(store.node(key)).load()) == 1
    assert not list(store.root.glob("nodes/*/record.json"))
    for lost in store.lock(key).glob("*.json"):
        lost.unlink()  # who took it over is done
    again = Project.open(folder / "reelwright.yaml")
    assert again.run(until=["frames"]).exit_code == 0
    assert again.planner().plan("frames").state == FRESH


@pytest.mark.slow
def test_handlers_of_who_calls_are_left_alone(folder: Path) -> None:
    """A lock that is lost is no signal to the program that uses the library."""
    got: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: got.append(number))
    try:
        project = Project.open(folder / "reelwright.yaml")
        assert project.run(until=["frames"], observer=_Observer(project)).exit_code == 1
    finally:
        signal.signal(signal.SIGTERM, before)
    assert got == []
