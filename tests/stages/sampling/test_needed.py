"""Which frames the clips of a test need, which rows come of them, and views that show the same."""

from __future__ import annotations

import numpy as np
import pytest

from reelwright.stages.datasets.sampling.clips import ClipSampling, distinct, repeats_of
from reelwright.stages.datasets.sampling.needed import Needed
from reelwright.stages.datasets.sampling.windows import Windows, WindowShape
from reelwright.stages.embed.clips import Clip, ClipAssembler, NeededRowMaker
from reelwright.storage.arrays.spans import RowTimes

SEGMENTS = ClipSampling(kind="segments", shape=WindowShape(length=3))
DENSE = ClipSampling(kind="dense", shape=WindowShape(length=2, dilation=2))

CLIP = WindowShape(length=3, hop=2, short="repeat")

CASES = {
    # tick 4, middles at 2 6 10
    "a frame in each of three segments": (Needed(clips=SEGMENTS), 12, [2, 6, 10], [2, 6, 10]),
    # shifts 1/4 and 3/4: 1 5 9 and 3 7 11
    "two views": (Needed(clips=SEGMENTS, num_views=2), 12, [1, 3, 5, 7, 9, 11], [1, 3, 5, 7, 9, 11]),
    # tick 2/3: int of 1/3 1 5/3 are 0 1 1
    "two frames for three segments": (Needed(clips=SEGMENTS), 2, [0, 1], [0, 1]),
    # the grid of every second row has 4, so places 0 to 2: views at rows 0 and 4
    "dense": (Needed(clips=DENSE, num_views=2), 8, [0, 2, 4, 6], [0, 2, 4, 6]),
    # 11 frames are 5 rows of 3, two apart: middles int(5/3 * (i + 1/2)) = 0 2 4
    "rows of a video encoder": (
        Needed(clips=SEGMENTS, row=CLIP), 11, [0, 2, 4], [0, 1, 2, 4, 5, 6, 8, 9, 10],
    ),
    "shorter than a row": (Needed(clips=SEGMENTS, row=CLIP), 2, [0], [0, 1]),
    "too short for any clip": (
        Needed(clips=ClipSampling(kind="dense", shape=WindowShape(length=9, short="leave_out"))), 4, [0], [0],
    ),
    "no frame": (Needed(clips=SEGMENTS), 0, [], []),
}  # fmt: skip


def _clip(needed):
    return Clip(**vars(needed.row))


@pytest.mark.parametrize(("needed", "num_frames", "rows", "frames"), CASES.values(), ids=CASES)
def test_rows_and_frames(needed, num_frames, rows, frames):
    assert needed.rows(num_frames).tolist() == rows
    assert needed.frames(num_frames).tolist() == frames
    assert Needed.from_plain(needed.to_plain()) == needed
    assert needed.num_rows(num_frames) == _clip(needed).num_rows(num_frames)


def _frames(numbers):
    numbers = np.asarray(numbers, dtype=np.int64)
    frames = numbers.astype(np.uint8)[:, None, None, None].repeat(3, 3)
    return frames, RowTimes(source_frame=numbers * 6, pts_seconds=numbers / 5, stop_seconds=numbers / 5 + 0.04)


@pytest.mark.parametrize("chunk", [1, 2, 50])
@pytest.mark.parametrize("num_frames", [1, 2, 5, 23, 60])
@pytest.mark.parametrize("extent", [(1, 1, 1), (3, 2, 1), (4, 1, 2), (2, 7, 1)], ids=str)
@pytest.mark.parametrize(("to_end", "short"), [(False, "repeat"), (True, "pad")])
def test_needed_rows_are_those_of_all_frames(extent, num_frames, chunk, to_end, short):
    length, hop, dilation = extent
    row = WindowShape(length=length, hop=hop, dilation=dilation, to_end=to_end, short=short)
    needed = Needed(clips=SEGMENTS, num_views=2, row=row)
    whole = ClipAssembler(_clip(needed))
    every = [*whole.add(*_frames(np.arange(num_frames))), *whole.close()]
    maker, parts, wanted = NeededRowMaker(needed, num_frames=num_frames, rows_at_once=2), [], needed.frames(num_frames)
    for start in range(0, len(wanted), chunk):
        parts += maker.add(*_frames(wanted[start : start + chunk]))
    parts += maker.close()
    rows = needed.rows(num_frames)
    assert maker.num_rows == maker.num_planned == len(rows)
    shape = (-1, length)
    of_all = np.concatenate([part.frames[..., 0].reshape(shape) for part in every])[rows]
    assert np.array_equal(np.concatenate([part.frames[..., 0].reshape(shape) for part in parts]), of_all)
    for name in ("start_seconds", "stop_seconds", "source_start", "source_stop"):
        of_all = np.concatenate([getattr(part.spans, name) for part in every])[rows]
        assert np.array_equal(np.concatenate([getattr(part.spans, name) for part in parts]), of_all)


def test_windows_that_show_the_same_are_one():
    """Of video 0 rows 1 and 2 show one frame; padding is no second row; another video is another."""
    windows = Windows(
        video=np.array([0, 0, 0, 0, 1]),
        start=np.array([0, 0, 0, 1, 0]),
        count=np.array([2, 2, 1, 2, 2]),
        rows=np.array([[0, 1], [0, 2], [0, 0], [1, 3], [0, 1]]),
    )
    shown = [repeats_of(np.array([0, 5, 5, 7]), np.array([1, 6, 6, 8])), np.arange(4)]
    assert shown[0].tolist() == [0, 1, 1, 2]
    kept = distinct(windows, WindowShape(length=2), shown)
    assert kept.video.tolist() == [0, 0, 0, 1]
    assert kept.rows.tolist() == [[0, 1], [0, 0], [1, 3], [0, 1]]
    assert kept.count.tolist() == [2, 1, 2, 2]
