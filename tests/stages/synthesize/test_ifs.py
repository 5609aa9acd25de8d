"""Maps of a fractal: published values, and what has to hold for every draw."""

import json
from pathlib import Path

import numpy as np
import pytest

from reelwright.stages.synthesize.families.ifs import (
    MovingMaps,
    draw_moving_maps,
    draw_singular_values,
    draw_sorted_singular_values,
    draw_still_weights,
    jitter_weights,
    map_probabilities,
)
from reelwright.stages.synthesize.families.motion import interpolate

VECTORS = json.loads((Path(__file__).parents[2] / "data" / "synthesize_vectors.json").read_text())["fractal"]
COMPOSED = VECTORS["compose_params"]


@pytest.mark.parametrize(
    ("is_constant", "linear_motion", "expected"),
    [
        (False, False, "weights(frames,n_fn,[a,b,tx,c,d,ty])"),
        (False, True, "weights_linear_motion"),
        (True, False, "weights_is_constant_bias"),
    ],
    ids=["moving", "linear motion", "constant translation"],
)
def test_weights_are_the_published_ones(is_constant: bool, linear_motion: bool, expected: str) -> None:
    maps = MovingMaps(
        profiles=np.array(COMPOSED["interp"]),
        angle=np.array(COMPOSED["angle(2,n_fn,2)"]),
        sigma=np.array(COMPOSED["sigma_diag(2,n_fn,2)"]),
        delta=np.array(COMPOSED["delta_diag(2 factors,n_fn,2)"]),
        bias=np.array(COMPOSED["bias(2,n_fn,2)"]),
        is_constant=is_constant,
    )
    np.testing.assert_allclose(maps.weights(linear_motion=linear_motion), COMPOSED[expected], atol=2e-7)


@pytest.mark.parametrize("given", VECTORS["sample_sigma_aux"], ids=lambda g: f"seed {g['np_seed']}, {g['n_fn']} maps")
def test_singular_values_are_the_published_ones(given: dict) -> None:
    drawn = draw_singular_values(np.random.RandomState(given["np_seed"]), given["n_fn"])
    np.testing.assert_allclose(drawn, given["sigma"], atol=2e-6)


def test_sorted_singular_values_are_the_published_ones() -> None:
    given = VECTORS["sample_sigma_sorted_by_det_desc"]
    rng = np.random.RandomState(given["np_seed"])
    for expected in given["diag"]:
        np.testing.assert_allclose(draw_sorted_singular_values(rng, len(expected)), expected, atol=2e-6)


@pytest.mark.parametrize("num_maps", range(3, 9))
def test_every_set_of_singular_values_lies_in_the_good_band(num_maps: int) -> None:
    rng = np.random.default_rng(num_maps)
    for _ in range(200):
        values = draw_sorted_singular_values(rng, num_maps)
        alpha = float((values @ [1, 2]).sum())
        assert (5 + num_maps) / 2 - 1e-9 <= alpha <= (6 + num_maps) / 2 + 1e-9
        assert (values[:, 0] >= values[:, 1]).all()
        assert (values >= 0).all()
        assert (values <= 1 + 1e-9).all()
        assert (np.diff(values.prod(axis=1)) <= 0).all()


def test_rotations_and_reflections_leave_the_determinant() -> None:
    maps = draw_moving_maps(np.random.default_rng(4))
    weights = maps.weights()
    areas = np.abs(weights[..., 0] * weights[..., 4] - weights[..., 1] * weights[..., 3])
    sigma = interpolate(maps.sigma[0], maps.sigma[1], maps.profiles)
    np.testing.assert_allclose(areas, np.abs(sigma.prod(axis=-1)), atol=1e-12)


def test_probabilities_follow_the_determinant() -> None:
    given = VECTORS["fn_probabilities_prop_abs_det"]
    np.testing.assert_allclose(map_probabilities(np.array(given["weights_frame0"])), given["probs"], atol=1e-6)


def test_maps_without_area_are_equally_likely() -> None:
    np.testing.assert_allclose(map_probabilities(np.zeros((2, 4, 6))), np.full((2, 4), 0.25))


def test_draws_have_the_promised_shapes() -> None:
    rng = np.random.default_rng(5)
    drawn = [draw_moving_maps(rng) for _ in range(300)]
    assert {maps.angle.shape[1] for maps in drawn} == set(range(3, 9))
    assert np.mean([maps.is_constant for maps in drawn]) == pytest.approx(0.2, abs=0.06)
    assert draw_still_weights(rng).shape[0] == 16
    assert set(np.unique(drawn[0].delta)) == {-1.0, 1.0}


def test_an_instance_bends_all_maps_alike_and_moves_each_by_itself() -> None:
    weights = np.ones((18, 5, 6))
    varied = jitter_weights(np.random.default_rng(6), weights)
    # The curves are shared by the maps, the offsets stay the same over time.
    offsets = varied - varied[:, :1]
    np.testing.assert_allclose(offsets, np.broadcast_to(offsets[:1], offsets.shape), atol=1e-12)
    assert 0 < np.abs(offsets).max() <= 0.4
    assert np.ptp(varied[:, 0], axis=0).min() > 0.01
