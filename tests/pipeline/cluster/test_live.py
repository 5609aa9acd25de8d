"""How far a node is, as another process sees it; the checks of doctor on a real folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from reelwright.cli.planning import progress_text
from reelwright.pipeline.cluster import live
from reelwright.pipeline.cluster.live import Progress, read_progress, telling
from reelwright.pipeline.doctor import BAD, GOOD, examine_store
from reelwright.stages.work import SilentReporter
from reelwright.storage.items import ItemLedger, ItemRow
from reelwright.storage.store import Store


def test_a_node_tells_how_far_it_is_while_it_is_done_and_leaves_nothing(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(live, "_SECONDS_BETWEEN", 0.0)
    store, inner = Store.at(tmp_path), SilentReporter()
    with telling(inner, store, key="k", node="embed", videos=10) as reporter:
        for number, status in enumerate(("ok", "ok", "failed")):
            reporter.item(ItemRow(digest=str(number), status=status))
        reporter.running(4)
        found = read_progress(store, "k")
        assert found is not None
        assert (found.done, found.failed, found.running, found.waiting) == (2, 1, 4, 3)
    assert len(inner.rows) == 3
    assert read_progress(store, "k") is None


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        (
            Progress(node="embed", videos=100, done=18, failed=2, running=8, seconds=10.0),
            "18 done, 8 running, 2 failed, 72 waiting; 2.0 videos/s, 40.0 s left",
        ),
        (Progress(node="embed", videos=4, seconds=1.0), "0 done, 0 failed, 4 waiting; 0 videos/s"),
        (
            Progress(node="train", videos=0, amount=50, total=200, unit="windows", seconds=5.0),
            "50 of 200 windows; 10 windows/s, 15.0 s left",
        ),
    ],
    ids=["workers", "nothing yet", "training"],
)
def test_progress_as_status_prints_it(progress: Progress, text: str) -> None:
    assert progress_text(progress) == text


def test_doctor_checks_a_store_and_leaves_nothing(tmp_path: Path) -> None:
    checks = list(examine_store(Store.at(tmp_path / "store")))
    assert [check.what for check in checks] == ["store", "latency", "rename", "locks", "clock"]
    assert {check.state for check in checks if check.what != "store"} == {GOOD}
    assert list((tmp_path / "store").iterdir()) == []


def test_doctor_names_a_store_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (check,) = examine_store(Store.at(tmp_path / "file" / "store"))
    assert check.state == BAD
    assert "Make it writable" in check.advice


def test_folding_takes_what_is_told_and_leaves_the_marks_of_others(tmp_path: Path) -> None:
    ledger = ItemLedger(tmp_path)
    rows = [ItemRow(digest=digest, status="ok", rows=1) for digest in "abc"]
    for row in rows:
        ledger.commit(row)
    ledger.fold(rows[:2])
    assert [path.stem for path in (tmp_path / "items").iterdir()] == ["c"]
    ledger.fold([ItemRow(digest="b", status="failed"), rows[2]])
    assert {digest: (row.status, row.rows) for digest, row in ledger.load().items()} == {
        "a": ("ok", 1),
        "b": ("failed", 0),
        "c": ("ok", 1),
    }
    assert ItemLedger(tmp_path, is_shared=True).compact() is None
