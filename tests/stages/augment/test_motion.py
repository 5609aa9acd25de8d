"""Motions of scenes: values of the public code, and what holds for any draw."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from reelwright.stages.augment.scene.config import ScaleSettings, ShakeSettings, ShiftSettings, ZoomSettings
from reelwright.stages.augment.scene.layers import draw_placement, to_and_fro
from reelwright.stages.augment.scene.motion import (
    Crops,
    Curriculum,
    Shift,
    draw_corners,
    draw_shake,
    draw_shift,
    draw_zoom,
    shift_crops,
    zoom_scales,
)

# From modules of fractal_video at 7dd100f, run with torch: see the keys camera_* and shake_* of its vectors.
KNOWN = json.loads((Path(__file__).parents[2] / "data" / "scene_motion.json").read_text(encoding="utf-8"))


class Ends:
    """A generator that always draws the lowest, or the highest value."""

    def __init__(self, *, is_high: bool) -> None:
        self.is_high = is_high

    def uniform(self, low, high):
        return high if self.is_high else low

    def integers(self, low, high):
        return high - 1 if self.is_high else low

    def random(self):
        return 0.9


def ends(draw):
    return [draw(Ends(is_high=is_high)) for is_high in (False, True)]


@pytest.mark.parametrize("known", KNOWN["shift_ranges"], ids=lambda known: f"step {known['step']}")
def test_displacements_grow_with_the_curriculum(known):
    at = Curriculum(known["step"], known["n_steps"])
    how = {"num_frames": known["n_frames"], "height": known["res"]}
    drawn = ends(lambda generator: draw_shift(ShiftSettings(), at, **how, generator=generator))
    assert [shift.speed for shift in drawn] == pytest.approx(known["speed_px_per_frame_range"], abs=0.02)
    assert [shift.num_moving for shift in drawn] == known["time_range"]


@pytest.mark.parametrize("known", KNOWN["zoom_ranges"], ids=lambda known: f"step {known['step']}")
def test_zooms_grow_with_the_curriculum(known):
    at = Curriculum(known["step"], 10)
    slow, fast = ends(lambda generator: draw_zoom(ZoomSettings(), at, num_frames=8, generator=generator))
    for scales, speed, num_moving in zip((slow, fast), known["speed_range"], known["time_range"], strict=True):
        assert np.diff(scales).max() == pytest.approx(speed, abs=1e-4)
        assert len(np.unique(scales)) == num_moving


@pytest.mark.parametrize("known", KNOWN["shift_paths"], ids=lambda known: f"speed {known['speed']}")
def test_displacements_are_cut_to_whole_pixels_inside_the_margin(known):
    crops = shift_crops(Shift(known["speed"], known["time"], known["angle"], known["time_before"]), known["T"])
    assert [known["H"] + crops.margin] * 2 == known["enlarged_size"]
    assert crops.offsets.tolist() == known["crop_top_left_per_frame"]


@pytest.mark.parametrize(
    ("step", "known"), KNOWN["shake_ranges"], ids=[f"step {step}" for step, _ in KNOWN["shake_ranges"]]
)
def test_shakes_have_the_deviation_that_is_drawn(step, known):
    """In pixels of a frame 112 high; at ten times that, rounding to whole pixels is small."""
    settings, found = ShakeSettings(probability=1), []
    for seed in range(200):
        generator = np.random.default_rng(seed)
        crops = draw_shake(settings, Curriculum(step, 10), num_frames=16, height=1120, generator=generator)
        deviation = np.random.default_rng(seed).uniform(*known)
        assert crops.offsets.std(0, ddof=1) / 10 == pytest.approx([deviation] * 2, abs=0.06)
        found.append(deviation)
    assert known[0] <= min(found) < known[0] + 0.1
    assert known[1] - 0.1 < max(found) <= known[1]


@pytest.mark.parametrize("seed", range(20))
def test_crops_stay_inside_the_enlarged_frame(seed):
    generator = np.random.default_rng(seed)
    at = Curriculum(int(generator.integers(0, 12)), 10)
    length = int(generator.integers(1, 20))
    how = {"num_frames": length, "height": int(generator.integers(8, 200)), "generator": generator}
    both = (shift_crops(draw_shift(ShiftSettings(), at, **how), length), draw_shake(ShakeSettings(), at, **how))
    for crops in both:
        assert isinstance(crops, Crops)
        assert crops.offsets.shape == (length, 2)
        assert crops.offsets.min() >= 0
        assert (crops.offsets <= crops.margin).all()


def test_a_shake_moves_both_axes_by_themselves_and_a_single_frame_not_at_all():
    how = {"height": 112, "generator": np.random.default_rng(0)}
    offsets = draw_shake(ShakeSettings(), Curriculum(9, 1), num_frames=16, **how).offsets
    assert not np.array_equal(offsets[:, 0], offsets[:, 1])
    assert draw_shake(ShakeSettings(), Curriculum(9, 1), num_frames=1, **how).offsets.tolist() == [[0, 0]]


def test_a_zoom_stands_still_before_and_after_and_goes_either_way():
    nearer = zoom_scales(0.1, 3, 2, num_frames=8, is_backwards=False)
    assert nearer == pytest.approx([1, 1, 1, 1.1, 1.2, 1.2, 1.2, 1.2])
    away = zoom_scales(0.1, 3, 2, num_frames=8, is_backwards=True)
    assert away == pytest.approx([1.2, 1.2, 1.2, 1.1, 1, 1, 1, 1])


def test_a_curriculum_is_a_line_and_then_flat():
    values = [Curriculum(step, 4).value(1.0, 0.2) for step in (0, 1, 2, 3, 4, 40)]
    assert values == pytest.approx([1, 0.8, 0.6, 0.4, 0.2, 0.2])
    assert Curriculum(0, 0).is_over


@pytest.mark.parametrize("length", [1, 2, 8, 30])
def test_a_dynamic_background_goes_to_and_fro_in_a_quarter_of_a_clip(length):
    spans = set()
    for seed in range(100):
        frames = to_and_fro(length, np.random.default_rng(seed))
        assert frames.shape == (length,)
        assert 0 <= frames.min() <= frames.max() < length
        assert (np.abs(np.diff(frames)) <= 1).all()
        spans.add(int(np.ptp(frames)) + 1)
    assert max(spans) == min(length, max(2, length // 4))


def test_copies_come_after_the_curriculum_and_are_smaller():
    settings = ScaleSettings(clone=0.5)

    def drawn(step, *, can_clone=True):
        return [
            draw_placement(
                settings,
                Curriculum(step, 10),
                shape=(8, 40, 50),
                can_clone=can_clone,
                generator=np.random.default_rng(seed),
            )
            for seed in range(200)
        ]

    assert all(place.copy is None for place in [*drawn(9), *drawn(10, can_clone=False)])
    assert all(place.scale == (1.0, 1.0) and place.corner == (0, 0) for place in drawn(0))
    halfway, after = drawn(5), drawn(10)
    assert 0.65 <= min(min(place.scale) for place in halfway) < 0.68
    cloned = [place for place in after if place.copy is not None]
    assert 70 < len(cloned) < 130
    assert all(0.2 <= share <= 0.7 for place in cloned for share in place.scale)
    assert 0.3 <= min(min(place.scale) for place in after if place.copy is None) < 0.33
    for place in after:
        assert all(
            0 <= start <= side - math.floor(side * share)
            for start, side, share in zip(place.corner, (40, 50), place.scale, strict=True)
        )
    frames = {tuple(place.copy.frames) for place in cloned}
    steps = np.arange(8)
    assert frames == {tuple(np.clip(steps + offset, 0, 7)) for offset in (-2, -1, 0, 1, 2)}


def test_corners_move_inwards_within_their_share():
    drawn = np.stack(
        [draw_corners(0.7, height=32, width=40, generator=np.random.default_rng(seed)) for seed in range(500)]
    )
    assert drawn.min(0).tolist() == [[0, 0], [25, 0], [25, 20], [0, 20]]
    assert drawn.max(0).tolist() == [[14, 11], [39, 11], [39, 31], [14, 31]]
