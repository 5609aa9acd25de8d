"""Mixup and cutmix: by hand, against CAST's and timm's values, exact shares, padding, and the same draw again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.data.mixup import Mixup, mixup_target

from reelwright.models.blocks.mixing import (
    Mix,
    MixDistribution,
    cut_box,
    draw_mix,
    mix_clips,
    mix_labels,
    mix_rows,
    mix_targets,
    window_share,
)
from reelwright.models.losses.classification import soft_targets

CAST = json.loads((Path(__file__).parents[1] / "data" / "training_vectors.json").read_text())["cast"]


def mixup_of(share, *, num_axes=2):
    share = np.atleast_1d(np.array(share, dtype=np.float64))
    empty = np.zeros((len(share), num_axes), dtype=np.int64)
    return Mix(share, empty, empty)


def cut_of(start, stop):
    start, stop = np.array(start, dtype=np.int64), np.array(stop, dtype=np.int64)
    return Mix(np.ones(len(start)), start, stop)


@pytest.mark.parametrize("case", CAST["mixup_target"], ids=lambda case: f"lam {case['lam']}")
def test_cast_targets(case):
    target = torch.tensor(case["target"])
    soft = soft_targets(target, num_classes=case["K"], smoothing=case["smoothing"])
    mixed = mix_targets(soft, torch.full((4,), case["lam"]))
    torch.testing.assert_close(mixed, torch.tensor(case["out"]))
    torch.testing.assert_close(mixed, mixup_target(target, case["K"], case["lam"], case["smoothing"]))


@pytest.mark.parametrize("case", CAST["cutmix_bbox_224"], ids=lambda case: str(case["centre(y,x)"]))
def test_cast_boxes(case):
    start, stop = cut_box([case["lam_in"]], [case["centre(y,x)"]], extent=(224, 224))
    top, bottom, left, right = case["bbox(yl,yh,xl,xh)"]
    assert start.tolist() == [[top, left]]
    assert stop.tolist() == [[bottom, right]]
    _, share = mix_clips(torch.zeros(1, 1, 3, 224, 224), Mix(np.ones(1), start, stop))
    assert share.item() == pytest.approx(case["lam_corrected"], abs=1e-6)


def test_cast_batch():
    case = CAST["mixup_batch"]
    mixed, share = mix_clips(torch.tensor(case["x"])[:, None, None, :], mixup_of([case["lam"]] * 4))
    torch.testing.assert_close(mixed[:, 0, 0], torch.tensor(case["out"]))
    assert share.tolist() == [0.25] * 4


def test_a_box_is_the_same_in_every_frame():
    x = torch.stack([torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4)])  # (B=2, T=2, C=1, 4, 4)
    mixed, share = mix_clips(x, cut_of([[0, 1], [2, 2]], [[2, 4], [4, 3]]))
    assert mixed[0, 0, 0].tolist() == [[0, 1, 1, 1], [0, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert mixed[1, 0, 0].tolist() == [[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 0, 1], [1, 1, 0, 1]]
    assert torch.equal(mixed[:, 0], mixed[:, 1])
    assert share.tolist() == [10 / 16, 14 / 16]


def test_rows_are_cut_in_time_and_row_targets_follow():
    x = torch.tensor([[[1.0], [2.0], [3.0], [4.0]], [[10.0], [20.0], [30.0], [40.0]]])
    mask = torch.ones(2, 4, dtype=torch.bool)
    mixed, share = mix_rows(x, mask, cut_of([[1], [0]], [[3], [1]]))
    assert mixed[..., 0].tolist() == [[1, 20, 30, 4], [1, 20, 30, 40]]
    assert share.tolist() == [[1, 0, 0, 1], [0, 1, 1, 1]]
    assert window_share(share, mask).tolist() == [0.5, 0.75]
    soft = soft_targets(torch.tensor([[0, 0, 0, 0], [1, 1, 1, 1]]), num_classes=2)
    assert mix_targets(soft, share)[..., 1].tolist() == [[0, 1, 1, 0], [0, 1, 1, 1]]


def test_padding_takes_no_part():
    x = torch.tensor([[[1.0], [2.0], [float("nan")]], [[10.0], [20.0], [30.0]]])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    mixed, share = mix_rows(x, mask, mixup_of([0.5, 0.25], num_axes=1))
    assert mixed[0, :2, 0].tolist() == [5.5, 11.0]
    assert mixed[1, :, 0].tolist() == [3.25, 6.5, 30.0]  # the last has nothing beside it
    torch.testing.assert_close(window_share(share, mask), torch.tensor([0.5, (0.25 + 0.25 + 1) / 3]))


def test_unknown_targets_stay_unknown():
    soft = soft_targets(torch.tensor([0, -1, 1, 1]), num_classes=2)
    assert mix_targets(soft, torch.tensor([0.5, 0.5, 0.5, 0.5])).tolist() == [[0.5, 0.5], [0, 0], [0, 0], [0.5, 0.5]]
    kept = mix_targets(soft, torch.tensor([1.0, 0.0, 1.0, 1.0]))  # 1 is wholly replaced by 2, which is known
    assert kept.tolist() == [[1, 0], [0, 1], [0, 1], [0, 1]]
    labels = torch.tensor([[1.0, 0.0], [0.0, -1.0]])
    assert mix_labels(labels, torch.tensor([0.25, 1.0])).tolist() == [[0.25, -1.0], [0.0, -1.0]]


def test_shares_finer_than_targets_are_refused():
    with pytest.raises(ValueError, match=r"shares \(2, 4\) are finer than targets \(2, 3\); use window_share"):
        mix_targets(torch.zeros(2, 3), torch.ones(2, 4))


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
@pytest.mark.parametrize("batch_size", [4, 5])
def test_modes(mode, batch_size):
    mix = draw_mix(MixDistribution(mode=mode), batch_size, extent=(32, 48), generator=np.random.default_rng(3))
    drawn = np.column_stack([mix.share, mix.start, mix.stop])
    expected = {"batch": 1, "pair": (batch_size + 1) // 2, "elem": batch_size}[mode]
    assert len(np.unique(drawn, axis=0)) == expected
    if mode != "elem":
        assert (drawn == drawn[::-1]).all()  # i and its partner alike


def test_the_same_generator_draws_the_same():
    how = MixDistribution(mode="elem")
    one, same, other = (draw_mix(how, 6, extent=(9, 9), generator=np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (one.share == same.share).all()
    assert (one.start == same.start).all()
    assert (one.share != other.share).any()


SWITCHES = {
    "never mixed": ({"probability": 0.0}, 0.0, 0.0),
    "only mixup": ({"switch_probability": 0.0}, 1.0, 0.0),
    "only cutmix": ({"switch_probability": 1.0}, 1.0, 1.0),
    "no alpha of cutmix": ({"cutmix_alpha": 0.0, "switch_probability": 1.0}, 1.0, 0.0),
    "no alpha of mixup": ({"mixup_alpha": 0.0, "switch_probability": 0.0}, 1.0, 1.0),
    "half and half": ({"probability": 0.5, "switch_probability": 0.5}, 0.5, 0.25),
}


@pytest.mark.parametrize(("how", "mixed", "cut"), SWITCHES.values(), ids=SWITCHES)
def test_how_often(how, mixed, cut):
    mix = draw_mix(MixDistribution(mode="elem", **how), 4000, extent=(64, 64), generator=np.random.default_rng(0))
    has_box = (mix.stop > mix.start).all(axis=1)
    assert has_box.mean() == pytest.approx(cut, abs=0.03)  # a drawn box may be empty, rarely
    assert ((mix.share < 1) | has_box).mean() == pytest.approx(mixed, abs=0.03)


def test_what_is_cut_is_not_mixed_up_as_well():
    mix = draw_mix(MixDistribution(mode="elem"), 200, extent=(64, 64), generator=np.random.default_rng(0))
    is_cut = (mix.stop > mix.start).all(axis=1)
    assert is_cut.any()
    assert (mix.share[is_cut] == 1).all()


def test_shares_are_beta():
    how = MixDistribution(mixup_alpha=0.8, cutmix_alpha=0.0, mode="elem")
    share = draw_mix(how, 20000, extent=(8, 8), generator=np.random.default_rng(0)).share
    assert share.mean() == pytest.approx(0.5, abs=0.01)
    assert share.var() == pytest.approx(1 / (4 * (2 * 0.8 + 1)), abs=0.003)  # variance of Beta(a, a)


def test_minmax_boxes_lie_inside():
    how = MixDistribution(cutmix_minmax=(0.25, 0.75), mixup_alpha=0.0, mode="elem")
    mix = draw_mix(how, 500, extent=(32, 16), generator=np.random.default_rng(0))
    sides = mix.stop - mix.start
    assert (mix.start >= 0).all()
    assert (mix.stop <= [32, 16]).all()
    assert sides.min(axis=0).tolist() == [8, 4]
    assert sides.max(axis=0).tolist() == [23, 11]  # below 0.75, as numpy's integers


def test_a_batch_is_mixed_as_by_timm(monkeypatch):
    """timm draws from numpy's global state; here its draws are given, and both must make the same of them."""
    share, centre = 0.5, (5, 9)  # a box of 8 by 8; newer timm has one pixel more where the side is odd
    start, stop = cut_box([share] * 4, [centre] * 4, extent=(12, 12))
    monkeypatch.setattr(np.random, "beta", lambda *_: share)
    monkeypatch.setattr(np.random, "rand", lambda *_: 0.0)
    monkeypatch.setattr(np.random, "randint", _in_turn(centre))
    x = torch.arange(4 * 2 * 3 * 12 * 12).reshape(4, 6, 12, 12).float()  # T and C side by side
    theirs, target = Mixup(num_classes=5, cutmix_alpha=1.0, label_smoothing=0.0)(x.clone(), torch.tensor([0, 1, 2, 3]))
    ours, kept = mix_clips(x.reshape(4, 2, 3, 12, 12), Mix(np.ones(4), start, stop))
    torch.testing.assert_close(ours.reshape(x.shape), theirs)
    torch.testing.assert_close(mix_targets(soft_targets(torch.arange(4), num_classes=5), kept), target)


def _in_turn(values):
    left = iter(values)
    return lambda *_, **__: next(left)


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 1), st.integers(1, 40), st.integers(1, 40), st.data())
def test_the_share_is_the_exact_area(share, height, width, data):
    centre = [data.draw(st.integers(0, size - 1)) for size in (height, width)]
    start, stop = cut_box([share] * 2, [centre] * 2, extent=(height, width))
    x = torch.stack([torch.zeros(1, height, width), torch.ones(1, height, width)])
    mixed, kept = mix_clips(x, Mix(np.ones(2), start, stop))
    assert kept[0].item() == pytest.approx(1 - mixed[0].mean().item(), abs=1e-6)
    assert kept[0] >= share - 1e-6  # rounding and the border make a box smaller, never larger


def test_one_axis_is_cut_by_its_length():
    start, stop = cut_box([0.75], [[4]], extent=(8,))
    assert (stop - start).tolist() == [[2]]
