"""RandAugment for clips: the grammar, levels against CAST's values and timm's own, one draw a clip."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from timm.data.auto_augment import LEVEL_TO_ARG, rand_augment_transform

from reelwright.stages.augment.rand_augment import (
    RandAugment,
    apply_operations,
    draw_operations,
    level_arguments,
    parse_rand_augment,
    rand_augment,
)

CAST = json.loads((Path(__file__).parents[2] / "data" / "training_vectors.json").read_text())["cast"]["rand_augment"]
LEVELS = CAST["level_args(before random sign)"]


def clip(frames=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (frames, 20, 24, 3), dtype=np.uint8)


def test_the_text_of_cast():
    how = parse_rand_augment(CAST["config"])
    assert list(how.names) == CAST["ops"]
    assert how.chances is None
    assert [how.num_operations, how.magnitude, how.magnitude_std, how.probability] == [
        CAST["num_layers"],
        CAST["magnitude"],
        CAST["magnitude_std"],
        CAST["op_prob"],
    ]


@pytest.mark.parametrize("name", LEVELS)
def test_levels_of_cast(name):
    for magnitude, arguments in LEVELS[name].items():
        assert list(level_arguments(name, float(magnitude))) == pytest.approx(arguments)


@pytest.mark.parametrize("text", ["rand", "rand-inc1", "rand-t3a", "rand-t3aw", "rand-tweights"])
def test_levels_of_timm(text):
    """Every operation that can be drawn, at several magnitudes, on both sides."""
    for name in parse_rand_augment(text).names:
        theirs = LEVEL_TO_ARG[name]
        for magnitude in (0.0, 3.3, 7.0, 10.0, 14.0):
            expected = []
            for seed in (0, 1):  # timm takes the side from here: 0.84 negates, 0.13 does not
                random.seed(seed)
                expected.append(theirs(magnitude, {}) if theirs else ())
            found = [level_arguments(name, magnitude, is_negated=side) for side in (True, False)]
            np.testing.assert_allclose(found, expected, atol=1e-12)


GRAMMAR = [
    "rand-m9-n3-mstd0.5",
    "rand-m5",
    "rand-n1-inc1-p0.9",
    "rand-mstd101",
    "rand-mmax12-m11",
    "rand-m9-tweights-n4",
]


@pytest.mark.parametrize("text", GRAMMAR)
def test_the_grammar_is_timms(text):
    how, theirs = parse_rand_augment(text), rand_augment_transform(text, {"translate_const": 100})
    assert list(how.names) == [op.name for op in theirs.ops]
    assert how.num_operations == theirs.num_layers
    first = theirs.ops[0]
    assert (how.magnitude, how.probability, how.magnitude_std) == (first.magnitude, first.prob, first.magnitude_std)
    assert how.magnitude_max == (first.magnitude_max or 10)
    if theirs.choice_weights is None:
        assert how.chances is None
    else:
        assert how.chances == pytest.approx(theirs.choice_weights.tolist())


def test_old_weights():
    how = parse_rand_augment("rand-m7-n2-w0-inc1")
    chances = dict(zip(how.names, how.chances, strict=True))
    assert sum(chances.values()) == pytest.approx(1)
    assert chances["Rotate"] / chances["ColorIncreasing"] == pytest.approx(12)
    assert "Invert" not in chances


BAD = {
    "no rand": ("m7-n4", "must begin with 'rand'"),
    "section": ("rand-m7-x3", "section 'x3' cannot be read; allowed: m0 to m100"),
    "empty": ("rand-m", "section 'm' cannot be read"),
    "whole number": ("rand-m7.5", "section 'm7.5' cannot be read"),
    "probability": ("rand-p1.5", "section 'p1.5'"),
    "two dots": ("rand-mstd0.5.5", "section 'mstd0.5.5'"),
    "set": ("rand-tall", "section 'tall'"),
    "twice": ("rand-m7-n2-m9", "says m twice"),
    "two sets": ("rand-t3a-w0", "says a set of operations twice"),
    "too many": ("rand-t3aw-n99", "n99 is more than the 14 operations"),
}


@pytest.mark.parametrize(("text", "match"), BAD.values(), ids=BAD)
def test_bad_texts(text, match):
    with pytest.raises(ValueError, match=match):
        parse_rand_augment(text)


def test_bad_interpolation():
    with pytest.raises(ValueError, match="interpolation 'area' is not known; allowed: bilinear, bicubic, random"):
        parse_rand_augment("rand", interpolation="area")


def test_all_frames_of_a_clip_are_treated_alike():
    how = parse_rand_augment("rand-m9-n4-p1-mstd2-inc1", interpolation="random")
    frame = clip(1)
    for seed in range(20):
        done = rand_augment(np.repeat(frame, 3, axis=0), how, np.random.default_rng(seed))
        assert done.shape == (3, 20, 24, 3)
        assert done.dtype == np.uint8
        assert (done == done[:1]).all()


def test_the_same_generator_gives_the_same_clip_whatever_the_global_state():
    how, frames = parse_rand_augment("rand-m9-n4-mstd2-inc1", interpolation="random"), clip()
    first = rand_augment(frames, how, np.random.default_rng(4))
    random.seed(99)
    np.random.seed(99)  # noqa: NPY002 -- the state that timm draws from
    assert (rand_augment(frames, how, np.random.default_rng(4)) == first).all()
    before = random.getstate()
    rand_augment(frames, how, np.random.default_rng(5))
    assert random.getstate() == before


@pytest.mark.parametrize("name", CAST["ops"])
def test_operations_are_timms(name):
    """The whole of timm's transform, its draws given, makes the same picture."""
    how = RandAugment(names=(name,), num_operations=1, probability=1.0, magnitude=7.0, fill=(9, 8, 7))
    theirs = rand_augment_transform(
        "rand-m7-n1-p1-inc1", {"img_mean": (9, 8, 7), "interpolation": Image.Resampling.BICUBIC}, transforms=[name]
    )
    frames = clip(1)
    picture = Image.fromarray(frames[0])
    expected = []
    for seed in range(8):
        random.seed(seed)
        expected.append(np.asarray(theirs(picture)))
    for seed in range(4):
        done = rand_augment(frames, how, np.random.default_rng(seed))[0]
        assert any((done == one).all() for one in expected)


def test_how_often_and_how_strong():
    how = parse_rand_augment("rand-m5-n2-mstd1")
    drawn = [draw_operations(how, np.random.default_rng(seed)) for seed in range(3000)]
    assert np.mean([len(operations) for operations in drawn]) == pytest.approx(1.0, abs=0.05)
    degrees = [op.arguments[0] / 3 for operations in drawn for op in operations if op.name == "Rotate"]
    assert np.mean(np.abs(degrees)) == pytest.approx(5, abs=0.3)
    assert np.std(np.abs(degrees)) == pytest.approx(1, abs=0.2)
    assert np.mean(np.sign(degrees)) == pytest.approx(0, abs=0.25)


def test_uniform_magnitudes_and_their_bound():
    uniform = parse_rand_augment("rand-m8-n1-p1-mstd101")
    assert math.isinf(uniform.magnitude_std)
    how = parse_rand_augment("rand-m9-n1-p1-mstd50")
    for settings, most in ((uniform, 8), (how, 10)):
        drawn = [draw_operations(settings, np.random.default_rng(seed)) for seed in range(800)]
        degrees = [abs(op.arguments[0]) / 3 for (op,) in drawn if op.name == "Rotate"]
        assert max(degrees) <= most
        assert min(degrees) < 1


def test_weighted_sets_are_drawn_without_replacement():
    how = parse_rand_augment("rand-n14-t3aw-p1")
    drawn = draw_operations(how, np.random.default_rng(0))
    assert len({operation.name for operation in drawn}) == 14


def test_the_strongest_posterize_keeps_a_bit():
    how = RandAugment(names=("PosterizeIncreasing",), num_operations=1, probability=1.0)
    done = rand_augment(clip(), how, np.random.default_rng(0))
    assert set(np.unique(done)) == {0, 128}


def test_nothing_drawn_leaves_the_clip():
    frames = clip()
    assert apply_operations(frames, ()) is frames
    assert draw_operations(parse_rand_augment("rand-p0"), np.random.default_rng(0)) == ()
