"""The sequence contrastive loss against the public code's values, by hand, and where it must stay a number."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from reelwright.models.losses.sequence_contrastive import (
    SequenceContrast,
    sequence_contrastive_loss,
    time_targets,
)

VALUES = json.loads((Path(__file__).parents[1] / "data" / "carl_losses.json").read_text(encoding="utf-8"))
NEGATIVES = ("single_noself", "single", "batch_noself", "batch")
CASES = {
    f"{case['negative_type']}-{case['sigma_squared']}-{case['temperature']}-{number}": case
    for number, case in enumerate(VALUES["scl"])
}


def given(case):
    """Embeddings, positions, mask, lengths."""
    positions = torch.tensor(case["steps"])
    z = torch.tensor(case["embeddings_flat_B_view_T"], dtype=torch.float64).reshape(*positions.shape, -1)
    return z.requires_grad_(), positions, torch.tensor(case["masks"]) > 0, torch.tensor(case["seq_lens"])


def options(case, **more):
    chosen = {"negatives": case["negative_type"], "variance": case["sigma_squared"]}
    return SequenceContrast(**{**chosen, "temperature": case["temperature"], "compat": True, **more})


def unit(*shape, seed=0, dtype=torch.float64):
    random = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return torch.nn.functional.normalize(random, dim=-1).requires_grad_()


def literal(z, positions, mask, negatives, *, variance=10.0, temperature=0.1):
    """Frame by frame, as the paper's text says it, in plain numbers."""
    frames = [(b, v, t) for b in range(len(z)) for v in (0, 1) for t in range(z.shape[2]) if mask[b, v, t]]
    total = 0.0
    for b, v, t in frames:
        near, share = {}, {}
        for c, w, s in frames:
            if (c, w) == (b, 1 - v):
                near[c, w, s] = math.exp(-((float(positions[b, v, t] - positions[c, w, s])) ** 2) / (2 * variance))
            is_own_view = (c, w) == (b, v)
            if ("single" in negatives and c != b) or ("noself" in negatives and is_own_view):
                continue
            share[c, w, s] = math.exp(float(z[b, v, t] @ z[c, w, s]) / temperature)
        for frame, weight in near.items():
            q = weight / sum(near.values())
            total += q * (math.log(q) - math.log(share[frame] / sum(share.values())))
    return total / len(frames)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_values_of_the_public_code(case):
    z, positions, mask, lengths = given(case)
    for num_frames in (lengths, None):  # lengths are equal in each pair
        loss = sequence_contrastive_loss(z, positions, mask, how=options(case), num_frames_BV=num_frames)
        assert loss.item() == pytest.approx(case["loss"], rel=1e-9)
    loss.backward()
    assert torch.isfinite(z.grad).all()
    in_float = sequence_contrastive_loss(z.detach().float(), positions, mask, how=options(case))
    assert in_float.item() == pytest.approx(case["loss"], rel=1e-4)


@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize("compat", [False, True])
def test_by_hand(negatives, compat):
    """Views of two orthogonal frames each: q = (.62246, .37754), p = (.73106, .26894), sum of q ln(q / p)."""
    hand = VALUES["scl_hand"]
    z = torch.eye(2, dtype=torch.float64).expand(1, 2, 2, 2)
    positions, mask = torch.tensor([hand["steps"]]), torch.ones(1, 2, 2, dtype=torch.bool)
    how = SequenceContrast(negatives=negatives, variance=1.0, temperature=1.0, compat=compat)
    loss = sequence_contrastive_loss(z, positions, mask, how=how).item()
    q, p = 1 / (1 + math.exp(-0.5)), 1 / (1 + math.exp(-1.0))
    p = p if negatives.endswith("noself") else p / 2  # own view and itself double the denominator here
    floor = 1e-6 if compat else 0.0
    rest = (1 - p) if negatives.endswith("noself") else 0.5 - p
    expected = q * math.log(q / (p + floor)) + (1 - q) * math.log((1 - q) / (rest + floor))
    assert loss == pytest.approx(expected, abs=1e-12)
    if compat and negatives.endswith("noself"):
        assert loss == pytest.approx(hand["loss"], abs=1e-12)


@pytest.mark.parametrize("negatives", NEGATIVES)
def test_as_the_paper_says_it(negatives):
    """Masked frames, of the own view and of other videos, are nowhere."""
    z = unit(3, 2, 5, 4, seed=3)
    positions = torch.tensor([[[0, 3, 4, 9, 12], [1, 2, 8, 9, 11]], [[5, 6, 9, 9, 9], [1, 4, 9, 9, 9]]])
    positions = torch.cat([positions, positions[:1] + 2])
    mask = torch.ones(3, 2, 5, dtype=torch.bool)
    mask[1, :, 2:] = False
    mask[2, 1, 4] = False
    loss = sequence_contrastive_loss(z, positions, mask, how=SequenceContrast(negatives=negatives))
    assert loss.item() == pytest.approx(literal(z.detach(), positions, mask, negatives), rel=1e-10)
    loss.backward()
    assert torch.isfinite(z.grad).all()
    assert (z.grad[~mask] == 0).all()
    assert (z.grad[mask] != 0).any(-1).all()


@pytest.mark.parametrize("negatives", ["single_noself", "single"])
def test_single_videos_add_up(negatives):
    """The loss of a batch is the mean over real frames of those of its videos."""
    z, positions = unit(3, 2, 6, 4), torch.arange(6).expand(3, 2, 6)
    mask = torch.arange(6) < torch.tensor([6, 4, 1])[:, None, None].expand(3, 2, 1)
    how = SequenceContrast(negatives=negatives)
    assert not how.compares_videos
    parts = [sequence_contrastive_loss(z[[b]], positions[[b]], mask[[b]], how=how) * mask[b].sum() for b in range(3)]
    whole = sequence_contrastive_loss(z, positions, mask, how=how)
    assert whole.item() == pytest.approx((sum(parts) / mask.sum()).item(), rel=1e-12)


def test_frames_of_one_place_share_the_target():
    positions, mask = torch.tensor([[[0.0, 50.0], [0.0, 0.0]]]), torch.ones(1, 2, 2, dtype=torch.bool)
    target = time_targets(positions, mask, how=SequenceContrast())
    assert target[0, 0].tolist() == [[0.5, 0.5], [0.5, 0.5]]
    assert target[0, 1].flatten().tolist() == pytest.approx([1.0, 0.0, 1.0, 0.0])


def test_lengths_scale_time():
    """Frame 3 of 10 lies where frame 6 of 20 does."""
    positions = torch.tensor([[[0.0, 3.0], [0.0, 6.0]]])
    target = time_targets(
        positions,
        torch.ones(1, 2, 2, dtype=torch.bool),
        how=SequenceContrast(variance=0.5),
        num_frames_BV=torch.tensor([[10, 20]]),
    )
    first = [1 / (1 + math.exp(-36)), math.exp(-36) / (1 + math.exp(-36))]
    second = [1 / (1 + math.exp(-9)), math.exp(-9) / (1 + math.exp(-9))]
    assert target[0, 0, 0].tolist() == pytest.approx(first)
    assert target[0, 1, 0].tolist() == pytest.approx(second)
    assert target[0, 1, 1].tolist() == pytest.approx(second[::-1])


def test_far_views():
    """The public code has no target where its Gaussian underflows, here of 5,000 frames; ours has the nearest frame."""
    z, mask = unit(1, 2, 3, 4, dtype=torch.float32), torch.ones(1, 2, 3, dtype=torch.bool)
    positions = torch.tensor([[[0, 1, 2], [5000, 5001, 5002]]])
    assert sequence_contrastive_loss(z, positions, mask, how=SequenceContrast(compat=True)).item() == 0.0
    target = time_targets(positions.float(), mask, how=SequenceContrast())
    assert target[0, 0].argmax(-1).tolist() == [0, 0, 0]
    assert target[0, 1].argmax(-1).tolist() == [2, 2, 2]
    assert target.sum(-1).flatten().tolist() == pytest.approx([1.0] * 6)


@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize("compat", [False, True])
def test_small_temperatures_stay_numbers(negatives, compat):
    """exp(1 / 0.001) is above all of float32; the floor of the public code is -log(1e-6) a target."""
    z = unit(2, 2, 4, 3, dtype=torch.float32)
    positions, mask = torch.arange(4).expand(2, 2, 4), torch.ones(2, 2, 4, dtype=torch.bool)
    how = SequenceContrast(negatives=negatives, temperature=0.001, compat=compat)
    loss = sequence_contrastive_loss(z, positions, mask, how=how)
    loss.backward()
    assert torch.isfinite(z.grad).all()
    assert (0 < loss.item() < -math.log(1e-6)) if compat else (loss.item() > -math.log(1e-6))


@pytest.mark.parametrize("compat", [False, True])
@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize("real", ["none", "one view", "no video"])
def test_nothing_to_compare_with(negatives, compat, real):
    z = unit(0 if real == "no video" else 2, 2, 3, 4)
    mask = torch.zeros(z.shape[:3], dtype=torch.bool)
    mask[:, 0] = real == "one view"
    positions, how = torch.zeros_like(mask).long(), SequenceContrast(negatives=negatives, compat=compat)
    loss = sequence_contrastive_loss(z, positions, mask, how=how)
    loss.backward()
    assert loss.item() == 0.0
    assert (z.grad == 0).all()


def test_half_precision_is_widened():
    z, mask = unit(1, 2, 4, 8, dtype=torch.float32), torch.ones(1, 2, 4, dtype=torch.bool)
    positions, how = torch.arange(4).expand(1, 2, 4), SequenceContrast()
    half = z.detach().bfloat16()
    loss = sequence_contrastive_loss(half, positions, mask, how=how)
    assert loss.dtype == torch.float32
    assert loss.item() == sequence_contrastive_loss(half.float(), positions, mask, how=how).item()


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 4, 5), (2, 2, 3, 5)])
def test_wrong_shapes(shape):
    positions = torch.zeros(2, 2, 4)
    with pytest.raises(ValueError, match=r"embeddings must be \(B, 2, T, D\)"):
        sequence_contrastive_loss(torch.zeros(shape), positions, positions > 0, how=SequenceContrast())
