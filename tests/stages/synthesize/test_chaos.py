"""The chaos game, its variations and its view window: published values and what follows from the definition."""

import json
from pathlib import Path

import numpy as np
import pytest

from reelwright.stages.synthesize.families.chaos import Game, count_points, splat
from reelwright.stages.synthesize.families.fractal import bounding_box, brightness, image_borders, video_borders
from reelwright.stages.synthesize.families.variations import VARIATIONS, Chosen

VECTORS = json.loads((Path(__file__).parents[2] / "data" / "synthesize_vectors.json").read_text())["fractal"]
GIVEN = VECTORS["variations"]
SMALL = Game(num_points=1024, num_iterations=60, num_skipped=20)


def points_per_frame(game: Game) -> int:
    return game.num_points * (game.num_iterations - game.num_skipped)


def play(weights: list, *, borders: list, size: int, game: Game = SMALL, variation: int = 0, seed: int = 0):
    return count_points(
        np.array([weights], float),
        borders=np.array([borders], float),
        size=size,
        game=game,
        variation=variation,
        rng=np.random.default_rng(seed),
    )[0]


@pytest.mark.parametrize("number", GIVEN["results"])
def test_a_variation_gives_the_published_points(number: str) -> None:
    points = np.array(GIVEN["points"], np.float32)
    chosen = np.array(GIVEN["weights_for_15_17_21_22"], np.float32)[GIVEN["fn_index_per_point"]]
    x, y = VARIATIONS[int(number)].apply(
        points[:, 0],
        points[:, 1],
        chosen=Chosen(chosen[:, 1], chosen[:, 4], chosen[:, 2], chosen[:, 5]),
        uniform=np.zeros((2, 4), np.float32),
    )
    assert x.dtype == y.dtype == np.float32
    np.testing.assert_allclose(np.stack([x, y], axis=1), GIVEN["results"][number]["out"], rtol=1e-4, atol=2e-6)


def test_all_published_variations_are_there() -> None:
    assert {str(number): variation.name.capitalize() for number, variation in VARIATIONS.items()} == GIVEN["names"]
    assert [n for n, v in VARIATIONS.items() if v.needs == "uniform"] == GIVEN["stochastic"]


@pytest.mark.parametrize(
    ("number", "uniform", "expected"),
    [
        (13, (0.2, 0.0), (1.0, 0.0)),  # root of 1, half of angle 0
        (13, (0.7, 0.0), (-1.0, 0.0)),  # and half a turn more
        (31, (0.5, 0.25), (0.5, 0.0)),  # 0.5 * sin(pi / 2)
        (44, (0.25, 0.0), (0.5403023, 0.0)),  # tan(pi / 4) * (cos 1, sin 0)
        (45, (0.0, 0.0), (1.0, 1.0)),
    ],
    ids=["julia", "julia turned", "noise", "rays", "blade"],
)
def test_variations_with_chance_at_the_point_1_0(number: int, uniform: tuple, expected: tuple) -> None:
    draws = np.array(uniform, np.float32)[:, None]
    x, y = VARIATIONS[number].apply(
        np.ones(1, np.float32), np.zeros(1, np.float32), chosen=Chosen(0, 0, 0, 0), uniform=draws
    )
    assert (float(x[0]), float(y[0])) == pytest.approx(expected, abs=1e-6)


def test_one_map_ends_in_its_fixed_point() -> None:
    given = VECTORS["single_map_fixed_point_canvas"]
    game = Game(num_points=given["bs"], num_iterations=given["iter"], num_skipped=given["iter_skip"])
    canvas = splat(play([given["w"]], borders=given["borders(min0,max0,min1,max1)"], size=given["res"], game=game))
    assert np.argwhere(canvas).tolist() == given["nonzero_pixels"]
    assert canvas[canvas > 0].tolist() == given["values"]


def test_the_sierpinski_triangle() -> None:
    given = VECTORS["sierpinski_binary_canvas"]
    canvas = splat(play(given["w"], borders=given["borders"], size=given["res"]))
    published = given["n_true_pixels(one random run)"]
    assert np.count_nonzero(canvas) == pytest.approx(published, rel=0.01)
    assert not canvas[30:34, 10:14].any()


@pytest.mark.parametrize("given", VECTORS["alias_method"], ids=lambda g: str(g["probs"]))
def test_maps_are_chosen_with_their_probabilities(given: dict) -> None:
    """Maps that lead to one pixel each, with areas in proportion to the probabilities."""
    probabilities = given["implied_probs"]
    # Thin enough that all points of map i end within pixel (i, 0).
    weights = [[p * 0.05, 0, index, 0, 0.05, 0] for index, p in enumerate(probabilities)]
    size = len(weights)
    counts = play(weights, borders=[-0.5, size - 1.5, -0.5, size - 1.5], size=size)
    assert counts.sum() == points_per_frame(SMALL)
    np.testing.assert_allclose(counts[:, 0] / counts.sum(), probabilities, atol=0.002)


def test_a_map_less_likely_than_one_point_is_chosen_now_and_then() -> None:
    game = Game(num_points=50, num_iterations=4100, num_skipped=100)
    weights = [[0.05, 0, 0, 0, 0.05, 0], [0.05 * 0.01, 0, 1, 0, 0.05, 0]]
    counts = play(weights, borders=[-0.5, 0.5, -0.5, 0.5], size=2, game=game)
    assert counts[1, 0] / counts.sum() == pytest.approx(0.01 / 1.01, rel=0.1)


def test_a_choice_does_not_depend_on_the_choice_before() -> None:
    """x is the last choice + a half of the one before + ...: which quarter of [0, 2] it is in tells the last two."""
    weights = [[0.5, 0, 0, 0, 0.5, 0], [0.5, 0, 1, 0, 0.5, 0]]
    counts = play(weights, borders=[0, 1.5, -0.6, 0.9], size=4)
    np.testing.assert_allclose(counts[:, 1] / points_per_frame(SMALL), 0.25, atol=0.01)


def test_every_point_marks_its_pixel_and_its_neighbours() -> None:
    given = VECTORS["splat_3x3"]
    counts = np.zeros((given["res"], given["res"]), np.int64)
    for row, column in given["pixels"]:
        if 0 <= row < given["res"] and 0 <= column < given["res"]:
            counts[row, column] += 1
    assert splat(counts).tolist() == given["canvas"]


def test_points_that_run_away_are_not_counted() -> None:
    runaway = [[4.0, 0, 0, 0, 4.0, 0], [0, -3.0, 1, 3.0, 0, 1]]
    assert play(runaway, borders=[-6, 6, -6, 6], size=16).sum() == 0


def test_the_edge_of_the_window_belongs_to_the_last_pixel() -> None:
    weights = [[0, 0, 1.0, 0, 0, -1.0]]  # all points on (1, -1)
    counts = play(weights, borders=[-1, 1, -1, 1], size=5)
    assert np.argwhere(counts).tolist() == [[4, 0]]
    below = play([[0, 0, -1.01, 0, 0, 0]], borders=[-1, 1, -1, 1], size=5)
    assert below.sum() == 0, "just outside is not rounded towards 0"


def test_a_window_without_height_is_no_error() -> None:
    weights = [[0, 0, 1.0, 0, 0, 0.5]]  # all points on (1, 0.5)
    assert np.argwhere(play(weights, borders=[1, 1, 0, 1], size=5)).tolist() == [[0, 2]]


@pytest.mark.parametrize("variation", [0, 4, 13, 17, 22])
def test_equal_seeds_play_equal_games(variation: int) -> None:
    weights = VECTORS["compose_params"]["weights(frames,n_fn,[a,b,tx,c,d,ty])"][0]
    first, again, other = (
        play(weights, borders=[-3, 3, -3, 3], size=64, variation=variation, seed=seed) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_few_points_that_move_often_draw_the_same_picture() -> None:
    weights = VECTORS["compose_params"]["weights(frames,n_fn,[a,b,tx,c,d,ty])"][0]
    few = Game(num_points=128, num_iterations=3000, num_skipped=200)
    many = Game(num_points=8192, num_iterations=69, num_skipped=25)
    shares = []
    for game in (few, many):
        counts = play(weights, borders=[-3, 3, -3, 3], size=16, game=game)
        shares.append(counts / points_per_frame(game))
    np.testing.assert_allclose(shares[0], shares[1], atol=0.004)


@pytest.mark.parametrize("index", range(2))
def test_the_bounding_box_is_the_published_one(index: int) -> None:
    given = VECTORS["bounding_box_keep0.9"]
    canvas = np.zeros((given["size"], given["size"]), bool)
    canvas[tuple(np.array(given["imgs_true_pixels"][index]).T)] = True
    assert list(bounding_box(canvas, keep=0.9)) == given["borders(h1,h2,w1,w2)"][index]
    assert list(bounding_box(canvas, keep=1.0)) == given["kept1.0"][index]


def test_next_to_no_pixels_leave_the_whole_canvas() -> None:
    canvas = np.zeros((8, 8), bool)
    assert bounding_box(canvas, keep=0.9) == (0, 7, 0, 7)
    canvas[3, 3] = True
    assert bounding_box(canvas, keep=0.9) == (0, 7, 0, 7)


@pytest.mark.parametrize("given", VECTORS["detect_borders_mapping(res_b128, search square [-6,6]^2, pad 10%)"])
def test_boxes_become_the_published_borders(given: dict) -> None:
    boxes = np.array(given["pixel_boxes first,last frame (h1,h2,w1,w2)"])
    (expected,) = (given[name] for name in given if name.startswith("video_borders"))
    borders = video_borders(boxes, size=128, num_frames=3)
    np.testing.assert_allclose(borders, [expected] * 3, atol=1e-5)
    np.testing.assert_allclose(image_borders(boxes, size=128), given["img_mode_borders(per frame)"], atol=1e-5)


@pytest.mark.parametrize(
    ("per_frame", "expected"), [(False, "video(global max)"), (True, "img(per frame max)")], ids=["video", "images"]
)
def test_brightness_is_the_published_one(per_frame: bool, expected: str) -> None:
    given = VECTORS["postprocess"]
    found = brightness(np.array(given["in"]), per_frame=per_frame)
    np.testing.assert_allclose(found, given[expected], atol=1e-6)
