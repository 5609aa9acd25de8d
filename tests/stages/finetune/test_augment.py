"""Augmentation: the same for all frames of a clip, another for the next clip, and nothing where nothing is asked."""

import colorsys

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as kernels

from reelwright.stages.augment.clips import augment, blur, flip, jittered, recolour
from reelwright.stages.augment.config import AugmentSettings, ColorSettings
from reelwright.stages.datasets.sampling.generators import generators_at

NOTHING = AugmentSettings(flip=0, crop_scale=None, color_jitter=0, blur=0)


def drawn_at(seed):
    """Generators of as many clips as are asked for, a stream a purpose."""
    return lambda purpose, num_clips=8: generators_at(seed, purpose, epoch=0, places=range(num_clips))


def still_clips(num_clips=3, length=4):
    """Clips whose frames are all the same picture, each clip another one; (B, T, 3, 12, 10) in [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(num_clips, 1, 3, 12, 10, generator=generator).expand(-1, length, -1, -1, -1).contiguous()


@pytest.mark.parametrize(
    "settings",
    [
        NOTHING.model_copy(update={"flip": 0.5}),
        NOTHING.model_copy(update={"color_jitter": 0.5}),
        NOTHING.model_copy(update={"blur": 0.5}),
        AugmentSettings(flip=0.5, blur=0.5),
        AugmentSettings(flip=0.5, blur=0.5, grayscale=0.2, colors=ColorSettings()),
    ],
    ids=["flip", "colour", "blur", "all", "carl"],
)
def test_all_frames_of_a_clip_change_alike(settings):
    clips = still_clips(num_clips=8)
    changed = augment(clips, settings, drawn_at(1))
    assert changed.shape == clips.shape
    assert torch.allclose(changed, changed[:, :1].expand_as(changed), atol=1e-6)
    assert not torch.allclose(changed, clips, atol=1e-3)
    assert 0 <= changed.min() <= changed.max() <= 1


def test_nothing_asked_changes_nothing():
    clips = still_clips()
    assert torch.equal(augment(clips, NOTHING, lambda purpose: drawn_at(0)(purpose, 3)), clips)


def test_flip_is_an_exact_mirror_image_of_some():
    clips = still_clips(num_clips=8)
    assert torch.equal(flip(clips, torch.ones(8, dtype=torch.bool)), clips.flip(-1))
    some = augment(clips, NOTHING.model_copy(update={"flip": 0.5}), drawn_at(0))
    is_flipped = [torch.equal(one, clip.flip(-1)) for one, clip in zip(some, clips, strict=True)]
    is_same = [torch.equal(one, clip) for one, clip in zip(some, clips, strict=True)]
    assert [not value for value in is_flipped] == is_same
    assert {True, False} == set(is_flipped)


def test_nothing_is_mirrored_unless_asked_for():
    """Whether labels have a side is known to people alone."""
    clips = torch.arange(10.0).expand(40, 2, 3, 12, 10) / 10
    changed = augment(clips, AugmentSettings(color_jitter=0), lambda purpose: drawn_at(0)(purpose, 40))
    assert torch.equal(changed, clips)


def test_what_a_clip_gets_depends_on_itself_alone():
    clips, settings = still_clips(num_clips=8), AugmentSettings(blur=0.5)
    torch.manual_seed(1)
    whole = augment(clips, settings, drawn_at(4))
    torch.manual_seed(2)
    for part in (slice(0, 3), slice(3, 8)):
        alone = augment(clips[part], settings, lambda purpose, part=part: drawn_at(4)(purpose)[part])
        assert torch.allclose(alone, whole[part], atol=1e-6)


def test_clips_are_drawn_apart():
    clips = still_clips(num_clips=1).expand(6, -1, -1, -1, -1)
    changed = augment(clips, AugmentSettings(blur=0.5), lambda purpose: drawn_at(0)(purpose, 6))
    assert len({tuple(clip.flatten()[:50].tolist()) for clip in changed}) == 6


def test_gray_pictures_keep_their_mean_colour_under_saturation():
    gray = torch.full((2, 3, 3, 4, 4), 0.5)
    changed = recolour(gray, torch.tensor([[1.1, 0.9], [0.8, 1.2], [1.3, 0.7]]))
    assert torch.allclose(changed, changed[:, :, :1].expand_as(changed), atol=1e-6)


def test_blur_keeps_flat_pictures_and_flattens_edges():
    flat = torch.full((2, 2, 3, 8, 8), 0.3)
    assert torch.allclose(
        blur(flat, torch.tensor([0.5, 2.0]), torch.ones(2, dtype=torch.bool), radius=3), flat, atol=1e-6
    )
    edge = torch.zeros(1, 1, 3, 8, 8)
    edge[..., 4:] = 1
    assert blur(edge, torch.ones(1), torch.ones(1, dtype=torch.bool), radius=3)[..., 3].max() > 0
    assert torch.equal(blur(edge, torch.ones(1), torch.zeros(1, dtype=torch.bool), radius=3), edge)


def test_a_blur_reaches_as_far_as_its_radius():
    dot = torch.zeros(1, 1, 3, 15, 15)
    dot[..., 7, 7] = 1
    reached = []
    for radius in (1, 3):
        settings = NOTHING.model_copy(update={"blur": 1.0, "blur_radius": radius})
        blurred = augment(dot, settings, lambda purpose: drawn_at(0)(purpose, 1))
        reached.append(int((blurred[0, 0, 0].sum(0) > 1e-6).sum()))
    assert reached == [3, 7]
    with pytest.raises(ValueError, match="blur_radius is 1, but blur is 0; set both, or neither"):
        AugmentSettings(blur_radius=1)


def test_crop_scale_that_is_no_range_is_refused():
    with pytest.raises(ValueError, match="two shares of the area"):
        AugmentSettings(crop_scale=(0.9, 0.5))


def test_colours_are_those_of_torchvision_in_the_order_drawn():
    """Every strength alone, a factor of exactly its bound's distance."""
    clip = still_clips(num_clips=1)[0]
    names = {
        "brightness": kernels.adjust_brightness,
        "contrast": kernels.adjust_contrast,
        "saturation": kernels.adjust_saturation,
    }
    for number, (name, change) in enumerate(names.items()):
        settings = ColorSettings(**{**dict.fromkeys(["brightness", "contrast", "saturation", "hue"], 0), name: 0.5})
        generator = np.random.default_rng(7)
        share = np.random.default_rng(7).random(5)[1 + number]
        changed = jittered(clip, settings.model_copy(update={"probability": 1.0}), generator)
        assert torch.allclose(changed, change(clip, 0.5 + share), atol=1e-6)


def test_hue_turns_colours_and_leaves_gray_alone():
    only = ColorSettings(probability=1, brightness=0, contrast=0, saturation=0, hue=0.5)
    gray = torch.full((2, 3, 4, 4), 0.4)
    assert torch.allclose(jittered(gray, only, np.random.default_rng(0)), gray, atol=1e-6)
    red = torch.zeros(2, 3, 4, 4)
    red[:, 0] = 1
    share = np.random.default_rng(3).random(5)[4]
    turned = jittered(red, only, np.random.default_rng(3))
    hue = colorsys.rgb_to_hsv(*turned[0, :, 0, 0].tolist())[0]
    assert hue == pytest.approx((0.5 * (2 * share - 1)) % 1, abs=1e-3)


def test_a_factor_never_falls_below_0():
    strong = ColorSettings(probability=1, brightness=3, contrast=0, saturation=0, hue=0)
    clip = still_clips(num_clips=1)[0]
    for seed in range(20):
        share = np.random.default_rng(seed).random(5)[1]
        changed = jittered(clip, strong, np.random.default_rng(seed))
        assert torch.allclose(changed, (clip * 4 * share).clamp(0, 1), atol=1e-5)


def test_about_a_fifth_of_clips_is_gray_and_two_in_ten_keep_their_colours():
    clips = still_clips(num_clips=200, length=1)
    gray = augment(clips, NOTHING.model_copy(update={"grayscale": 0.2}), lambda purpose: drawn_at(0)(purpose, 200))
    is_gray = (gray[:, :, 0] == gray[:, :, 1]).flatten(1).all(1)
    assert 20 < is_gray.sum() < 60
    luma = (clips[is_gray] * torch.tensor([0.2989, 0.587, 0.114]).reshape(3, 1, 1)).sum(2)
    assert torch.allclose(gray[is_gray][:, :, 0], luma, atol=1e-3)
    assert torch.equal(gray[~is_gray], clips[~is_gray])
    only = NOTHING.model_copy(update={"colors": ColorSettings()})
    coloured = augment(clips, only, lambda purpose: drawn_at(0)(purpose, 200))
    same = (coloured == clips).flatten(1).all(1)
    assert 20 < same.sum() < 60


def test_a_clip_is_blurred_once_whatever_else_is_done_to_it():
    """The public code blurs after each change of colours, up to four times: flat but for an edge, its width tells."""
    clip = torch.zeros(64, 1, 3, 9, 40)
    clip[..., 20:] = 1
    no_colour = ColorSettings(probability=1, brightness=0, contrast=0, saturation=0, hue=0)
    settings = NOTHING.model_copy(update={"colors": no_colour, "blur": 1.0})
    blurred = augment(clip, settings, lambda purpose: drawn_at(2)(purpose, 64))
    alone = augment(clip, NOTHING.model_copy(update={"blur": 1.0}), lambda purpose: drawn_at(2)(purpose, 64))
    assert torch.allclose(blurred, alone, atol=1e-5)


def test_two_jitters_of_colour_are_refused():
    with pytest.raises(ValueError, match=r"colors takes the place of color_jitter, which is 0\.4; leave one out"):
        AugmentSettings(color_jitter=0.4, colors=ColorSettings())
    assert AugmentSettings(colors=ColorSettings()).colors == ColorSettings()
