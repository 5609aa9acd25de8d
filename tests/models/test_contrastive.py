"""Contrastive losses and retrieval metrics against the public code's values, in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reelwright.models.losses.contrastive import (
    batch_all_triplet_loss,
    batch_hard_triplet_loss,
    pairwise_distances,
    supervised_contrastive_loss,
)
from reelwright.models.metrics.retrieval import retrieval_metrics
from tests.models.psr import vectors

VALUES = vectors("losses")
SUPCON, TRIPLET = VALUES["supcon"], VALUES["triplet"]
RETRIEVAL = vectors("retrieval")


def circle():
    angles = torch.deg2rad(torch.tensor(SUPCON["angles_deg"], dtype=torch.float64))
    return torch.stack([angles.cos(), angles.sin()], dim=1).reshape(3, 2, 2).requires_grad_()


@pytest.mark.parametrize("case", SUPCON["cases"], ids=str)
def test_supervised_contrastive(case):
    labels = None if case.get("simclr") else torch.tensor([1, 2, 0])
    z_BVD = circle()
    loss = supervised_contrastive_loss(
        z_BVD,
        labels,
        temperature=case["temperature"],
        base_temperature=case["base_temperature"],
        exclude_background=case.get("exclude_bg", False),
    )
    assert loss.item() == pytest.approx(case["loss"], rel=1e-9)
    loss.backward()
    assert torch.isfinite(z_BVD.grad).all()


def test_without_background_at_temperature_a_half():
    # psr_and_carl.md A3.3
    options = {"temperature": 0.5, "base_temperature": None, "exclude_background": True}
    loss = supervised_contrastive_loss(circle(), torch.tensor([1, 2, 0]), **options)
    assert loss.item() == pytest.approx(0.3541372139, abs=1e-10)


def test_positives_of_other_groups_count():
    z_BVD = circle()
    groups = supervised_contrastive_loss(z_BVD, torch.tensor([1, 1, 0]))
    single = supervised_contrastive_loss(z_BVD.reshape(6, 1, 2), torch.tensor([1, 1, 1, 1, 0, 0]))
    assert groups.item() == pytest.approx(single.item())
    # alone in its label, an image counts 0 in the mean
    lonely = supervised_contrastive_loss(z_BVD.reshape(6, 1, 2), torch.arange(6))
    assert lonely.item() == 0.0


def test_a_batch_of_background_gives_nothing():
    z_BVD = circle()
    loss = supervised_contrastive_loss(z_BVD, torch.zeros(3, dtype=torch.long), exclude_background=True)
    loss.backward()
    assert loss.item() == 0.0
    assert not z_BVD.grad.any()


@pytest.mark.parametrize("case", TRIPLET["cases"], ids=str)
def test_triplets(case):
    z_ND = torch.tensor(TRIPLET["embeddings"], dtype=torch.float64, requires_grad=True)
    labels = torch.tensor(TRIPLET["labels"])
    options = {"margin": case["margin"], "exclude_background": case["exclude_bg"]}
    for name, loss in (("batch_all", batch_all_triplet_loss), ("batch_hard", batch_hard_triplet_loss)):
        found = loss(z_ND, labels, **options)
        assert found.loss.item() == pytest.approx(case[name], rel=1e-9)
        assert found.fraction_positive.item() == pytest.approx(case[f"{name}_fraction_positive"])
        found.loss.backward()
        assert torch.isfinite(z_ND.grad).all()


def test_distances_of_equal_images_have_a_gradient():
    z_ND = torch.tensor([[3.0, 4.0], [0.0, 0.0], [3.0, 4.0]], requires_grad=True)
    distances = pairwise_distances(z_ND)
    assert distances.tolist() == [[0, 5, 0], [5, 0, 5], [0, 5, 0]]
    distances.sum().backward()
    assert torch.isfinite(z_ND.grad).all()


@pytest.mark.parametrize(
    ("shape", "labels", "options", "message"),
    [
        ((4, 2), [0, 1, 2, 3], {}, r"must be \(B, V, D\) and labels \(B\), got \(4, 2\) and \(4,\)"),
        ((2, 2, 3), [0, 1, 2], {}, r"got \(2, 2, 3\) and \(3,\)"),
        ((2, 2, 3), None, {"exclude_background": True}, "cannot be left out without labels"),
    ],
)
def test_wrong_input(shape, labels, options, message):
    labels = None if labels is None else torch.tensor(labels)
    with pytest.raises(ValueError, match=message):
        supervised_contrastive_loss(torch.zeros(shape), labels, **options)


@pytest.mark.parametrize("distance", ["cosine", "l2"])
def test_retrieval(distance):
    found = retrieval_metrics(
        RETRIEVAL["query"],
        RETRIEVAL["query_labels"],
        RETRIEVAL["reference"],
        RETRIEVAL["reference_labels"],
        distance=distance,
    )
    results = {
        (averages, per_class): RETRIEVAL["results"][f"{distance}_avg_of_avgs={averages}_per_class={per_class}"]
        for averages, per_class in ((False, False), (True, False), (False, True))
    }
    assert {name: found[name] for name in results[False, False]} == pytest.approx(results[False, False])
    assert {n: found[f"{n}_class_mean"] for n in results[True, False]} == pytest.approx(results[True, False])
    for name, expected in results[False, True].items():
        assert [row[name] for row in found["per_class"].values()] == pytest.approx(expected)


def test_retrieval_by_hand():
    # references on a line: 0 1 2 3, labels a b a b; query at 0.1 of label b: ranks a b a b -> R = 2: (0 + 1/2) / 2
    found = retrieval_metrics(np.array([[0.1]]), np.array([1]), np.arange(4.0)[:, None], [0, 1, 0, 1], distance="l2")
    assert [found["precision_at_1"], found["mean_average_precision_at_r"]] == [0.0, 0.25]
    unknown = retrieval_metrics([[0.1], [0.2]], [1, 7], np.arange(4.0)[:, None], [0, 1, 0, 1], distance="l2")
    assert unknown["mean_average_precision_at_r"] == 0.25
    assert list(unknown["per_class"]) == [1]


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ([5, 5], {"distance": "l2"}, "no query has a reference of its label"),
        ([0, 0], {"distance": "dot"}, "choose cosine or l2"),
        ([0], {"distance": "l2"}, "with labels"),
    ],
)
def test_retrieval_refuses(labels, options, message):
    with pytest.raises(ValueError, match=message):
        retrieval_metrics(np.zeros((2, 3)), labels, np.zeros((1, 3)), [0], **options)
