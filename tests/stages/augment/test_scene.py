"""Scene augmentations of batches: drawn from seed, epoch and place alone, each by its own switch."""

from __future__ import annotations

import pytest
import torch

from reelwright.stages.augment.config import AugmentSettings, ViewSettings
from reelwright.stages.augment.scene.augmentation import EpochSteps, SceneAugmentation
from reelwright.stages.augment.scene.config import SceneSettings
from reelwright.stages.base.config import without_execution

SWITCHES = {
    "background static": {"background": {"dynamic": 0, "shift": None}},
    "background dynamic": {"background": {"dynamic": 1, "shift": None}},
    "background shift": {"background": {"dynamic": 0, "shift": {"probability": 1}}},
    "foreground scale": {"foreground": {"scale": {"clone": 0}, "shift": None}},
    "foreground clone": {"foreground": {"scale": {"clone": 1}, "shift": None}},
    "foreground shift": {"foreground": {"scale": None, "shift": {"probability": 1}}},
    "camera shift": {"camera": {"shift": {"probability": 1}, "zoom": None, "shake": None, "perspective": None}},
    "zoom": {"camera": {"shift": None, "zoom": {"probability": 1}, "shake": None, "perspective": None}},
    "shake": {"camera": {"shift": None, "zoom": None, "shake": {"probability": 1}, "perspective": None}},
    "perspective": {"camera": {"shift": None, "zoom": None, "shake": None, "perspective": {"probability": 1}}},
    "reverse": {"reverse": 1},
}
NOTHING = {"background": None, "foreground": None, "camera": None}
STEPS = EpochSteps(num_batches=5, clips_per_batch=6)
PLACES = [6, 7, 8, 9, 10, 11]


@pytest.fixture(scope="module")
def clips():
    """(6, 8, 3, 32, 40): a bright square that goes right over a pattern of its clip."""
    generator = torch.Generator().manual_seed(0)
    clips = 0.4 * torch.rand(6, 1, 3, 32, 40, generator=generator).repeat(1, 8, 1, 1, 1)
    for frame in range(8):
        clips[:, frame, :, 12:20, 4 * frame : 4 * frame + 8] = 1
    return clips


def changed(clips, settings, *, epoch=9, places=PLACES, seed=0, num_views=1, mask=None):
    scene = SceneAugmentation(SceneSettings(**settings), seed=seed, steps=STEPS, num_views=num_views)
    return scene(clips, mask, epoch=epoch, places=places)


@pytest.mark.parametrize("settings", [{**NOTHING, **on} for on in SWITCHES.values()] + [{}], ids=[*SWITCHES, "all"])
def test_each_changes_clips_and_follows_from_seed_epoch_and_place(clips, settings):
    before = clips.clone()
    found = changed(clips, settings)
    assert torch.equal(clips, before)
    assert found.shape == clips.shape
    assert found.dtype == torch.float32
    assert 0 <= found.min() <= found.max() <= 1
    assert all((one - other).abs().max() > 0.05 for one, other in zip(found, clips, strict=True))
    assert torch.equal(changed(clips, settings), found)
    if settings.get("reverse") != 1:
        for other in ({"epoch": 10}, {"seed": 1}, {"places": [*range(12, 18)]}):
            assert not torch.equal(changed(clips, settings, **other), found)


@pytest.mark.parametrize("name", [name for name in SWITCHES if not name.startswith("background")])
def test_what_a_clip_gets_does_not_depend_on_the_others(clips, name):
    settings = {**NOTHING, **SWITCHES[name]}
    alone = changed(clips[2:3], settings, places=PLACES[2:3])
    torch.testing.assert_close(alone, changed(clips, settings)[2:3], atol=1e-6, rtol=0)


def test_a_switch_leaves_what_the_others_draw(clips):
    """Zoom switched off: clips that it would not have changed anyway are the same."""
    camera = {"shift": None, "perspective": None, "shake": {"probability": 0.5}}
    one, other = (
        changed(clips, {**NOTHING, "camera": {**camera, "zoom": zoom}}) for zoom in ({"probability": 0.3}, None)
    )
    same = [torch.equal(first, second) for first, second in zip(one, other, strict=True)]
    assert {True, False} == set(same)


def test_clips_are_played_backwards_and_padding_stays(clips):
    mask = torch.ones(6, 8, dtype=torch.bool)
    mask[1, 5:] = False
    found = changed(clips, {**NOTHING, "reverse": 1}, mask=mask)
    assert torch.equal(found[0], clips[0].flip(0))
    assert torch.equal(found[1], torch.cat([clips[1, :5].flip(0), clips[1, 5:]]))
    some = changed(clips, {**NOTHING, "reverse": 0.5})
    assert {torch.equal(one, clip) for one, clip in zip(some, clips, strict=True)} == {True, False}


def test_query_and_key_are_reversed_alike_and_keys_are_easy(clips):
    some = changed(clips, {**NOTHING, "reverse": 0.5}, num_views=2)
    is_reversed = [not torch.equal(one, clip) for one, clip in zip(some, clips, strict=True)]
    assert is_reversed[0::2] == is_reversed[1::2]
    camera = {**NOTHING, **SWITCHES["camera shift"]}
    easy = changed(clips, camera, num_views=2)
    assert torch.equal(easy[1::2], clips[1::2])
    assert torch.equal(easy[0::2], changed(clips, camera)[0::2])
    hard = changed(clips, {**camera, "easy_key": False}, num_views=2)
    assert torch.equal(hard, changed(clips, camera))
    for name in ("foreground scale", "background static"):
        keys = changed(clips, {**NOTHING, **SWITCHES[name]}, num_views=2)[1::2]
        assert all(not torch.equal(one, other) for one, other in zip(keys, clips[1::2], strict=True))


def test_backgrounds_of_queries_are_queries_and_of_keys_keys():
    """Queries are red, keys green."""
    clips = torch.zeros(6, 2, 3, 8, 8)
    clips[0::2, :, 0] = 0.5
    clips[1::2, :, 1] = 0.5
    found = changed(clips, {**NOTHING, "background": {}}, num_views=2)
    assert found[0::2, :, 1:].max() == 0
    assert found[1::2, :, 0].max() == 0


def test_backgrounds_come_from_all_clips_of_the_batch(clips):
    """A black clip shows what is behind it; over many draws every clip is seen."""
    levels = torch.arange(1, 7).float() / 8
    batch = levels[:, None, None, None, None].expand(6, 4, 3, 8, 8)
    seen = set()
    for epoch in range(40):
        settings = {**NOTHING, "background": {"dynamic": 1, "maximum": 0, "weight": [1, 1], "gamma": [1, 1]}}
        found = changed(batch, settings, epoch=epoch)
        seen |= {round(float(value), 4) for value in found[:, 0, 0, 0, 0]}
    assert seen == {round(float(level) ** 0.75, 4) for level in levels}


def test_the_curriculum_counts_batches():
    steps = EpochSteps(num_batches=5, clips_per_batch=6)
    stands = [
        (steps.curriculum(2, epoch=epoch, place=place)) for epoch, place in ((0, 0), (0, 5), (0, 6), (1, 29), (2, 0))
    ]
    assert [at.step for at in stands] == [0, 0, 1, 9, 10]
    assert {at.num_steps for at in stands} == {10}
    assert [at.is_over for at in stands] == [False] * 4 + [True]
    assert steps.curriculum(0, epoch=0, place=0).is_over


def test_at_the_start_of_the_curriculum_sizes_stay(clips):
    settings = {**NOTHING, **SWITCHES["foreground clone"]}
    start = changed(clips, settings, epoch=0, places=[*range(6)])
    torch.testing.assert_close(start, clips, atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(1, 1, 3, 8, 8), (2, 3, 3, 16, 12), (1, 2, 1, 5, 9)], ids=str)
def test_small_clips_can_be_augmented_too(shape):
    settings = {"foreground": {"scale": {"clone": 1, "clone_size": [0.05, 0.1]}}}
    for epoch in (0, 9):
        found = changed(torch.rand(shape), settings, epoch=epoch, places=[*range(shape[0])])
        assert found.shape == shape
        assert found.isfinite().all()


REFUSED = {
    "nothing": ({"background": None, "foreground": None, "camera": None}, "set scene: null"),
    "speed": ({"camera": {"shift": {"speed": [1, 0.2]}}}, "two numbers from 0 to 10 are needed, smallest first"),
    "size": ({"foreground": {"scale": {"size": [0, 1]}}}, "two numbers from 0.05 to 1"),
    "area": ({"background": {"area": [0.5, 1.5]}}, "two numbers from 0.01 to 1"),
    "probability": ({"background": {"dynamic": 1.2}}, "less than or equal to 1"),
    "shake": ({"camera": {"shake": {"least": [3, 2]}}}, "two numbers from 0 to 50"),
    "shakes": ({"camera": {"shake": {"least": [1, 5]}}}, "must not be above most"),
    "distortion": ({"camera": {"perspective": {"distortion": 1}}}, "less than or equal to 0.95"),
    "epochs": ({"curriculum_epochs": -1}, "greater than or equal to 0"),
    "unknown": ({"camera": {"tilt": {}}}, "Extra inputs"),
}


@pytest.mark.parametrize(("scene", "match"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_drawn_is_refused(scene, match):
    with pytest.raises(ValueError, match=match):
        AugmentSettings(scene=scene)


def test_copies_that_would_never_appear_are_a_problem():
    assert SceneSettings().problem(epochs=6) is None
    assert "foreground.scale.clone is 0.15, but copies appear after curriculum_epochs (5)" in (
        SceneSettings().problem(epochs=5) or ""
    )
    assert SceneSettings(foreground={"scale": {"clone": 0}}).problem(epochs=1) is None
    assert SceneSettings(curriculum_epochs=0).problem(epochs=1) is None


def test_a_clip_that_is_alone_has_no_other_behind_it():
    assert SceneSettings().problem(epochs=6, num_clips=2) is None
    assert "but a process has 1; raise batch_size" in (SceneSettings().problem(epochs=6, num_clips=1) or "")
    assert SceneSettings(background=None).problem(epochs=6, num_clips=1) is None


def test_views_that_are_stored_have_no_scene():
    with pytest.raises(ValueError, match="scene is of clips in training alone"):
        ViewSettings(num=2, augment={"scene": {}})


def test_only_a_scene_that_is_set_enters_keys():
    plain, scene = (
        without_execution(settings, settings.model_dump(mode="json"))
        for settings in (AugmentSettings(), AugmentSettings(scene={}))
    )
    assert "scene" not in plain
    assert set(scene["scene"]) == set(SceneSettings.model_fields) - {"reverse"}
