"""Losses of two views: published numbers, and cases by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from reelwright.models.losses.contrastive import (
    byol_loss,
    byol_momentum,
    moco_logits,
    nearest_accuracy,
    simclr_logits,
    top_accuracy,
)

# fractal_video's modules (davidsvy/fractal_video@7dd100f) with torch 2.15 on a CPU
VECTORS = json.loads((Path(__file__).parents[1] / "data" / "self_supervised.json").read_text())
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def tensors(entry, *names):
    return [torch.tensor(entry[name]) for name in names]


def test_simclr_as_published():
    entry = VECTORS["simclr"]
    q, k, wanted = tensors(entry, "q", "k", "logits")
    logits, labels = simclr_logits(q, k, temperature=entry["T"])
    torch.testing.assert_close(logits, wanted, **CLOSE)
    assert labels.tolist() == entry["labels"]
    assert torch.nn.functional.cross_entropy(logits, labels).item() == pytest.approx(entry["loss"], abs=1e-6)


def moco(entry, **changes):
    q, k, queue, video, of = tensors(entry, "q", "k", "queue_before", "queue_file_before", "file_idxs")
    given = {"queue_QE": queue, "queue_video_Q": video, "video_B": of, "temperature": entry["T"], **changes}
    return moco_logits(q, k, **given)


def test_moco_as_published():
    entry = VECTORS["moco"]
    logits, labels = moco(entry)
    wanted = [
        [-float("inf") if value is None else value for value in row]
        for row in entry["logits(null=-inf masked same-file)"]
    ]
    torch.testing.assert_close(logits, torch.tensor(wanted), **CLOSE)
    assert labels.tolist() == entry["labels"]
    assert torch.nn.functional.cross_entropy(logits, labels).item() == pytest.approx(entry["loss"], abs=1e-6)


def test_a_key_of_the_same_video_is_no_negative_whatever_is_masked_elsewhere():
    entry = VECTORS["moco"]
    free, _ = moco(entry, queue_video_Q=torch.full((6,), -1))
    masked, _ = moco(entry, queue_video_Q=torch.tensor([2, 0, 2, 9, 9, 9]))
    hidden = masked == -torch.inf
    assert free.isfinite().all()
    assert hidden.nonzero().tolist() == [[0, 2], [2, 1], [2, 3]]
    assert torch.equal(free[~hidden], masked[~hidden])


def test_byol_as_published():
    entry = VECTORS["byol_loss"]
    p, z = tensors(entry, "p", "z")
    assert byol_loss(p, z).item() == pytest.approx(entry["loss=2*(1-mean cos)"], abs=1e-6)
    assert byol_loss(3 * p, p).item() == pytest.approx(0, abs=1e-6)
    assert byol_loss(-p, 2 * p).item() == pytest.approx(4, abs=1e-6)
    for step, steps, weight in VECTORS["byol_ema_weight(base .997)"]:
        assert byol_momentum(step, steps, base=0.997) == pytest.approx(weight, abs=1e-8)


def test_accuracy_of_labels_is_that_of_pairs():
    q, k = tensors(VECTORS["simclr"], "q", "k")
    q = q + torch.tensor([[3.0], [0.5], [0.5]]) * torch.roll(k, 1, 0)  # some pairs are not the nearest
    logits, place = simclr_logits(q, k, temperature=1.0)
    z = torch.nn.functional.normalize(torch.cat([q, k]), dim=1)
    for top in (1, 2, 5):
        wanted = top_accuracy(logits, place, top=top)
        assert nearest_accuracy(z, torch.arange(3).repeat(2), top=top) == wanted
    assert 0 < nearest_accuracy(z, torch.arange(3).repeat(2), top=1) < 1


def test_accuracy_counts_the_highest():
    logits = torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    target = torch.tensor([0, 1])
    assert [top_accuracy(logits, target, top=top).item() for top in (1, 2, 5)] == [0.5, 1.0, 1.0]
