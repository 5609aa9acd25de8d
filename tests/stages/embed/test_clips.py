"""Which frames make a row, however they come."""

import itertools

import numpy as np
import pytest

from reelwright.stages.embed.clips import Clip, FrameSpans, RowMaker


@pytest.mark.parametrize(
    ("clip", "num_frames", "expected"),
    [
        (Clip(), 4, 4),
        (Clip(), 0, 0),
        (Clip(length=3, stride=2, skip=1), 9, 3),
        (Clip(length=3, stride=2, skip=1), 8, 2),
        (Clip(length=3, stride=2, skip=1), 5, 1),
        (Clip(length=3, stride=2, skip=1), 4, 1),
        (Clip(length=2, stride=5), 12, 3),
    ],
    ids=["frames", "empty", "drawn", "one-less", "just-one", "shorter-than-a-clip", "gaps"],
)
def test_number_of_rows(clip, num_frames, expected):
    assert clip.num_rows(num_frames) == expected


def plain(clip, num_frames):
    """Frame numbers of every row, told the simple way."""
    return [
        [min(row * clip.stride + step * (clip.skip + 1), num_frames - 1) for step in range(clip.length)]
        for row in range(clip.num_rows(num_frames))
    ]


@pytest.mark.parametrize("chunk", [1, 3, 50], ids=lambda rows: f"chunks-of-{rows}")
@pytest.mark.parametrize("start_row", [0, 1, 2], ids=lambda row: f"from-row-{row}")
def test_rows_do_not_depend_on_chunks(chunk, start_row):
    for num_frames, length, stride, skip in itertools.product([1, 2, 7, 23], [1, 3], [1, 2, 5], [0, 1]):
        clip = Clip(length=length, stride=stride, skip=skip)
        if start_row >= max(1, clip.num_rows(num_frames)):
            continue
        frames = np.arange(num_frames, dtype=np.uint8)[:, None, None, None].repeat(3, 3)
        spans = FrameSpans(np.arange(num_frames) / 5, np.arange(num_frames) / 5 + 0.04, np.arange(num_frames) * 6)
        maker = RowMaker(clip, start_row=start_row, rows_at_once=2)
        parts = []
        for begin in range(clip.first_frame(start_row), num_frames, chunk):
            cut = slice(begin, begin + chunk)
            parts += maker.add(
                frames[cut], FrameSpans(spans.start_seconds[cut], spans.stop_seconds[cut], spans.source_frame[cut])
            )
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
    maker = RowMaker(Clip(length=4, stride=2))
    for begin in range(0, 100, 5):
        times = np.arange(begin, begin + 5, dtype=float)
        list(maker.add(np.zeros((5, 1, 1, 3), np.uint8), FrameSpans(times, times + 1, times.astype(np.int64))))
        assert maker._frames is not None
        assert len(maker._frames) < 4
