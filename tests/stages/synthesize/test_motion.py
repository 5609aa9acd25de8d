"""Profiles and jitter: values of the published generator, and what each kind promises."""

import json
import random
from pathlib import Path

import numpy as np
import pytest

from reelwright.stages.synthesize.families.motion import (
    NON_LINEAR,
    curve_profile,
    draw_jitter,
    draw_profiles,
    interpolate,
    linear_profile,
    num_modulations,
    periodic_profile,
    sharp_profile,
)

VECTORS = json.loads((Path(__file__).parents[2] / "data" / "synthesize_vectors.json").read_text())["fractal"]


def test_interpolation_is_straight_in_the_profile() -> None:
    given = VECTORS["interp_array"]
    start, end, profiles = (np.array(given[name]) for name in ("start", "end", "interp(frames x n_fn)"))
    np.testing.assert_allclose(interpolate(start, end, profiles), given["output"])


def test_sharp_is_the_published_one() -> None:
    drawn = random.Random(5)
    ramp = drawn.randint(4, 8)
    before = drawn.randint(4, 19 - ramp - 4)
    expected = VECTORS["interp_sharp_seed5_size19"]
    np.testing.assert_allclose(sharp_profile(19, before=before, ramp=ramp), expected, atol=1e-6)


def test_curve_is_the_published_one() -> None:
    drawn, count = np.random.RandomState(5), random.Random(5).randint(5, 9)
    for _ in range(6):
        values = drawn.uniform(0, 1, size=count)
        if np.abs(np.diff(values)).mean() > 0.45:
            break
    np.testing.assert_allclose(curve_profile(19, values=values), VECTORS["interp_curve_seed5_size19"], atol=1e-6)


def test_periodic_is_the_published_one() -> None:
    whole, drawn = random.Random(5), np.random.RandomState(5)
    period = whole.randint(5, 15)
    amplitude = whole.uniform(1.5, 4.0) * period / 100
    count = num_modulations(19, period)
    profile = periodic_profile(
        19,
        period=period,
        amplitude=amplitude,
        frequencies=drawn.uniform(0.15, 1.7, count),
        amplitudes=drawn.uniform(0.6, 1.0, count),
    )
    np.testing.assert_allclose(profile, VECTORS["interp_periodic_seed5_size19"], atol=1e-6)


def test_jitter_is_the_published_one() -> None:
    count = random.Random(5).randint(4, 7)
    values = np.random.RandomState(5).uniform(0.65, 1.35, count)
    np.testing.assert_allclose(curve_profile(8, values=values), VECTORS["random_curve_seed5_n8_eps0.35"], atol=1e-6)


@pytest.mark.parametrize("name", NON_LINEAR)
def test_drawn_profiles_have_the_published_range(name: str) -> None:
    """Statistics of 300 draws of the published generator; splines may go a little further by chance."""
    published = VECTORS["interp_stats_300draws_19frames"][name]
    rng = np.random.default_rng(0)
    drawn = np.array([NON_LINEAR[name][0](rng, 19) for _ in range(300)])
    assert drawn.shape == (300, 19)
    assert drawn.min() == pytest.approx(published["min"], abs=0.08)
    assert drawn.max() == pytest.approx(published["max"], abs=0.08)
    assert drawn.max(axis=1).mean() == pytest.approx(published["mean_max"], abs=0.03)


@pytest.mark.parametrize("num_frames", [18, 19, 20])
def test_sharp_is_flat_for_four_frames_on_each_side(num_frames: int) -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        profile = NON_LINEAR["sharp"][0](rng, num_frames)
        assert (profile[:4] == 0).all()
        assert (profile[-4:] == 1).all()
        assert (np.diff(profile) >= 0).all()


def test_profiles_of_many_functions_are_mixed_as_published() -> None:
    rng = np.random.default_rng(2)
    drawn = [draw_profiles(rng, 6) for _ in range(800)]
    assert {profiles.shape[0] for profiles in drawn} == {18, 19, 20}
    assert {profiles.shape[1] for profiles in drawn} == {6}
    shared = [bool((profiles == profiles[:, :1]).all()) for profiles in drawn]
    linear = [bool((profiles == linear_profile(len(profiles))[:, None]).all()) for profiles in drawn]
    # 0.2 linear; of 0.8, 0.4 shared; of the rest a few have the same profile everywhere by chance.
    assert np.mean(linear) == pytest.approx(0.2, abs=0.05)
    assert np.mean(np.array(shared) & ~np.array(linear)) == pytest.approx(0.32, abs=0.06)
    assert max(len(np.unique(profiles, axis=1).T) for profiles in drawn) == 3


def test_jitter_stays_around_one() -> None:
    rng = np.random.default_rng(3)
    drawn = np.array([draw_jitter(rng, 20, eps=0.2) for _ in range(500)])
    assert drawn.mean() == pytest.approx(1.0, abs=0.02)
    assert 0.65 < drawn.min() < 0.85
