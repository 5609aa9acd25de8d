"""Cycle consistency and n pairs against the public code's values, by hand, and where they must stay numbers."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from reelwright.models.losses.contrastive import time_contrastive_loss
from reelwright.models.losses.cycle_consistency import CycleConsistency, cycle_consistency_loss

VALUES = json.loads((Path(__file__).parents[1] / "data" / "carl_losses.json").read_text(encoding="utf-8"))
TCC, TCN = VALUES["tcc"], VALUES["tcn"]
FORMS = ("regression_mse_var", "regression_mse", "regression_huber", "classification")
NAMES = {
    "LOSS_TYPE": "form",
    "SIMILARITY_TYPE": "similarity",
    "SOFTMAX_TEMPERATURE": "temperature",
    "LABEL_SMOOTHING": "label_smoothing",
    "VARIANCE_LAMBDA": "variance_weight",
    "NORMALIZE_INDICES": "normalize",
}


def given():
    """Embeddings, positions, lengths, mask."""
    z = torch.tensor(TCC["embeddings"], dtype=torch.float64).requires_grad_()
    return z, torch.tensor(TCC["steps"]), torch.tensor(TCC["seq_lens"]), torch.ones(z.shape[:2], dtype=torch.bool)


@pytest.mark.parametrize("case", TCC["cases"], ids=lambda case: str(case["override"]))
def test_values_of_the_public_code(case):
    chosen = {**TCC["defaults"], **case["override"]}
    how = CycleConsistency(**{ours: chosen[name] for name, ours in NAMES.items()}, compat=True)
    z, *rest = given()
    found = cycle_consistency_loss(z, *rest, how=how)
    assert found.total.item() == pytest.approx(case["loss"], rel=1e-9)
    if found.parts:
        variance = how.variance_weight * case["extra"]["pred_time_log_var"]
        assert found.parts["variance"].item() == pytest.approx(variance, rel=1e-9)
        assert sum(found.parts.values()).item() == found.total.item()
    found.total.backward()
    assert torch.isfinite(z.grad).all()
    in_float = cycle_consistency_loss(z.detach().float(), *rest, how=how)
    assert in_float.total.item() == pytest.approx(case["loss"], rel=1e-4)


def test_huber_of_the_public_code():
    # psr_and_carl.md B3.4
    found = cycle_consistency_loss(*given(), how=CycleConsistency(form="regression_huber"))
    assert found.total.item() == pytest.approx(0.0447882438, abs=1e-10)
    narrow = cycle_consistency_loss(*given(), how=CycleConsistency(form="regression_huber", huber_delta=0.1))
    assert narrow.total.item() < found.total.item()


def literal_logits(z, i, j, temperature=0.1):
    """Of every frame of video i: there and back by video j, in plain numbers."""
    scale = z.shape[-1] * temperature
    rows = []
    for u in z[i]:
        share = torch.softmax(torch.stack([-(u - v).square().sum() / scale for v in z[j]]), 0)
        there = sum(s * v for s, v in zip(share, z[j], strict=True))
        rows.append(torch.stack([-(there - back).square().sum() / scale for back in z[i]]))
    return torch.stack(rows)


def test_classification_is_cross_entropy_with_smoothed_labels():
    z, *rest = given()
    found = cycle_consistency_loss(z, *rest, how=CycleConsistency(form="classification"))
    label = torch.full((5, 5), 0.025, dtype=torch.float64).fill_diagonal_(0.9)  # 0.1 shared by the four others
    losses = [-(label * literal_logits(z, i, 1 - i).log_softmax(1)).sum(1) for i in (0, 1)]
    assert found.total.item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-9)
    found.total.backward()
    assert z.grad.abs().sum() > 0


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("similarity", ["l2", "cosine"])
@pytest.mark.parametrize("compat", [False, True])
def test_masked_frames_are_nowhere(form, similarity, compat):
    """A video with masked frames at its end is the video without them."""
    z, positions, lengths, _ = given()
    how = CycleConsistency(form=form, similarity=similarity, compat=compat)
    cut = z[:, :3].detach(), positions[:, :3], lengths, torch.ones(2, 3, dtype=torch.bool)
    mask = torch.tensor([[True] * 3 + [False] * 2] * 2)
    masked = cycle_consistency_loss(z, positions, lengths, mask, how=how)
    assert masked.total.item() == pytest.approx(cycle_consistency_loss(*cut, how=how).total.item(), rel=1e-9)
    masked.total.backward()
    assert torch.isfinite(z.grad).all()
    assert (z.grad[~mask] == 0).all()
    assert z.grad[mask].abs().sum() > 0


@pytest.mark.parametrize("form", FORMS)
def test_all_ordered_pairs_and_no_other(form):
    z = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    positions, lengths, mask = torch.arange(4).expand(3, 4), torch.tensor([4, 5, 6]), torch.ones(3, 4, dtype=torch.bool)
    how = CycleConsistency(form=form)
    pairs = [[0, 1], [0, 2], [1, 2]]  # a batch of two has both orders
    parts = [cycle_consistency_loss(z[p], positions[p], lengths[p], mask[p], how=how).total for p in pairs]
    whole = cycle_consistency_loss(z, positions, lengths, mask, how=how).total
    assert whole.item() == pytest.approx(torch.stack(parts).mean().item(), rel=1e-9)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("real", ["one video", "one of two", "none", "no video", "one frame each"])
def test_nothing_to_come_back_to(form, real):
    z, positions, lengths, mask = given()
    keep = {"one video": slice(1), "no video": slice(0)}.get(real, slice(2))
    z = z.detach()[keep].requires_grad_()
    positions, lengths, mask = positions[keep], lengths[keep], mask[keep]
    if real == "one frame each":
        mask = mask & (torch.arange(5) == 2)
    elif real in ("none", "one of two"):
        mask = mask & torch.tensor([[real == "one of two"], [False]])
    found = cycle_consistency_loss(z, positions, lengths, mask, how=CycleConsistency(form=form))
    found.total.backward()
    assert torch.isfinite(found.total)
    assert torch.isfinite(z.grad).all()
    if form != "regression_mse_var":  # the log variance of a share of 1 is the floor's
        assert found.total.item() == 0.0


def test_certain_matches_have_finite_losses():
    """Shares of 1 have a variance of 0, which the public code refuses."""
    z = torch.eye(5, dtype=torch.float32).mul(100).expand(2, 5, 5).clone().requires_grad_()
    positions, lengths, mask = torch.arange(5).expand(2, 5), torch.tensor([5, 5]), torch.ones(2, 5, dtype=torch.bool)
    found = cycle_consistency_loss(z, positions, lengths, mask, how=CycleConsistency(label_smoothing=0.0))
    assert found.parts["error"].item() == 0.0
    assert found.parts["variance"].item() == pytest.approx(0.001 * 2 * math.log(torch.finfo(torch.float32).eps))
    found.total.backward()
    assert torch.isfinite(z.grad).all()


def test_wrong_shapes():
    z, positions, lengths, mask = given()
    for bad in [
        (z[0], positions, lengths, mask),
        (z, positions[:, :2], lengths, mask),
        (z, positions, lengths[:1], mask),
    ]:
        with pytest.raises(ValueError, match=r"embeddings must be \(B, T, D\), positions and mask \(B, T\)"):
            cycle_consistency_loss(*bad, how=CycleConsistency())


@pytest.mark.parametrize(("norm_weight", "name"), [(TCN["reg_lambda"], "loss"), (0.0, "loss_reg0")])
def test_n_pairs_of_the_public_code(norm_weight, name):
    z = torch.tensor([TCN["embeddings_anchor_positive_interleaved"]], dtype=torch.float64).requires_grad_()
    mask = torch.ones(1, 6, dtype=torch.bool)
    loss = time_contrastive_loss(z, mask, norm_weight=norm_weight)
    assert loss.item() == pytest.approx(TCN[name], rel=1e-9)
    loss.backward()
    assert torch.isfinite(z.grad).all()
    twice = time_contrastive_loss(z.expand(2, 6, 4), mask.expand(2, 6), norm_weight=norm_weight)
    assert twice.item() == pytest.approx(TCN[name], rel=1e-9)  # videos are not compared


def test_masked_pairs_are_no_negatives():
    z = torch.randn(2, 8, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()
    mask = torch.ones(2, 8, dtype=torch.bool)
    mask[0, 5:] = False  # of the third pair the anchor is real, its positive is not
    loss = time_contrastive_loss(z, mask)
    one, two = time_contrastive_loss(z[:1, :4], mask[:1, :4]), time_contrastive_loss(z[1:], mask[1:])
    assert loss.item() == pytest.approx((2 * one + 4 * two).item() / 6, rel=1e-12)
    loss.backward()
    assert (z.grad[0, 4:] == 0).all()
    assert z.grad[0, :4].abs().sum() > 0


@pytest.mark.parametrize("count", [0, 2])
def test_no_pair_at_all(count):
    z = torch.randn(count, 4, 3).requires_grad_()
    loss = time_contrastive_loss(z, torch.zeros(count, 4, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0.0
    assert (z.grad == 0).all()


@pytest.mark.parametrize("shape", [(2, 5, 3), (2, 4, 1, 3), (1, 4, 3)])
def test_wrong_shapes_of_pairs(shape):
    with pytest.raises(ValueError, match=r"embeddings must be \(B, T, D\) with an even T"):
        time_contrastive_loss(torch.zeros(shape), torch.ones(2, shape[1], dtype=torch.bool))
