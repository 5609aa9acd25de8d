"""Times of frames as FFmpeg gives them: the best of two clocks, and what becomes of time that jumps or goes back."""

from __future__ import annotations

import pytest

from reelwright.stages.decode.readers.timeline import Timeline

TICK = 0.01  # seconds; frames at 25 frames/s are 4 ticks apart


def ticks(container: str, times: list[tuple[int | None, int | None]], codec: str = "h264") -> Timeline:
    timeline = Timeline(container, codec, tick_seconds=TICK, step=4)
    for pts, dts in times:
        timeline.add(pts, dts)
    return timeline


@pytest.mark.parametrize(
    ("container", "times", "expected"),
    [
        pytest.param("matroska,webm", [(0, 0), (4, 4), (8, None)], [0, 4, 8], id="its-own"),
        pytest.param("avi", [(4, 8), (16, 12), (12, 16)], [8, 12, 16], id="avi-makes-pts-up"),
        pytest.param("avi", [(4, 8), (16, 12), (12, None)], [8, 12, 16], id="the-last-have-none"),
        pytest.param("h264", [(None, None)] * 3, [0, 4, 8], id="raw-has-none"),
        pytest.param("mpeg", [(20, None), (24, None), (None, None)], [20, 24, 28], id="ps-without-dts"),
        pytest.param("mov", [(0, 0), (12, 4), (4, 8), (8, 12), (16, 16)], [0, 12, 12, 12, 16], id="a-little-back"),
        pytest.param("mov", [(0, None), (0, None), (4, None)], [0, 0, 4], id="a-time-shared"),
        pytest.param(
            "mpegts", [(500, 500), (504, 504), (100, 100), (104, 104)], [500, 504, 508, 512], id="joined-back"
        ),
        pytest.param("mpegts", [(0, 0), (4, 4), (360_008, 360_008)], [0, 4, 8], id="joined-ahead"),
        pytest.param("matroska,webm", [(0, 0), (4, 4), (360_008, 360_008)], [0, 4, 360_008], id="a-long-picture"),
    ],
)
def test_times(container: str, times: list[tuple[int | None, int | None]], expected: list[int]) -> None:
    assert ticks(container, times).ticks == expected


def test_what_is_said() -> None:
    (said,) = ticks("mpegts", [(0, 0), (4, 4), (360_008, 360_008), (360_012, 360_012)]).notes()
    assert said.startswith("time jumps by +3600.040 s at frame 2: ")
    (said,) = ticks("mov", [(0, 0), (12, 4), (4, 8), (8, 12), (16, 16)]).notes()
    assert said.endswith("(frames: 1)")
    assert ticks("mov", [(0, 0), (4, 4)]).notes() == ()


def test_only_plain_times_may_be_sought() -> None:
    assert ticks("mpegts", [(0, 0), (4, 4), (8, 8)]).is_plain
    for times in ([(0, 0), (None, None)], [(900, 900), (4, 4)], [(0, 0), (8, 8), (4, 4)]):
        assert not ticks("mpegts", times).is_plain
