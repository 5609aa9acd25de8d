"""Which source frames a configuration asks for: tables, worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reelwright.stages.decode.config import DecodeConfig
from reelwright.stages.decode.sampling import RowPicker, plan_rows
from reelwright.storage.errors import ItemError

REGULAR = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]  # ends at 1.0
UNEVEN = [5.0, 5.1, 5.5, 5.6, 6.0]  # ends at 6.5, does not begin at 0


@pytest.mark.parametrize(
    ("pts", "end", "settings", "rows"),
    [
        pytest.param(REGULAR, 1.0, {}, list(range(10)), id="every-frame"),
        pytest.param(REGULAR, 1.0, {"stride": 4}, [0, 4, 8], id="stride"),
        pytest.param(REGULAR, 1.0, {"fps": 5}, [0, 2, 4, 6, 8], id="half-the-rate"),
        pytest.param(REGULAR, 1.0, {"fps": 10}, list(range(10)), id="own-rate-takes-each-once"),
        pytest.param(REGULAR, 1.0, {"fps": 3}, [0, 3, 6], id="third-0.667-shows-frame-6"),
        pytest.param(REGULAR, 1.0, {"fps": 0.5}, [0], id="slower-than-the-video-is-long"),
        pytest.param([0.0, 0.1], 0.2, {"fps": 20}, [0, 0, 1, 1], id="faster-repeats"),
        pytest.param(UNEVEN, 6.5, {"fps": 10}, [0, 1, 1, 1, 1, 2, 3, 3, 3, 3, 4, 4, 4, 4, 4], id="uneven"),
        pytest.param(UNEVEN, 6.5, {"fps": 2}, [0, 2, 4], id="uneven-slow"),
        pytest.param(UNEVEN, 6.5, {"start": 5.1, "stop": 6.0}, [1, 2, 3], id="range-is-half-open"),
        pytest.param(UNEVEN, 6.5, {"start": 5.05, "stop": 5.75, "fps": 5}, [1, 1, 2, 3], id="grid-begins-in-the-range"),
        pytest.param(REGULAR, 1.0, {"start": 0.25, "stride": 3}, [3, 6, 9], id="stride-in-range"),
        pytest.param(UNEVEN, 6.5, {"times": (5.0, 5.49, 5.5, 6.49)}, [0, 1, 2, 4], id="times"),
        pytest.param([0.0, 0.0333333], 0.0666667, {"fps": 30}, [0, 1], id="rounded-time-base"),
        pytest.param([0.3], 0.3, {"fps": 4}, [0], id="one-frame-without-duration"),
    ],
)
def test_rows(pts: list[float], end: float, settings: dict, rows: list[int]) -> None:
    found = plan_rows(np.asarray(pts), DecodeConfig(**settings), end_seconds=end)
    assert found.tolist() == rows
    assert found.dtype == np.int64


@pytest.mark.parametrize(
    ("pts", "settings", "cause", "match"),
    [
        pytest.param([], {}, "no_frames", "no frames", id="empty"),
        pytest.param(REGULAR, {"start": 2.0}, "no_frames_in_range", r"\[start 2.0, stop None\)", id="behind"),
        pytest.param(UNEVEN, {"stop": 5.0}, "no_frames_in_range", "lie in", id="before"),
        pytest.param(REGULAR, {"times": (0.5, 1.0)}, "time_outside", "time 1 s is outside", id="at-the-end"),
        pytest.param(UNEVEN, {"times": (4.9,)}, "time_outside", r"time 4.9 s .* \[5, ", id="before-the-first"),
        pytest.param(REGULAR, {"times": (0.1,), "start": 0.2}, "time_outside", "time 0.1 s", id="outside-the-range"),
    ],
)
def test_refused(pts: list[float], settings: dict, cause: str, match: str) -> None:
    with pytest.raises(ItemError, match=match) as caught:
        plan_rows(np.asarray(pts), DecodeConfig(**settings), end_seconds=pts[-1] + 0.1 if pts else 0.0)
    assert caught.value.cause == cause


@given(
    gaps=st.lists(st.sampled_from([0.0, 0.02, 0.04, 1 / 30, 0.5, 3.0]), min_size=0, max_size=30),
    last=st.sampled_from([0.0, 0.04, 1.0]),
    begin=st.sampled_from([0.0, 1.4, 3600.0]),
    how=st.sampled_from(
        [
            {},
            {"fps": 1.0},
            {"fps": 7.0},
            {"fps": 30.0},
            {"stride": 3},
            {"times": (0.1, 0.3, 0.9)},
            {"times": (1.5, 1.6)},
        ]
    ),
    start=st.sampled_from([None, 0.06, 1.45]),
    stop=st.sampled_from([None, 1.5, 2.0, 3601.0]),
)
def test_rows_picked_on_the_way_are_those_planned(
    gaps: list[float], last: float, begin: float, how: dict[str, Any], start: float | None, stop: float | None
) -> None:
    pts = begin + np.concatenate([[0.0], np.cumsum(gaps)])
    end = float(pts[-1]) + last
    config = DecodeConfig(**how, start=start, stop=stop)
    try:
        planned: list[int] | str = plan_rows(pts, config, end_seconds=end).tolist()
    except ItemError as error:
        planned = error.cause
    assert picked(pts, end, config) == planned


def picked(pts: np.ndarray, end: float, config: DecodeConfig) -> list[int] | str:
    picker, rows = RowPicker(config), []
    stops = [*pts[1:].tolist(), end]
    try:
        for number, (shown, gone) in enumerate(zip(pts.tolist(), stops, strict=True)):
            rows += [number] * picker.rows_of(shown, gone, is_last=number == len(pts) - 1)
            if picker.is_done:
                break
        else:
            picker.close(float(pts[0]), end)
    except ItemError as error:
        return error.cause
    return rows
