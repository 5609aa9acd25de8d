"""Whole pixel pipelines of papers, put together from the parts: CAST's (1.3) and fractal_video's (3.10)."""

from __future__ import annotations

import numpy as np
import torch

from reelwright.models.blocks.mixing import MixDistribution, draw_mix, mix_clips, mix_targets
from reelwright.models.losses.classification import soft_target_loss, soft_targets
from reelwright.stages.augment.clips import augment
from reelwright.stages.augment.config import AugmentSettings, ErasingSettings
from reelwright.stages.augment.erasing import erase
from reelwright.stages.augment.rand_augment import parse_rand_augment, rand_augment
from reelwright.stages.augment.resized_crop import CropSettings, build_crop
from reelwright.stages.datasets.sampling.generators import generator_at, generators_at
from reelwright.stages.decode.geometry import Geometry

SEED, EPOCH, ITEMS, STEP = 0, 2, [11, 4, 7, 30], 5


def frames():
    return np.random.default_rng(0).integers(0, 256, (4, 2, 24, 32, 3), dtype=np.uint8)


def drawn(clips, text, fill):
    how = parse_rand_augment(text, fill=fill)
    generators = generators_at(SEED, "rand_augment", epoch=EPOCH, places=ITEMS)
    return np.stack([rand_augment(clip, how, generator) for clip, generator in zip(clips, generators, strict=True)])


def pixels(clips):
    return torch.from_numpy(clips).movedim(-1, 2).float() / 255


def flipped(x):
    only = AugmentSettings(flip=0.5, crop_scale=None, color_jitter=0)
    return augment(x, only, lambda purpose: generators_at(SEED, purpose, epoch=EPOCH, places=ITEMS))


def cut(clips, area):
    crop = build_crop(CropSettings(area=area, aspect=(3 / 4, 4 / 3)), Geometry(size=(16, 16), resize=18), seed=SEED)
    return np.stack([crop(clip, EPOCH, place) for clip, place in zip(clips, ITEMS, strict=True)])


def cast():
    x = (pixels(cut(drawn(frames(), "rand-m7-n4-mstd0.5-inc1", (128, 128, 128)), (0.08, 1.0))) - 0.45) / 0.225
    x = erase(flipped(x), ErasingSettings(), generators_at(SEED, "erase", epoch=EPOCH, places=ITEMS))
    mixing = generator_at(SEED, "mix", epoch=EPOCH, place=STEP)
    mix = draw_mix(MixDistribution(probability=0.9, switch_probability=0.0), 4, extent=(16, 16), generator=mixing)
    x, share = mix_clips(x, mix)
    return x, mix_targets(soft_targets(torch.tensor([0, 2, 1, 1]), num_classes=3, smoothing=0.1), share)


def fractal():
    as_bytes = (flipped(pixels(cut(frames(), (0.2, 1.0)))) * 255).round().byte().movedim(2, -1).numpy()
    return pixels(drawn(as_bytes, "rand-m7-n2", (0, 0, 0)))


def test_cast():
    x, soft = cast()
    assert x.shape == (4, 2, 3, 16, 16)
    torch.testing.assert_close(soft.sum(1), torch.ones(4))
    assert soft_target_loss(torch.zeros(4, 3), soft).item() > 1  # log 3
    again, same = cast()
    assert torch.equal(again, x)
    assert torch.equal(same, soft)


def test_fractal():
    x = fractal()
    assert x.shape == (4, 2, 3, 16, 16)
    assert 0 <= x.min() <= x.max() <= 1
    assert torch.equal(fractal(), x)
