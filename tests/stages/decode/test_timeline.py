"""Times of frames as FFmpeg gives them: the best of two clocks, and what becomes of time that jumps or goes back."""

from __future__ import annotations

import pytest

from reelwright.stages.decode.timing.timeline import Timeline

TICK = 0.01  # seconds; frames at 25 frames/s are 4 ticks apart


def ticks(times: list[tuple[int | None, int | None]]) -> Timeline:
    timeline = Timeline(tick_seconds=TICK, step=4)
    for pts, dts in times:
        timeline.add(pts, dts)
    return timeline


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        pytest.param([(0, 0), (4, 4), (8, None)], [0, 4, 8], id="its-own"),
        pytest.param([(None, 8), (None, 12), (None, None)], [8, 12, 16], id="avi-has-none"),
        pytest.param([(None, None)] * 3, [0, 4, 8], id="raw-has-none"),
        pytest.param([(20, None), (24, None), (None, None)], [20, 24, 28], id="ps-without-dts"),
        pytest.param([(0, 0), (12, 4), (4, 8), (8, 12), (16, 16)], [0, 12, 12, 12, 16], id="a-little-back"),
        pytest.param([(0, None), (0, None), (4, None)], [0, 0, 4], id="a-time-shared"),
        pytest.param([(500, 500), (504, 504), (100, 100), (104, 104)], [500, 504, 508, 512], id="joined-back"),
        pytest.param([(0, 0), (4, 4), (360_008, 360_008)], [0, 4, 360_008], id="a-long-picture"),
    ],
)
def test_times(times: list[tuple[int | None, int | None]], expected: list[int]) -> None:
    assert ticks(times).ticks == expected


def test_what_is_said() -> None:
    (said,) = ticks([(500, 500), (504, 504), (100, 100), (104, 104)]).notes()
    assert said.startswith("time jumps by -4.040 s at frame 2: ")
    (said,) = ticks([(0, 0), (12, 4), (4, 8), (8, 12), (16, 16)]).notes()
    assert said.endswith("(frames: 1)")
    assert ticks([(0, 0), (4, 4)]).notes() == ()


def test_only_plain_times_may_be_sought() -> None:
    assert ticks([(0, 0), (4, 4), (8, 8)]).is_plain
    for times in ([(0, 0), (None, None)], [(900, 900), (4, 4)], [(0, 0), (8, 8), (4, 4)]):
        assert not ticks(times).is_plain
