"""What training clips go through: drawn from seed, epoch and place alone, alike in all frames of a clip."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reelwright.models.encoders.build import build_encoder
from reelwright.stages.augment.scene.augmentation import EpochSteps
from reelwright.stages.augment.transforms import clip_transforms
from reelwright.stages.base.config import parse_config
from reelwright.stages.datasets.sampling.draws import EpochSampler
from reelwright.stages.datasets.sampling.windows import WindowShape, grid_windows
from reelwright.stages.decode.geometry import Geometry
from reelwright.stages.finetune.clips import FrameBatches
from reelwright.stages.finetune.config import FinetuneConfig
from reelwright.stages.finetune.module import FinetuneModule
from reelwright.stages.finetune.preparing import ClipAugmentation
from reelwright.stages.fit.loop.batches import Batch, Origin
from reelwright.storage.errors import ConfigError

NOTHING = {"flip": 0, "crop_scale": None, "color_jitter": 0}
CAST = {
    "flip": 0.5,
    "rand_augment": "rand-m7-n4-mstd0.5-inc1",
    "crop_scale": [0.08, 1.0],
    "crop_aspect": [0.75, 1.3333],
    "color_jitter": 0,
    "erasing": {},
}
FRACTAL = {
    "flip": 0.5,
    "rand_augment": "rand-m7-n2",
    "rand_augment_fill": [0, 0, 0],
    "rand_augment_last": True,
    "crop_scale": [0.2, 1.0],
    "crop_aspect": [0.75, 1.3333],
    "color_jitter": 0,
    "blur": 0.5,
    "blur_radius": 1,
}
CARL = {
    "flip": 0.5,
    "crop_scale": [0.8, 1.0],
    "crop_aspect": [0.75, 1.3333],
    "color_jitter": 0,
    "colors": {},
    "grayscale": 0.2,
    "blur": 0.5,
}
CASES = {
    "rand_augment": {**NOTHING, "rand_augment": "rand-m9-n3-p1"},
    "rand_augment last": {**NOTHING, "rand_augment": "rand-m9-n3-p1", "rand_augment_last": True},
    "crop": {**NOTHING, "crop_scale": [0.1, 0.5]},
    "resized crop": {**NOTHING, "crop_scale": [0.1, 0.5], "crop_aspect": [0.5, 2]},
    "erasing": {**NOTHING, "erasing": {"probability": 1, "mode": "rand"}},
    "cast": CAST,
    "fractal": FRACTAL,
    "carl": CARL,
}
SCENE = {**FRACTAL, "scene": {"curriculum_epochs": 1}}


def config(augment, **settings):
    values = {"frames": "f", "spatial": "e", "temporal": "t", "augment": augment, **settings}
    return parse_config(FinetuneConfig, values, where="tune")


@pytest.fixture(scope="module")
def module():
    encoder = build_encoder("timm/test_resnet", seed=0)
    return FinetuneModule(encoder, torch.nn.Identity(), data_config=encoder.data_config, frozen_norm=True)


def still(video, rows):
    """Frames of video 0, 1, ... that are all the same picture."""
    picture = np.random.default_rng(video).integers(0, 256, (16, 20, 3), dtype=np.uint8)
    return np.repeat(picture[None], len(rows), axis=0)


def prepared(module, augment, *, epoch=0, first=0, repeats=1, seed=0):
    """All batches of an epoch of ten clips, as the network would see them."""
    settings = config(augment).augment
    shape = WindowShape(length=3, hop=3)
    windows = grid_windows([3] * 10, shape)
    batches = FrameBatches(
        read=still,
        windows=windows,
        targets=np.arange(10),
        shape=shape,
        batch_size=4,
        draws=EpochSampler(seed=seed, repeats=repeats),
        transforms=clip_transforms(settings, Geometry(size=(16, 20), resize=16), seed=seed),
    )
    steps = EpochSteps(num_batches=batches.num_batches, clips_per_batch=4)
    prepare = ClipAugmentation(module, settings, seed=seed, steps=steps)
    return [prepare(batch) for batch in batches.epoch(epoch, first=first)]


def plain(module):
    clips = np.stack([still(video, range(3)) for video in range(10)])
    return module.normalised(module.unit_range(torch.from_numpy(clips)))


@pytest.mark.parametrize("augment", CASES.values(), ids=CASES)
def test_all_frames_of_a_clip_change_alike_and_clips_do_not(module, augment):
    settings = {**augment, "erasing": {"mode": "rand"}} if "erasing" in augment and augment is CAST else augment
    found = prepared(module, settings)
    clips = torch.cat([batch.inputs["frames"] for batch in found])
    assert clips.shape == (10, 3, 3, 16, 20)
    torch.testing.assert_close(clips, clips[:, :1].expand_as(clips))
    before = plain(module)[torch.cat([batch.targets for batch in found])]
    changed = ((clips - before).abs().amax(dim=(1, 2, 3, 4)) > 1e-3).sum()
    assert changed >= 5


@pytest.mark.parametrize("augment", [*CASES.values(), SCENE], ids=[*CASES, "scene"])
def test_a_resume_in_the_middle_of_an_epoch_sees_the_same_clips(module, augment):
    whole, rest = prepared(module, augment, epoch=2), prepared(module, augment, epoch=2, first=1)
    assert len(rest) == len(whole) - 1 == 2
    for one, other in zip(whole[1:], rest, strict=True):
        assert torch.equal(one.inputs["frames"], other.inputs["frames"])
    for others in (prepared(module, augment, epoch=3), prepared(module, augment, epoch=2, seed=1)):
        by_video = [
            {
                int(target): clip
                for batch in run
                for target, clip in zip(batch.targets, batch.inputs["frames"], strict=True)
            }
            for run in (whole, others)
        ]
        assert any(not torch.equal(by_video[0][video], by_video[1][video]) for video in range(10))


def test_repeats_of_a_clip_are_augmented_anew(module):
    clips = prepared(module, CAST, repeats=2)[0].inputs["frames"]
    targets = prepared(module, CAST, repeats=2)[0].targets
    assert targets[0] == targets[1]
    assert not torch.equal(clips[0], clips[1])


def test_nothing_asked_is_normalised_alone(module):
    found = prepared(module, NOTHING)
    expected = plain(module)[torch.cat([batch.targets for batch in found])]
    assert torch.equal(torch.cat([batch.inputs["frames"] for batch in found]), expected)


def test_a_box_is_erased_after_normalising(module):
    """const fills with 0, which is the mean colour of what the encoder sees."""
    frames = torch.full((1, 2, 16, 20, 3), 255, dtype=torch.uint8)
    settings = config({**NOTHING, "erasing": {"probability": 1, "mode": "const"}}).augment
    batch = Batch(
        {"frames": frames, "mask": torch.ones(1, 2, dtype=torch.bool)}, torch.zeros(1), origin=Origin(0, np.array([0]))
    )
    found = ClipAugmentation(module, settings, seed=0)(batch).inputs["frames"]
    is_erased = (found == 0).all(dim=2)
    assert 0.01 < is_erased.float().mean() < 0.4
    assert torch.equal(found[0, 0], found[0, 1])


REFUSED = {
    "section": ({"rand_augment": "rand-m7-x3"}, "section 'x3' cannot be read; allowed: m0 to m100, n1"),
    "head": ({"rand_augment": "augmix-m3"}, "must begin with 'rand'"),
    "last": ({"rand_augment_last": True}, "rand_augment_last says when rand_augment is made, which is null"),
    "aspect": ({"crop_aspect": [2, 1]}, "crop_aspect must be two ratios above 0, smallest first"),
    "no crop": ({"crop_aspect": [1, 2], "crop_scale": None}, "but crop_scale is null; set both"),
    "fill": ({"rand_augment_fill": [0, 0, 300]}, "rand_augment_fill must be three levels from 0 to 255"),
    "area": ({"erasing": {"area": [0.5, 0.1]}}, "must lie in"),
    "mode": ({"erasing": {"mode": "noise"}}, "augment.erasing.mode"),
    "unknown": ({"rand_aug": "rand-m7"}, "Did you mean 'rand_augment'"),
}


@pytest.mark.parametrize(("augment", "match"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_drawn_is_refused(augment, match):
    with pytest.raises(ConfigError, match=match):
        config(augment)


def test_a_set_that_is_too_small_is_refused_before_training():
    with pytest.raises(ConfigError, match=r"augment.rand_augment.*n99 is more than"):
        clip_transforms(config({"rand_augment": "rand-n99-w0"}).augment, Geometry(size=(16, 20), resize=16), seed=0)
