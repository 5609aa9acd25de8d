"""Lines of progress, where there is no terminal: how many, how quick, how long yet."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from reelwright.cli import progress
from reelwright.cli.format import failure_table
from reelwright.cli.progress import NodeReporter
from reelwright.pipeline.run.results import Failure
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


def test_failures_that_are_alike_are_one_line() -> None:
    def failed(name: str, message: str, node: str = "embed") -> Failure:
        row = ItemRow(digest=name, status="failed", cause="not_a_video", message=message)
        return Failure(node=node, video_ids=(name,), row=row)

    same = [failed(f"clips/v{number}", f"/data/clips/v{number}.mp4 is no video") for number in range(5)]
    others = [failed("w", "w.mp4 is no video"), failed("x", "x.mp4 is empty"), failed("y", "y.mp4 is empty", "videos")]
    lines = failure_table([*same, *others]).splitlines()[2:]
    assert lines[0].startswith("clips/v0, clips/v1, clips/v2 and 3 more  embed")
    assert lines[0].endswith("/data/clips/v0.mp4 is no video")
    assert [line.split()[:2] for line in lines[1:]] == [["x", "embed"], ["y", "videos"]]
    short = [failed("1", "frame 10 of 100 is damaged"), failed("2", "frame 20 of 220 is damaged")]
    assert len(failure_table(short).splitlines()[2:]) == 2  # neither message names its video
    many = failure_table([failed(f"v{number}", f"cause {number} of {number}") for number in range(30)])
    assert many.splitlines()[-1] == "... and 10 more (--json shows all)"
