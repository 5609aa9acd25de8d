"""Perlin, octopus, dead leaves and fractals as videos: published values, ranges and what instances have in common."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reelwright.stages.synthesize.config import SynthesizeConfig
from reelwright.stages.synthesize.families import dead_leaves, octopus, perlin
from reelwright.stages.synthesize.families.table import FAMILIES, is_degenerate, visible_share
from reelwright.stages.synthesize.family_settings import FractalConfig

VECTORS = json.loads((Path(__file__).parents[2] / "data" / "synthesize_vectors.json").read_text())
OTHER = VECTORS["other"]
QUICK = FractalConfig(num_points=512, num_iterations=60)


def config_of(family: str, **more: Any) -> SynthesizeConfig:
    size = {} if family == "perlin" else {"size": 64}
    own = {"fractal": QUICK} if family == "fractal" else {}
    return SynthesizeConfig.model_validate({"family": family, **size, **own, **more})


def test_the_fade_is_the_published_one() -> None:
    given = OTHER["perlin_fade"]
    np.testing.assert_allclose(perlin.fade(np.array(given["t"])), given["6t^5-15t^4+10t^3"], atol=1e-6)


def test_there_are_the_published_256_labels() -> None:
    given, found = OTHER["perlin_labels"], perlin.labels()
    assert len(found) == len(set(found)) == given["count"]
    assert found[: len(given["first"])] == given["first"]
    assert found[-len(given["last"]) :] == given["last"]


@pytest.mark.parametrize(
    ("frequencies", "shape"),
    [((4, 2, 1), (16, 16, 4)), ((1, 1, 1), (6, 8, 5)), ((5, 8, 2), (20, 16, 6)), ((3, 2, 3), (6, 6, 6))],
    ids=str,
)
def test_noise_is_a_half_on_the_lattice_and_that_of_eight_corners_elsewhere(frequencies: tuple, shape: tuple) -> None:
    rng = np.random.default_rng(0)
    theta, phi = rng.uniform(0, 2 * np.pi, size=(2, *(value + 1 for value in frequencies)))
    gradients = perlin.gradients_of(theta, phi)
    np.testing.assert_allclose((gradients**2).sum(axis=-1), 1.0)
    noise = perlin.gradient_noise(gradients, shape=shape)
    assert noise.shape == (shape[2], shape[0], shape[1])
    steps = [side // frequency for side, frequency in zip(shape, frequencies, strict=True)]
    np.testing.assert_allclose(noise[:: steps[2], :: steps[0], :: steps[1]], 0.5, atol=1e-12)
    for place in np.ndindex(shape):
        expected = eight_corners(gradients, [index / step for index, step in zip(place, steps, strict=True)])
        assert noise[place[2], place[0], place[1]] == pytest.approx((expected + 1) / 2, abs=1e-12)


def eight_corners(gradients: np.ndarray, position: list[float]) -> float:
    """Perlin's definition, one corner of the cell after the other."""
    total = 0.0
    cell = [int(value) for value in position]
    for corner in np.ndindex(2, 2, 2):
        offset = [value - low - up for value, low, up in zip(position, cell, corner, strict=True)]
        ramp = float(np.dot(gradients[tuple(low + up for low, up in zip(cell, corner, strict=True))], offset))
        weights = [6 * t**5 - 15 * t**4 + 10 * t**3 for t in (v - c for v, c in zip(position, cell, strict=True))]
        total += ramp * float(np.prod([w if up else 1 - w for w, up in zip(weights, corner, strict=True)]))
    return total


def test_frequencies_have_to_divide_the_frame() -> None:
    with pytest.raises(ValueError, match=r"frequencies \(3, 2, 1\) do not divide the sides \(16, 16, 4\)"):
        perlin.gradient_noise(np.zeros((4, 3, 2, 3)), shape=(16, 16, 4))


def test_perlin_has_the_published_range() -> None:
    drawn = [
        FAMILIES["perlin"].render(
            perlin.parameters_of("10-12-1"),
            rng=np.random.default_rng(seed),
            config=config_of("perlin"),
            is_instance=True,
        )
        for seed in range(4)
    ]
    low, high = OTHER["perlin_range_20draws"]
    assert min(frames.min() for frames in drawn) / 255 == pytest.approx(low, abs=0.06)
    assert max(frames.max() for frames in drawn) / 255 == pytest.approx(high, abs=0.06)


def test_leaves_are_stretched_to_the_canvas_as_published() -> None:
    given = OTHER["dead_leaves_normalize_coords"]
    found = dead_leaves.normalize(np.array(given["coords(frames,poly,2)"]), size=given["res"])
    assert found.tolist() == given["out"]


def test_instances_drop_a_fifth_of_the_leaves() -> None:
    rng = np.random.default_rng(0)
    coords = np.random.default_rng(1).normal(size=(19, 30, 2))
    kept = [dead_leaves.vary(rng, coords).shape[1] for _ in range(60)]
    assert np.mean(kept) == pytest.approx(24, abs=1.5)
    assert dead_leaves.vary(rng, coords[:, :1]).shape == (19, 1, 2), "one leaf is never dropped"


def test_an_octopus_is_stretched_to_the_canvas_as_published() -> None:
    given = OTHER["octopus_quantize_coords"]
    assert octopus.quantize(np.array(given["coords"]), size=given["res"]).tolist() == given["out"]


def test_limbs_meet_near_their_beginning() -> None:
    limbs = np.random.default_rng(0).normal(size=(3, 4, 512, 2))
    joined = octopus.join_limbs(np.random.default_rng(1), limbs).reshape(4, 3, 512, 2)
    early = joined[:, :, : int(512 * 0.15) + 1]
    meetings = 0
    for one, other in ((0, 1), (0, 2), (1, 2)):
        distances = np.abs(early[:, one, :, None] - early[:, other, None]).max(axis=(0, 3))
        meetings += distances.min() < 1e-9  # the same two points, in every frame
    assert meetings >= 2


@pytest.mark.parametrize("family", FAMILIES)
def test_a_video_has_the_promised_shape_and_moves(family: str) -> None:
    config = config_of(family)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        made = FAMILIES[family]
        if made.labels is None:
            parameters = made.draw_class(rng, config, variation=0)
            made.check(parameters)
        else:
            parameters = made.parameters_of(made.labels(config)[17 * seed])
        frames = made.render(parameters, rng=rng, config=config, is_instance=False)
        assert frames.dtype == np.uint8
        assert 18 <= len(frames) <= 20 or (family == "actions" and len(frames) == 32)
        assert frames.shape[1:] == (
            (240, 240) if family == "perlin" else (64, 64) if family == "fractal" else (64, 64, 3)
        )
        assert (frames[0] != frames[-1]).any()
        if family == "fractal":
            assert frames.max() == 255


@pytest.mark.parametrize("family", ["fractal", "octopus", "dead_leaves"])
def test_instances_of_a_class_differ(family: str) -> None:
    config = config_of(family)
    parameters = FAMILIES[family].draw_class(np.random.default_rng(0), config, variation=0)
    before = {name: values.copy() for name, values in parameters.items()}
    first, second = (
        FAMILIES[family].render(parameters, rng=np.random.default_rng(seed), config=config, is_instance=True)
        for seed in (1, 2)
    )
    assert first.shape == second.shape
    assert (first != second).any()
    for name, values in before.items():
        np.testing.assert_array_equal(parameters[name], values)


def test_linear_motion_takes_the_place_of_all_profiles() -> None:
    config = config_of("fractal", fractal=QUICK.model_copy(update={"linear_motion": True}))
    parameters = FAMILIES["fractal"].draw_class(np.random.default_rng(0), config, variation=0)
    flat = {**parameters, "interp": np.zeros_like(parameters["interp"])}
    moved, still = (
        FAMILIES["fractal"].render(flat, rng=np.random.default_rng(1), config=c, is_instance=False)
        for c in (config, config_of("fractal"))
    )
    assert (moved[0] != moved[-1]).any()
    np.testing.assert_array_equal(still[0], still[-1])


def test_still_images_are_sixteen_each_with_its_own_white() -> None:
    config = config_of("fractal", fractal=QUICK.model_copy(update={"still": True}))
    parameters = FAMILIES["fractal"].draw_class(np.random.default_rng(0), config, variation=0)
    frames = FAMILIES["fractal"].render(parameters, rng=np.random.default_rng(1), config=config, is_instance=True)
    assert frames.shape == (16, 64, 64)
    assert frames.max(axis=(1, 2)).tolist() == [255] * 16


def test_classes_of_videos_make_no_images() -> None:
    parameters = FAMILIES["fractal"].draw_class(np.random.default_rng(0), config_of("fractal"), variation=0)
    still = config_of("fractal", fractal=FractalConfig(still=True))
    with pytest.raises(ValueError, match="the class is one of videos, and images are asked for"):
        FAMILIES["fractal"].render(parameters, rng=np.random.default_rng(1), config=still, is_instance=False)


def frames_with(num_lit: int, *, level: int = 255) -> np.ndarray:
    frame = np.zeros((20, 20), np.uint8)
    frame.ravel()[:num_lit] = level
    return frame


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        (frames_with(0), frames_with(0), True),
        (frames_with(3), frames_with(3), True),
        (frames_with(4), frames_with(0), False),
        (frames_with(0), frames_with(400), False),
        (frames_with(400, level=7), frames_with(400, level=7), True),
    ],
    ids=["black", "too few at both ends", "enough at the start", "enough at the end", "too dark"],
)
def test_degenerate_is_next_to_nothing_at_both_ends(first: np.ndarray, last: np.ndarray, expected: bool) -> None:
    middle = frames_with(400)
    assert is_degenerate(np.stack([first, middle, last]), is_still=False) is expected


def test_one_empty_image_makes_a_set_degenerate() -> None:
    assert is_degenerate(np.stack([frames_with(400), frames_with(0)]), is_still=True)
    assert not is_degenerate(np.stack([frames_with(400), frames_with(4)]), is_still=True)
    assert visible_share(np.stack([frames_with(100)] * 3, axis=-1)) == 0.25
