"""Window arithmetic. The cases named psr come from STORM-PSR's video_dataset_action_label.py (commit 71261dc), run on
recordings of so many frames with temporal windows of T rows, skip_factor s; its windows start s + 1 rows apart."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reelwright.stages.datasets.sampling.left_out import LeftOut
from reelwright.stages.datasets.sampling.windows import (
    WindowShape,
    grid_starts,
    grid_windows,
    shown,
    window_rows,
)

from .brute_force import GRIDS, clips_of, reached

# num_rows, length, skip -> number of windows, first last-rows, final last-rows
PSR = {
    "20 T5 s0": (20, 5, 0, 16, [4, 5, 6, 7], [18, 19]),
    "20 T5 s1": (20, 5, 1, 6, [8, 10, 12, 14], [16, 18]),
    "16 T5 s3": (16, 5, 3, 0, [], []),
    "17 T5 s3": (17, 5, 3, 1, [16], [16]),
    "300 T65 s3": (300, 65, 3, 11, [256, 260, 264, 268], [292, 296]),
    "257 T65 s3": (257, 65, 3, 1, [256], [256]),
    "64 T65 s0": (64, 65, 0, 0, [], []),
    "65 T65 s0": (65, 65, 0, 1, [64], [64]),
}


@pytest.mark.parametrize(("num_rows", "length", "skip", "count", "head", "tail"), PSR.values(), ids=PSR)
def test_psr_windows(num_rows, length, skip, count, head, tail):
    shape = WindowShape(length=length, dilation=skip + 1, hop=skip + 1, short="leave_out")
    last = grid_windows([num_rows], shape).last_row(shape).tolist()
    assert len(last) == count
    assert last[: len(head)] == head
    assert last[len(last) - len(tail) :] == tail


def test_psr_rows():
    shape = WindowShape(length=5, dilation=4, hop=4, short="leave_out")
    rows, mask = window_rows(grid_windows([60], shape), shape)
    assert rows.tolist() == [[start, start + 4, start + 8, start + 12, start + 16] for start in range(0, 44, 4)]
    assert mask.all()


SHORT = {
    # num_rows, length, skip -> rows, mask
    "drawn example": (4, 3, 1, [0, 2, 2], [True, True, False]),
    "one row": (1, 3, 0, [0, 0, 0], [True, False, False]),
    "one row short": (4, 5, 0, [0, 1, 2, 3, 3], [True, True, True, True, False]),
    "last gap cut": (6, 3, 2, [0, 3, 3], [True, True, False]),
    "just whole": (7, 3, 2, [0, 3, 6], [True, True, True]),
}


@pytest.mark.parametrize(("num_rows", "length", "skip", "rows", "mask"), SHORT.values(), ids=SHORT)
def test_padding_comes_after_real_rows(num_rows, length, skip, rows, mask):
    shape = WindowShape(length=length, dilation=skip + 1)
    windows = grid_windows([num_rows], shape)
    found_rows, found_mask = window_rows(windows, shape)
    assert found_rows.tolist() == [rows]
    assert found_mask.tolist() == [mask]
    assert windows.last_row(shape).tolist() == [max(row for row, real in zip(rows, mask, strict=True) if real)]


@pytest.mark.parametrize(
    ("num_rows", "pad", "starts"),
    [(5, True, [0]), (5, False, [0]), (4, True, [0]), (4, False, []), (0, True, []), (9, False, [0, 2, 4])],
)
def test_starts_of_length_5_hop_2(num_rows, pad, starts):
    assert grid_starts(num_rows, WindowShape(length=5, hop=2, short="pad" if pad else "leave_out")).tolist() == starts


def test_windows_of_several_videos():
    windows = grid_windows([5, 2, 0, 4], WindowShape(length=3, hop=2))
    assert windows.video.tolist() == [0, 0, 1, 3]
    assert windows.start.tolist() == [0, 2, 0, 0]
    assert windows.count.tolist() == [3, 3, 2, 3]


def test_no_window_ever_leaves_its_video():
    generator = np.random.default_rng(0)
    for num_rows, length, dilation, hop in generator.integers([1, 1, 1, 1], [40, 12, 5, 6], (300, 4)):
        shape = WindowShape(length=int(length), dilation=int(dilation), hop=int(hop))
        windows = grid_windows([int(num_rows)], shape)
        rows, mask = window_rows(windows, shape)
        assert len(windows) >= 1
        assert rows.max() < num_rows
        assert mask.sum(axis=1).tolist() == windows.count.tolist()
        assert mask.all() or len(windows) == 1


@pytest.mark.parametrize(
    ("num_rows", "to_end", "starts"),
    [
        (11, False, [0, 3, 6]),
        (10, True, [0, 3, 6]),
        (11, True, [0, 3, 6, 7]),
        (4, True, [0]),
        (2, True, [0]),
    ],
    ids=["not wanted", "on the grid anyway", "off the grid", "just one", "padded"],
)
def test_a_last_window_that_reaches_the_end(num_rows, to_end, starts):
    assert grid_starts(num_rows, WindowShape(length=4, hop=3, to_end=to_end)).tolist() == starts


@given(num_rows=st.integers(0, 60), grid=GRIDS)
def test_windows_are_those_of_the_simple_rule(num_rows, grid):
    shape = WindowShape(**grid)
    wanted = clips_of(num_rows, grid)
    windows = grid_windows([num_rows], shape)
    rows, mask = window_rows(windows, shape)
    assert shape.num_windows(num_rows) == len(windows) == len(wanted)
    assert [row[real].tolist() for row, real in zip(rows, mask, strict=True)] == wanted
    assert windows.last_row(shape).tolist() == [clip[-1] for clip in wanted]
    assert windows.count.tolist() == [len(clip) for clip in wanted]
    assert (np.where(mask, -1, rows) == np.where(mask, -1, windows.last_row(shape)[:, None])).all()
    assert shown(mask, shape).all() or grid["short"] == "pad"


@given(num_rows=st.integers(0, 60), grid=GRIDS)
def test_rows_that_are_left_out_are_counted(num_rows, grid):
    shape = WindowShape(**grid)
    assert shape.num_left_out(num_rows) == num_rows - len(reached(num_rows, grid))
    if grid["to_end"] and grid["hop"] <= shape.span_rows and (num_rows >= shape.span_rows or shape.short == "pad"):
        assert shape.num_left_out(num_rows) == 0


@given(videos=st.lists(st.integers(0, 30), max_size=5), grid=GRIDS)
def test_windows_of_several_videos_are_those_of_each(videos, grid):
    shape = WindowShape(**grid)
    windows = grid_windows(videos, shape)
    rows, mask = window_rows(windows, shape)
    found = [(int(video), row[real].tolist()) for video, row, real in zip(windows.video, rows, mask, strict=True)]
    assert found == [(video, clip) for video, num_rows in enumerate(videos) for clip in clips_of(num_rows, grid)]
    backwards = windows.take(np.arange(len(windows))[::-1])
    assert np.array_equal(window_rows(backwards, shape)[0], rows[::-1])


def test_what_is_left_out_is_said_with_the_way_out():
    gaps = LeftOut(shape=WindowShape(length=4, hop=6), block="clip", rows="frames", fate="are in no clip")
    assert gaps.add("one", num_left=0, num_rows=4) == ""
    assert list(gaps.warnings()) == []
    way_out = "clip.to_end: true and clip.hop: 4 or less takes them in"
    assert gaps.add("two", num_left=3, num_rows=11) == f"3 of 11 frames are in no clip; {way_out}"
    for name in ("three", "four", "five"):
        gaps.add(name, num_left=500, num_rows=1000)
    message = gaps.add_short("six", num_rows=2)
    assert message == "2 frames are fewer than the 4 of a clip; set clip.short: pad or repeat"
    assert list(gaps.warnings()) == [
        (
            "warning: 1,503 of 3,011 frames of 4 video(s) are in no clip: two (3 of 11), three (500 of 1,000), "
            f"four (500 of 1,000) and 1 more; {way_out}"
        ),
        (
            "warning: 1 video(s) have fewer frames than the 4 of a clip and are left out: six (2); "
            "clip.short: pad or repeat takes them in"
        ),
    ]
