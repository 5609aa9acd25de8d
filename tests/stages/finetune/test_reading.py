"""Clips of stored frames: several are read at once, and in validation a frame is read and encoded once a batch."""

import threading
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from reelwright.models.encoders.build import build_encoder
from reelwright.stages.datasets.sampling.windows import WindowShape, grid_windows
from reelwright.stages.finetune import clips
from reelwright.stages.finetune.clips import FrameBatches, in_threads
from reelwright.stages.finetune.module import FinetuneModule

NUM_ROWS = (9, 2, 7)  # of three videos; the second is shorter than a window


def frames_of(video, rows):
    """Frame `row` of a video, 32 x 32."""
    seeds = [np.random.default_rng([video, int(row)]) for row in rows]
    return np.stack([seed.integers(0, 256, (32, 32, 3), dtype=np.uint8) for seed in seeds])


def all_batches(read, *, short="pad", **more):
    shape = WindowShape(length=4, hop=1, short=short)
    windows = grid_windows(NUM_ROWS, shape)
    made = FrameBatches(
        read=read, windows=windows, targets=np.zeros(len(windows), np.int64), shape=shape, batch_size=5, **more
    )
    return list(made.epoch(0))


def test_clips_are_made_at_once_and_come_in_order(monkeypatch):
    monkeypatch.setattr(clips, "num_cores", lambda: 2)
    meeting = threading.Barrier(2, timeout=20)

    def make(number):
        meeting.wait()  # which one thread alone would never leave
        return np.full(3, number)

    assert [int(clip[0]) for clip in in_threads(make, range(6))] == list(range(6))


def test_an_error_of_a_reader_comes_through_and_leaves_no_thread():
    before = threading.active_count()

    def read(video, rows):
        raise OSError(f"no video {video}")

    with pytest.raises(OSError, match="no video"):
        all_batches(read)
    assert threading.active_count() == before


@pytest.mark.parametrize("short", ["pad", "repeat"])
def test_in_validation_a_frame_is_read_once_a_batch_and_the_windows_are_the_same(short):
    asked = []

    def read(video, rows):
        asked.append([(video, int(row)) for row in rows])
        return frames_of(video, rows)

    plain = all_batches(frames_of, short=short)
    once = all_batches(read, short=short, is_val=True)
    assert len(plain) == len(once) > 1
    shown = [{(video, row) for video, row in part} for part in asked]
    assert sum(map(len, shown)) == sum(map(len, asked))
    assert sum(map(len, asked)) < 0.7 * sum(batch.inputs["mask"].numel() for batch in plain)
    for one, other in zip(plain, once, strict=True):
        assert "first_shown" not in one.inputs
        assert torch.equal(one.inputs["mask"], other.inputs["mask"])
        assert torch.equal(one.inputs["frames"], other.inputs["frames"])
        first = other.inputs["first_shown"]
        flat = other.inputs["frames"].flatten(0, 1)
        assert torch.equal(flat[first], other.inputs["frames"])
        assert len(first.unique()) == len(flat.flatten(1).unique(dim=0))


class Rows(nn.Module):
    """A temporal model that gives its rows back."""

    def forward(self, batch):
        return {"rows": batch["rows"], "mask": batch["mask"]}


def test_in_eval_mode_the_encoder_sees_a_frame_once_and_rows_are_the_same(monkeypatch):
    encoder = build_encoder("timm/test_resnet", seed=0)
    module = FinetuneModule(encoder, Rows(), data_config=encoder.data_config, frozen_norm=True)
    seen = []
    forward = type(encoder).forward
    monkeypatch.setattr(type(encoder), "forward", lambda self, x: seen.append(len(x)) or forward(self, x))
    batch = all_batches(partial(frames_of), is_val=True)[1].inputs  # the end of video 0, all of video 1, some of 2
    assert not batch["mask"].all()
    plain = {name: batch[name] for name in ("frames", "mask")}
    module.eval()
    with torch.inference_mode():
        found, wanted = module(batch), module(plain)
    assert torch.equal(found["mask"], wanted["mask"])
    torch.testing.assert_close(found["rows"], wanted["rows"], rtol=1e-5, atol=1e-5)
    assert wanted["rows"].abs().max() > 0.1
    assert (found["rows"][~batch["mask"]] == 0).all()
    assert seen[0] == len(batch["first_shown"][batch["mask"]].unique()) < seen[1] == int(batch["mask"].sum())
    seen.clear()
    module.training = True  # alone: what it consists of stays in eval mode
    module(batch)
    assert seen == [int(batch["mask"].sum())]
