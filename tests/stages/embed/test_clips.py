"""Which frames make a row, however they come."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from reelwright.stages.datasets.sampling.clips import ClipSampling
from reelwright.stages.datasets.sampling.needed import Needed
from reelwright.stages.datasets.sampling.windows import WindowShape
from reelwright.stages.embed.clips import Clip, ClipAssembler, NeededRowMaker
from reelwright.storage.arrays.spans import RowTimes
from tests.stages.sampling.brute_force import GRIDS, clips_of


@pytest.mark.parametrize(
    ("clip", "num_frames", "expected"),
    [
        (Clip(), 4, 4),
        (Clip(), 0, 0),
        (Clip(length=3, hop=2, dilation=2), 9, 3),
        (Clip(length=3, hop=2, dilation=2), 8, 2),
        (Clip(length=3, hop=2, dilation=2), 5, 1),
        (Clip(length=3, hop=2, dilation=2), 4, 1),
        (Clip(length=2, hop=5), 12, 3),
    ],
    ids=["frames", "empty", "drawn", "one-less", "just-one", "shorter-than-a-clip", "gaps"],
)
def test_number_of_rows(clip, num_frames, expected):
    assert clip.num_rows(num_frames) == expected


def times_of(numbers):
    """Five frames a second, each on screen for 0.04 s, every sixth of the video."""
    return RowTimes(source_frame=numbers * 6, pts_seconds=numbers / 5, stop_seconds=numbers / 5 + 0.04)


def plain(clip, num_frames):
    """Frame numbers of every row, told the simple way."""
    return [
        [min(row * clip.hop + step * clip.dilation, num_frames - 1) for step in range(clip.length)]
        for row in range(clip.num_rows(num_frames))
    ]


@pytest.mark.parametrize("chunk", [1, 3, 50], ids=lambda rows: f"chunks-of-{rows}")
@pytest.mark.parametrize("start_row", [0, 1, 2], ids=lambda row: f"from-row-{row}")
def test_rows_do_not_depend_on_chunks(chunk, start_row):
    for num_frames, length, hop, dilation in itertools.product([1, 2, 7, 23], [1, 3], [1, 2, 5], [1, 2]):
        clip = Clip(length=length, hop=hop, dilation=dilation)
        if start_row >= max(1, clip.num_rows(num_frames)):
            continue
        frames = np.arange(num_frames, dtype=np.uint8)[:, None, None, None].repeat(3, 3)
        times = times_of(np.arange(num_frames))
        maker = ClipAssembler(clip, start_row=start_row, rows_at_once=2)
        parts = []
        for begin in range(clip.first_frame(start_row), num_frames, chunk):
            cut = slice(begin, begin + chunk)
            parts += maker.add(frames[cut], times.take(cut))
        parts += maker.close()
        wanted = np.array(plain(clip, num_frames)[start_row:])
        assert np.array_equal(
            np.concatenate([part.frames.reshape(len(part.frames), length, 3)[..., 0] for part in parts]), wanted
        )
        assert [part.start for part in parts] == list(
            np.cumsum([start_row, *(len(part.frames) for part in parts)])[:-1]
        )
        assert np.allclose(np.concatenate([part.spans.start_seconds for part in parts]), wanted[:, 0] / 5)
        assert np.allclose(np.concatenate([part.spans.stop_seconds for part in parts]), wanted[:, -1] / 5 + 0.04)
        assert np.array_equal(np.concatenate([part.spans.source_stop for part in parts]), wanted[:, -1] * 6 + 1)
        assert maker.num_rows == clip.num_rows(num_frames)


def test_memory_is_bounded_by_a_clip_and_a_chunk():
    maker = ClipAssembler(Clip(length=4, hop=2))
    for begin in range(0, 100, 5):
        numbers = np.arange(begin, begin + 5)
        list(maker.add(np.zeros((5, 1, 1, 3), np.uint8), times_of(numbers)))
        assert maker._frames.stop - maker._frames.first < 4


def _parts(maker, first, stop, cuts):
    """What ``maker`` makes of frames [first, stop), each of its own number, cut into chunks at ``cuts``."""
    numbers = np.arange(first, stop)
    for part in np.split(numbers, sorted(cut for cut in cuts if 0 < cut < len(numbers))):
        frames = (part + 1).astype(np.uint8)[:, None, None, None].repeat(3, 3)
        yield from maker.add(frames, times_of(part))
    yield from maker.close()


def _same(parts, wanted, clip, *, start):
    """``parts`` are the rows from ``start`` on, and ``wanted`` says the real frames of each."""
    assert [part.start for part in parts] == list(np.cumsum([start, *(len(part.frames) for part in parts)]))[:-1]
    frames = [row.reshape(clip.length, 3)[:, 0].tolist() for part in parts for row in part.frames]
    fill = [(clip.length - len(real)) * [0 if clip.short == "pad" else real[-1] + 1] for real in wanted]
    assert frames == [[number + 1 for number in real] + rest for real, rest in zip(wanted, fill, strict=True)]
    spans = [row for part in parts for row in zip(*vars(part.spans).values(), strict=True)]
    assert spans == [(real[0] / 5, real[-1] / 5 + 0.04, real[0] * 6, real[-1] * 6 + 1) for real in wanted]


CUTS = st.lists(st.integers(1, 60), max_size=6)


@given(num_frames=st.integers(0, 60), grid=GRIDS, cuts=CUTS, rows_at_once=st.integers(1, 4), data=st.data())
def test_a_stream_of_unknown_length_gives_the_clips_of_the_simple_rule(num_frames, grid, cuts, rows_at_once, data):
    clip, wanted = Clip(**grid), clips_of(num_frames, grid)
    start = data.draw(st.integers(0, max(len(wanted) - 1, 0)), label="start row")
    maker = ClipAssembler(clip, start_row=start, rows_at_once=rows_at_once)
    parts = list(_parts(maker, clip.first_frame(start), num_frames, cuts))
    _same(parts, wanted[start:], clip, start=start)
    assert maker.num_rows == max(len(wanted), start) == max(clip.num_rows(num_frames), start)


@given(num_frames=st.integers(1, 60), grid=GRIDS, cuts=CUTS, data=st.data())
def test_shards_that_end_before_the_last_row_have_the_rows_of_the_whole(num_frames, grid, cuts, data):
    clip, wanted = Clip(**grid), clips_of(num_frames, grid)
    assume(len(wanted) > 1)
    start = data.draw(st.integers(0, len(wanted) - 2), label="start row")
    stop = data.draw(st.integers(start + 1, len(wanted) - 1), label="stop row")
    first, end = clip.first_frame(start), clip.stop_frame(stop)
    assert end <= num_frames
    parts = list(_parts(ClipAssembler(clip, start_row=start), first, end, cuts))
    _same(parts, wanted[start:stop], clip, start=start)


@given(num_frames=st.integers(1, 60), grid=GRIDS, cuts=CUTS, num_views=st.integers(1, 3))
def test_needed_clips_are_those_of_the_simple_rule(num_frames, grid, cuts, num_views):
    sampling = ClipSampling(kind="segments", shape=WindowShape(length=2))
    needed = Needed(clips=sampling, num_views=num_views, row=WindowShape(**grid))
    wanted, clip = clips_of(num_frames, grid), Clip(**grid)
    assume(clip.length > 1)
    maker, frames = NeededRowMaker(needed, num_frames=num_frames), needed.frames(num_frames)
    parts = []
    for part in np.split(frames, sorted(cut for cut in cuts if 0 < cut < len(frames))):
        seen = (part + 1).astype(np.uint8)[:, None, None, None].repeat(3, 3)
        parts += maker.add(seen, times_of(part))
    parts += maker.close()
    _same(parts, [wanted[row] for row in needed.rows(num_frames)], clip, start=0)


def test_memory_is_bounded_where_the_end_is_awaited():
    maker = ClipAssembler(Clip(length=4, hop=40, to_end=True))
    for begin in range(0, 200, 5):
        numbers = np.arange(begin, begin + 5)
        list(maker.add(np.zeros((5, 1, 1, 3), np.uint8), times_of(numbers)))
        assert maker._frames.stop - maker._frames.first <= 4
    (last,) = maker.close()
    assert (last.start, last.spans.start_seconds.tolist(), last.spans.stop_seconds.tolist()) == (
        5,
        [196 / 5],
        [199 / 5 + 0.04],
    )
