"""Lines of progress, where there is no terminal: how many, how quick, how long yet."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from reelwright.cli import progress
from reelwright.cli.progress import NodeReporter
from reelwright.stages.base.work import VideoItem
from reelwright.storage.ledger.items import ItemRow


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def lines(reporter: NodeReporter, out: io.StringIO) -> list[str]:
    reporter.close()
    return out.getvalue().splitlines()


def test_what_an_earlier_run_did_is_counted_but_not_as_speed(clock: list[float]) -> None:
    out = io.StringIO()
    reporter = NodeReporter("train", Console(file=out, width=200))
    clock[0] = 5.0  # loading
    reporter.total(160, "windows", 150)
    clock[0] = 16.0
    reporter.advance(5)
    assert lines(reporter, out) == ["train: 155 of 160 windows, 0.45/s, 11.0 s left"]


def test_videos_that_are_not_opened_yet_count(clock: list[float]) -> None:
    """A stage may say how many frames the opened videos have; two of forty here."""
    out = io.StringIO()
    items = [VideoItem(str(number), "", "", 10.0) for number in range(40)]
    reporter = NodeReporter("frames", Console(file=out, width=200), items)
    reporter.total(200, "frames")
    clock[0] = 11.0
    reporter.advance(150)
    reporter.item(ItemRow(digest="0", status="ok", rows=100))
    clock[0] = 22.0
    reporter.advance(50)
    assert lines(reporter, out) == [
        "frames: 150 of 200 frames, 14/s",
        "frames: 200 of 200 frames, 9.1/s, 6 min 58 s left",
    ]
