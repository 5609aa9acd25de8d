"""Views of frames are those of rows, and every view has transforms of its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reelwright.stages.datasets.sampling.settings import ViewSettings
from reelwright.stages.datasets.sampling.two_views import ViewSampler
from reelwright.stages.finetune.clips import ClipReading, FrameViewBatches

COUNTS = [20, 5, 0, 31]


def read(video, rows):
    """Frames of 2 by 3 pixels whose three values are the video, the row, and 0."""
    frames = np.zeros((len(rows), 2, 3, 3), np.uint8)
    frames[..., 0], frames[..., 1] = video, rows[:, None, None]
    return frames


def plain(video, rows):
    """The same frames as validation sees them, marked by 7."""
    frames = read(video, rows)
    frames[..., 2] = 7
    return frames


def source(*, num_contexts=1, transforms=(), draws=True):
    sampler = ViewSampler(
        strategy="time_augment", views=ViewSettings(length=6, context_stride=4), num_contexts=num_contexts, seed=9
    )
    reading = ClipReading(train=read, val=plain, transforms=transforms)
    return FrameViewBatches(sampler=sampler, batch_size=2, reading=reading, num_frames=COUNTS, draws=draws)


@pytest.mark.parametrize("num_contexts", [1, 2])
def test_frames_are_those_of_the_rows(num_contexts):
    batches = source(num_contexts=num_contexts)
    found = list(batches.epoch(1))
    assert len(found) == batches.num_batches == 2
    videos = []
    for batch in found:
        frames, numbers = batch.inputs["frames"], batch.inputs["row_numbers"]
        assert frames.shape == (len(batch), 6 * num_contexts, 2, 3, 3)
        assert frames.dtype == torch.uint8
        frames = frames.reshape(len(batch), 6, num_contexts, 2, 3, 3)
        assert (frames[:, :, -1, 0, 0, 1] == numbers).all()
        assert (frames[:, :, 0, 1, 2, 1] == (numbers - 4 * (num_contexts - 1)).clamp(min=0)).all()
        video = frames[:, 0, 0, 0, 0, 0].tolist()
        assert batch.inputs["num_rows"].tolist() == [COUNTS[each] for each in video]
        videos += video
    assert sorted(videos) == [0, 0, 1, 1, 3, 3]
    assert videos[::2] == videos[1::2]


def test_transforms_are_drawn_once_a_view_and_again_the_same():
    def marked(clip, epoch, place):
        clip[..., 2] = 10 * epoch + place
        return clip

    whole = [batch.inputs["frames"] for batch in source(transforms=(marked,)).epoch(2)]
    marks = torch.cat(whole)[..., 2]
    assert (marks == marks[:, :1, :1, :1]).all()
    assert marks[:, 0, 0, 0].tolist() == [20 + place for place in range(6)]
    (last,) = (batch.inputs["frames"] for batch in source(transforms=(marked,)).epoch(2, first=1))
    assert torch.equal(last, whole[1])


def test_validation_and_whole_videos_see_frames_without_anything_drawn():
    batches = source(transforms=(lambda clip, _epoch, _place: clip + 1,), draws=False)
    seen = [batch.inputs["frames"] for batch in batches.epoch(0)]
    assert (torch.cat(seen)[..., 2] == 7).all()
    whole = batches.whole(3, most=100)["frames"]
    assert whole[0, :, 0, 0].tolist() == [[3, row, 7] for row in range(31)]
