"""How far a node is, as another process sees it; the checks of doctor on a real folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reelwright.cli.run.planning import progress_text
from reelwright.pipeline.executors import progress_file
from reelwright.pipeline.executors.progress_file import LiveReporter, Progress, read_progress, reporting
from reelwright.pipeline.upkeep.doctor import BAD, GOOD, examine_store
from reelwright.stages.base.work import SilentReporter, VideoItem
from reelwright.storage.ledger.items import ItemLedger, ItemRow
from reelwright.storage.store import Store


def test_a_node_tells_how_far_it_is_while_it_is_done_and_leaves_nothing(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(progress_file, "_SECONDS_BETWEEN", 0.0)
    store, inner = Store.at(tmp_path), SilentReporter()
    items = [VideoItem(str(number), "", "") for number in range(10)]
    with reporting(inner, store, key="k", node="embed", items=items) as reporter:
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


def drive(reporter: LiveReporter, clock: list[float], events: list[tuple[float, str, tuple[Any, ...]]]) -> float | None:
    """What is said at which second; returns the time left after the last of it."""
    for second, name, arguments in events:
        clock[0] = second
        getattr(reporter, name)(*arguments)
    return reporter.progress.seconds_left


def row(number: int, rows: int) -> ItemRow:
    return ItemRow(digest=str(number), status="ok", rows=rows)


LEFT: dict[str, tuple[list[float], list[tuple[float, str, tuple[Any, ...]]], float | None]] = {
    # durations of the videos, what is said when, seconds left
    "training from the start": ([], [(0, "total", (100, "windows")), (10, "advance", (20,))], 40.0),
    "training that goes on after 15 of 16 epochs": (  # 160 windows in 10 s were those of the earlier run, 0.3 s left
        [],
        [(0, "total", (160, "windows", 150)), (10, "advance", (5,))],
        10.0,
    ),
    "a job that goes on says where it starts again": (
        [],
        [
            (0, "total", (100, "windows")),
            (10, "advance", (20,)),
            (20, "total", (100, "windows", 20)),
            (20, "advance", (20,)),
        ],
        30.0,
    ),
    "loading is not counted": ([], [(60, "total", (100, "windows")), (70, "advance", (50,))], 10.0),
    "16 of 32 equal videos at work, the first just finished, all others are not opened": (
        [10.0] * 32,
        [(0, "total", (16 * 100, "frames")), (10, "advance", (16 * 100,)), (10, "item", (row(0, 100),))],
        10.0,
    ),
    "no video finished": ([10.0] * 32, [(0, "total", (200, "frames")), (10, "advance", (100,))], None),
    "one video": ([100.0], [(0, "total", (200, "frames")), (10, "advance", (50,))], 30.0),
    "a short video finished, a long one left": (
        [1.0, 99.0],
        [(0, "total", (2, "videos")), (1, "advance", (1,)), (1, "item", (row(0, 10),))],
        99.0,
    ),
    "clips of 8 frames: rows are fewer than frames": (
        [10.0, 10.0],
        [(0, "total", (200, "frames")), (10, "advance", (100,)), (10, "item", (row(0, 12),))],
        10.0,
    ),
}


@pytest.mark.parametrize(("durations", "events", "left"), LEFT.values(), ids=LEFT)
def test_time_left(tmp_path: Path, monkeypatch, durations: list[float], events: list[Any], left: float | None) -> None:
    clock = [0.0]
    monkeypatch.setattr(progress_file, "_SECONDS_BETWEEN", 0.0)
    monkeypatch.setattr(progress_file.time, "monotonic", lambda: clock[0])
    items = [VideoItem(str(number), "", "", duration) for number, duration in enumerate(durations)]
    with reporting(SilentReporter(), Store.at(tmp_path), key="k", node="n", items=items) as reporter:
        found = drive(reporter, clock, events)
    assert found == (None if left is None else pytest.approx(left))


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
