"""Losses by hand, and batches without targets."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from reelwright.models.losses.classification import balanced_class_weights, classification_loss, multilabel_loss

LOGITS = torch.tensor([[0.0, 0.0], [math.log(3.0), 0.0], [5.0, 1.0]])  # the first two: (1/2, 1/2), (3/4, 1/4)


def test_cross_entropy_by_hand():
    loss = classification_loss(LOGITS, torch.tensor([0, 1, -1]))
    assert loss.item() == pytest.approx((math.log(2) + math.log(4)) / 2)


def test_rows_and_mask():
    rows, target = LOGITS[None], torch.tensor([[0, 1, 0]])
    mask = torch.tensor([[True, True, False]])
    assert classification_loss(rows, target, mask=mask).item() == pytest.approx((math.log(2) + math.log(4)) / 2)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, [1.0, 3.0]], ids=["plain", "weighted"])
def test_equals_torch(weights, label_smoothing):
    weights = None if weights is None else torch.tensor(weights)
    target = torch.tensor([0, 1, -1])
    expected = functional.cross_entropy(
        LOGITS, target, weight=weights, ignore_index=-1, label_smoothing=label_smoothing
    )
    found = classification_loss(LOGITS, target, class_weights=weights, label_smoothing=label_smoothing)
    torch.testing.assert_close(found, expected)


EMPTY = {
    "cross entropy": lambda logits: classification_loss(logits, torch.tensor([-1, -1, -1])),
    "masked": lambda logits: classification_loss(
        logits, torch.tensor([0, 1, 0]), mask=torch.zeros(3, dtype=torch.bool)
    ),
    "smoothed": lambda logits: classification_loss(logits, torch.tensor([-1, -1, -1]), label_smoothing=0.1),
    "weight 0": lambda logits: classification_loss(
        logits, torch.tensor([0, 0, -1]), class_weights=torch.tensor([0.0, 1.0])
    ),
    "multilabel": lambda logits: multilabel_loss(logits, torch.full((3, 2), -1)),
    "no item": lambda logits: classification_loss(logits[:0], torch.zeros(0, dtype=torch.long)),
}


@pytest.mark.parametrize("loss", EMPTY.values(), ids=EMPTY)
def test_batches_without_target_give_zero_with_gradient(loss):
    logits = LOGITS.clone().requires_grad_()
    value = loss(logits)
    value.backward()
    assert value.item() == 0.0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_multilabel_by_hand():
    logits = torch.tensor([[0.0, math.log(3.0)], [math.log(3.0), 7.0]])  # probabilities 1/2, 3/4, 3/4, -
    target = torch.tensor([[1, 0], [1, -1]])
    expected = (math.log(2) + math.log(4) + math.log(4 / 3)) / 3
    assert multilabel_loss(logits, target).item() == pytest.approx(expected)


def test_half_precision_logits_are_summed_in_float32():
    for loss in (classification_loss, multilabel_loss):
        target = torch.zeros(3, 2) if loss is multilabel_loss else torch.zeros(3, dtype=torch.long)
        assert loss(LOGITS.to(torch.bfloat16), target).dtype == torch.float32


def test_balanced_weights():
    # 8 items over 2 classes present: 8 / (2 * 2) and 8 / (2 * 6); their mean over the items is 1.
    weights = balanced_class_weights([2, 0, 6])
    torch.testing.assert_close(weights, torch.tensor([2.0, 0.0, 2 / 3]))
    assert (2 * weights[0] + 6 * weights[2]).item() / 8 == pytest.approx(1.0)


@pytest.mark.parametrize("counts", [[0, 0], [], [3, -1]], ids=["none", "no class", "negative"])
def test_balanced_weights_refuse(counts):
    with pytest.raises(ValueError, match="class counts are"):
        balanced_class_weights(counts)
