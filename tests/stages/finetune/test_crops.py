"""Random crops are cut from frames as they are stored, and equal those of torchvision's own transform."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as pictures

from reelwright.stages.augment import resized_crop
from reelwright.stages.augment.resized_crop import CropSettings, build_crop, cropped, draw_crop, draw_scaled
from reelwright.stages.decode.geometry import Geometry, apply
from reelwright.stages.finetune import work
from reelwright.stages.finetune.clips import open_videos, reader, stored_reader
from reelwright.storage.arrays.frames import FrameStore

WIDE = Geometry(size=(24, 24), resize=26, interpolation="bicubic")


def clip(height=30, width=80, length=3):
    return np.random.default_rng(0).integers(0, 256, (length, height, width, 3), dtype=np.uint8)


def columns(height=30, width=80):
    """A frame whose pixels say in which column they are."""
    return np.broadcast_to(np.arange(width, dtype=np.uint8)[:, None], (1, height, width, 3)).copy()


def test_a_crop_equals_torchvisions_resized_crop():
    settings, frames = CropSettings(area=(0.2, 0.8), aspect=(3 / 4, 4 / 3)), clip()
    cut = cropped(frames, settings, WIDE, np.random.default_rng(5))
    top, left, tall, wide = draw_crop(settings, height=30, width=80, generator=np.random.default_rng(5))
    for frame, found in zip(frames, cut, strict=True):
        expected = pictures.resized_crop(
            Image.fromarray(frame), top, left, tall, wide, [24, 24], InterpolationMode.BICUBIC
        )
        assert np.array_equal(found, np.asarray(expected))


@pytest.mark.parametrize("aspect", [None, (0.75, 4 / 3)], ids=["encoder's shape", "aspects"])
def test_crops_reach_all_of_the_stored_frame(aspect):
    """The middle that the encoder sees in validation has columns 27 to 53 of 80."""
    seen = apply(columns(), Geometry(size=(24, 24), resize=26))
    assert 24 < seen.min() < seen.max() < 56
    crop = build_crop(CropSettings(area=(0.3, 1.0), aspect=aspect), WIDE, seed=1)
    cut = [crop(columns(), 0, place) for place in range(60)]
    assert {one.shape for one in cut} == {(1, 24, 24, 3)}
    assert min(one.min() for one in cut) < 4
    assert max(one.max() for one in cut) > 76


def test_without_aspects_a_box_has_the_encoders_shape_and_a_share_of_the_largest():
    generator = np.random.default_rng(0)
    for _ in range(200):
        top, left, tall, wide = draw_scaled((0.5, 0.9), (24, 24), height=300, width=800, generator=generator)
        assert tall == wide
        assert 0.49 <= tall * wide / 300**2 <= 0.91
        assert 0 <= top <= 300 - tall
        assert 0 <= left <= 800 - wide


@pytest.mark.parametrize("mode", ["squash", "border"])
def test_an_encoder_that_sees_the_whole_frame_sees_the_whole_box(mode):
    geometry = Geometry(size=(24, 24), resize=(24, 24), crop=mode, fill=(7, 7, 7))
    whole = cropped(clip(), CropSettings(area=(1.0, 1.0)), geometry, np.random.default_rng(0))
    assert np.array_equal(whole, apply(clip(), geometry))


def test_what_a_clip_is_cut_to_depends_on_seed_epoch_and_place():
    crop, frames = build_crop(CropSettings(area=(0.2, 0.5)), WIDE, seed=1), clip()
    assert np.array_equal(crop(frames, 2, 7), crop(frames, 2, 7))
    others = (
        crop(frames, 2, 8),
        crop(frames, 3, 7),
        build_crop(CropSettings(area=(0.2, 0.5)), WIDE, seed=2)(frames, 2, 7),
    )
    for other in others:
        assert not np.array_equal(crop(frames, 2, 7), other)


def test_training_reads_stored_frames_and_validation_what_the_encoder_sees(film):
    (path,) = (film.store.root / "frames").glob("*.zarr")
    videos = open_videos(FrameStore(path), [item.digest for item in film.items])
    geometry = Geometry(size=(32, 32), resize=32)
    wanted = np.array([3, 0])
    whole = videos.rows[1].take(wanted)
    assert whole.shape == (2, 48, 64, 3)
    for memory_bytes in (1 << 30, 1):  # in memory, and read for every window
        stored = stored_reader(videos, [1], memory_bytes=memory_bytes)
        seen = reader(videos, [1], geometry, store=path, memory_bytes=memory_bytes)
        assert np.array_equal(stored.read(1, wanted), whole)
        assert np.array_equal(seen.read(1, wanted), apply(whole, geometry))
        num_rows, is_held = videos.rows[1].num_rows, memory_bytes > 1
        assert stored.memory_bytes == is_held * num_rows * 48 * 64 * 3
        assert seen.memory_bytes == is_held * num_rows * 32 * 32 * 3


class _StopError(Exception):
    """Ends the stage where training would begin."""


@pytest.mark.parametrize("scale", [(0.3, 0.5), None], ids=["crops", "none"])
def test_the_stage_cuts_clips_to_train_on_out_of_stored_frames_and_none_to_validate_on(film, scale, monkeypatch):
    caught, read = {}, []

    def stop(_, load, **__):
        learning = load()
        caught.update(train=learning.train, val=learning.val)
        raise _StopError

    def noted(frames, settings, geometry, generator):
        read.append(frames.shape)
        return cropped(frames, settings, geometry, generator)

    monkeypatch.setattr(work, "learn", stop)
    monkeypatch.setattr(resized_crop, "cropped", noted)
    with pytest.raises(_StopError):
        film.tune(key=f"caught {scale}", augment={"crop_scale": scale})
    clips = next(iter(caught["train"].epoch(0))).inputs["frames"]
    assert clips.shape == (4, 6, 32, 32, 3)
    assert set(read) == ({(6, 48, 64, 3)} if scale else set())  # as decoded, not the 32 x 32 that the encoder sees
    read.clear()
    assert next(iter(caught["val"].epoch(0))).inputs["frames"].shape == (4, 6, 32, 32, 3)
    assert not read
