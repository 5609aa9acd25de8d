"""Frames of a scene: shape and type, where the parts appear, and what a frame depends on."""

from dataclasses import replace

import numpy as np
import pytest

from reelwright.stages.synthesize.procedures.look import draw_look
from reelwright.stages.synthesize.procedures.pen import COLOURS
from reelwright.stages.synthesize.procedures.render import Renderer
from reelwright.stages.synthesize.procedures.script import MOUNTED_LIFT, PARTS, Pose, SceneState

# Without noise, shake, cast, light and grey shapes, so that colours are the ones drawn.
PLAIN = replace(
    draw_look(np.random.default_rng(0)),
    noise_level=0.0,
    shake=0.0,
    light_amplitude=0.0,
    colour_cast=(1.0, 1.0, 1.0),
    distractors=(),
)
CENTRE = (0.7, 0.4)
AWAY = (0.5, 3.0)
FAR_OFF = dict.fromkeys(PARTS, Pose(-3.0, -3.0))


def state_with(part: str, pose: Pose, *, held: str = "") -> SceneState:
    return SceneState(AWAY, held, {**FAR_OFF, part: pose})


def plain_renderer(size: tuple[int, int] = (128, 128)) -> Renderer:
    return Renderer(PLAIN, size=size, work_centre=CENTRE)


def area_and_centre(pixels: np.ndarray, colour: tuple[int, int, int]) -> tuple[int, float, float]:
    rows, columns = np.nonzero(np.abs(pixels.astype(int) - colour).max(axis=2) < 12)
    return len(rows), float(columns.mean()), float(rows.mean())


@pytest.mark.parametrize("part", ["red_bar", "blue_disc", "green_triangle"])
def test_a_part_appears_where_its_pose_says(part: str) -> None:
    pixels = plain_renderer().render(state_with(part, Pose(0.25, 0.5, 0.0, MOUNTED_LIFT)), index=0, time_seconds=0.0)
    area, x, y = area_and_centre(pixels, COLOURS[part])
    assert area > 50
    assert (x, y) == pytest.approx((0.25 * 128, 0.5 * 128), abs=3.0)


@pytest.mark.parametrize(
    ("size", "x", "y"),
    [((128, 128), 64, 64), ((64, 128), 64, 32), ((128, 64), 32, 64), ((48, 48), 24, 24)],
    ids=["square", "wide", "tall", "least"],
)
def test_the_scene_is_the_largest_centred_square(size: tuple[int, int], x: int, y: int) -> None:
    pose = Pose(0.5, 0.5, 0.0, MOUNTED_LIFT)
    pixels = plain_renderer(size).render(state_with("green_triangle", pose), index=0, time_seconds=0.0)
    assert pixels.shape == (*size, 3)
    assert pixels.dtype == np.uint8
    assert area_and_centre(pixels, COLOURS["green_triangle"])[1:] == pytest.approx((x, y), abs=2.0)


def test_a_lifted_part_is_larger() -> None:
    renderer = plain_renderer()
    areas = [
        area_and_centre(
            renderer.render(state_with("blue_disc", Pose(0.5, 0.5, 0.0, lift)), index=0, time_seconds=0.0),
            COLOURS["blue_disc"],
        )[0]
        for lift in (0.0, MOUNTED_LIFT, 1.0)
    ]
    assert areas[0] < areas[1] < areas[2]


def test_the_hand_covers_the_scene_in_its_skin_colour() -> None:
    renderer = plain_renderer()
    away = renderer.render(SceneState(AWAY, "", FAR_OFF), index=0, time_seconds=0.0)
    there = renderer.render(SceneState((0.5, 0.3), "", FAR_OFF), index=0, time_seconds=0.0)
    assert area_and_centre(there, PLAIN.skin)[0] > 150
    assert (np.abs(away.astype(int) - PLAIN.skin).max(axis=2) < 12).sum() == 0


def test_a_frame_depends_on_its_index_not_on_the_order_of_drawing() -> None:
    look = draw_look(np.random.default_rng(3))
    state = state_with("red_bar", Pose(0.4, 0.4))
    first, second = (Renderer(look, size=(64, 64), work_centre=CENTRE) for _ in range(2))
    forward = [first.render(state, index=index, time_seconds=index / 10) for index in range(4)]
    backward = [second.render(state, index=index, time_seconds=index / 10) for index in reversed(range(4))][::-1]
    np.testing.assert_array_equal(forward, backward)
    assert not np.array_equal(forward[0], forward[1])


def test_noise_has_the_level_asked_for() -> None:
    state = SceneState(AWAY, "", FAR_OFF)
    clean = plain_renderer().render(state, index=0, time_seconds=0.0).astype(float)
    noisy = Renderer(replace(PLAIN, noise_level=5.0), size=(128, 128), work_centre=CENTRE)
    difference = noisy.render(state, index=0, time_seconds=0.0).astype(float) - clean
    assert difference.std() == pytest.approx(5.0, abs=0.2)


@pytest.mark.parametrize("seed", range(5))
def test_the_camera_never_shakes_beyond_the_drawn_table(seed: int) -> None:
    renderer = Renderer(draw_look(np.random.default_rng(seed)), size=(64, 64), work_centre=CENTRE)
    shifts = np.array([renderer._shake(index / 10) for index in range(250)])
    assert np.abs(shifts).max() <= renderer.margin
    assert len(np.unique(shifts[:, 0])) > 2
