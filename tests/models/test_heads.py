"""Several heads: targets side by side, losses by hand and against CAST, mixing, metrics and actions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch.nn import functional

from reelwright.models.blocks.heads import (
    Head,
    mix_head_targets,
    num_outputs,
    soft_head_targets,
    split_heads,
)
from reelwright.models.losses.classification import classification_loss, soft_target_loss, soft_targets
from reelwright.models.metrics import multi_head
from reelwright.models.metrics.multi_head import joint_accuracy, joint_ranks, multi_head_metrics
from reelwright.models.metrics.views import merge_views

VECTORS = json.loads((Path(__file__).parents[1] / "data" / "training_vectors.json").read_text())
CAST = VECTORS["cast"]
VERB_NOUN = (Head(name="verb", num_classes=3), Head(name="noun", num_classes=2, weight=0.5))


def test_cast_soft_target_loss():
    case = CAST["soft_target_ce"]
    loss = soft_target_loss(torch.tensor(case["logits"]), torch.tensor(case["soft"]))
    assert loss.item() == pytest.approx(case["loss"], abs=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_soft_targets_give_the_loss_of_hard_ones(smoothing):
    logits, target = torch.randn(2, 3, 4), torch.tensor([[0, 3, -1], [-1, 1, 2]])
    soft = soft_targets(target, num_classes=4, smoothing=smoothing)
    expected = classification_loss(logits, target, label_smoothing=smoothing)
    torch.testing.assert_close(soft_target_loss(logits, soft), expected)


def test_soft_targets_with_class_weights():
    logits, weights = torch.randn(3, 2), torch.tensor([1.0, 3.0])
    soft = soft_targets(torch.tensor([0, 1, 1]), num_classes=2)
    expected = functional.cross_entropy(logits, torch.tensor([0, 1, 1]), weight=weights)
    torch.testing.assert_close(soft_target_loss(logits, soft, class_weights=weights), expected)


def test_no_target_gives_zero_with_gradient():
    logits = torch.randn(2, 3, requires_grad=True)
    for weights in (None, torch.ones(3)):
        loss = soft_target_loss(logits, torch.zeros(2, 3), class_weights=weights)
        loss.backward()
        assert loss.item() == 0
        assert torch.equal(logits.grad, torch.zeros(2, 3))


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_smoothing_out_of_range(smoothing):
    with pytest.raises(ValueError, match="label smoothing is"):
        soft_targets(torch.tensor([0]), num_classes=2, smoothing=smoothing)


def test_class_out_of_range():
    with pytest.raises(ValueError, match=r"targets span \[0, 2\]; allowed: -1 \(unknown\) to 1"):
        soft_targets(torch.tensor([0, 2]), num_classes=2)


def test_cast_mixed_verbs_and_nouns():
    case = CAST["mixup_composition"]
    heads = (
        Head(name="noun", num_classes=300, label_smoothing=0.1),
        Head(name="verb", num_classes=97, label_smoothing=0.1),
    )
    soft = soft_head_targets(torch.tensor(case["targets [noun,verb]"]), heads)
    row = {
        name: part[0]
        for name, part in split_heads(mix_head_targets(soft, torch.full((2,), 0.25), heads), heads).items()
    }
    for name, classes in (("noun", (7, 299)), ("verb", (2, 96))):
        for cls in classes:
            assert row[name][cls].item() == pytest.approx(case[f"{name}_row0_nonoff"][str(cls)], abs=1e-6)
        assert row[name][50].item() == pytest.approx(case[f"{name}_off"], abs=1e-8)


def test_one_head_unknown_while_the_other_is_known():
    soft = soft_head_targets(torch.tensor([[0, -1], [1, 1]]), VERB_NOUN)
    mixed = mix_head_targets(soft, torch.tensor([0.25, 0.25]), VERB_NOUN)
    torch.testing.assert_close(mixed[0], torch.tensor([0.25, 0.75, 0, 0, 0]))


BAD_HEADS = {
    "no head": (lambda: num_outputs(()), "at least one is needed"),
    "twice": (lambda: num_outputs((VERB_NOUN[0], VERB_NOUN[0])), "each with a name of its own"),
    "name": (lambda: Head(name="a b", num_classes=2), "head name 'a b' must be letters"),
    "classes": (lambda: Head(name="a", num_classes=0), "num_classes 0 must be at least 1"),
    "logits": (lambda: split_heads(torch.zeros(1, 4), VERB_NOUN), "have 5 classes in all, but there are 4 values"),
    "targets": (
        lambda: soft_head_targets(torch.zeros(1, 3, dtype=torch.long), VERB_NOUN),
        r"targets must be \(\.\.\., 2\), a class for each of verb, noun; got \(1, 3\)",
    ),
}


@pytest.mark.parametrize(("call", "match"), BAD_HEADS.values(), ids=BAD_HEADS)
def test_bad_heads(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def test_cast_rank_paired_accuracy():
    case = CAST["action_accuracy_val"]
    target = np.array([divmod(action, 1000) for action in case["targets verb*1000+noun"]])
    scores = [softmax(np.array(case[f"{name}_logits"]), axis=-1) for name in ("verb", "noun")]
    found = joint_accuracy(scores, target, measure="rank_paired")
    assert [100 * found["top1"], 100 * found["top5"]] == case["top1,top5(rank-paired!)"]


def merged_verb_noun():
    case = CAST["merge_views_verb_noun"]
    views = case["views [chunk,split,noun_logits,verb_logits]"]
    rows = [(video, view) for video, entries in enumerate(views.values()) for view in entries]
    where = {
        "video_N": np.array([video for video, _ in rows]),
        "view_NV": np.array([view[:2] for _, view in rows]),
    }
    nouns, verbs = (merge_views([view[at] for _, view in rows], **where).probabilities for at in (2, 3))
    target = np.array([[verb, noun] for noun, verb in case["labels noun,verb"].values()])
    return {"verb": verbs, "noun": nouns}, target, case["final"]


def test_cast_final_accuracy():
    scores, target, final = merged_verb_noun()
    found = joint_accuracy(list(scores.values()), target, measure="independent")
    assert 100 * found["top1"] == pytest.approx(final["top1_action"], abs=1e-3)
    assert 100 * found["top5"] == pytest.approx(final["top5_action"], abs=1e-3)
    metrics = multi_head_metrics(scores, target)
    for name in ("verb", "noun"):
        for k in (1, 5):
            assert 100 * metrics[name][f"top{k}"] == pytest.approx(final[f"top{k}_{name}"], abs=1e-3)
    assert 100 * metrics["action"]["top1"] == pytest.approx(final["top1_action"], abs=1e-3)  # all agree on the top 1


def test_official_action_accuracy_by_hand():
    verb, noun = np.array([[0.6, 0.4]] * 3), np.array([[0.5, 0.3, 0.2]] * 3)
    # products: (0,0) .30, (1,0) .20, (0,1) .18, (0,2) .12 = (1,1) .12, (1,2) .08
    target = np.array([[1, 0], [1, 1], [-1, 2]])
    assert joint_ranks([verb, noun], target).tolist() == [1, 4]
    assert joint_accuracy([verb, noun], target, topk=(1, 2, 5)) == {"top1": 0.0, "top2": 0.5, "top5": 1.0}
    assert joint_accuracy([verb, noun], target, topk=(2,), measure="independent") == {"top2": 1.0}
    found = multi_head_metrics({"verb": verb, "noun": noun}, target)
    assert found["action"] == {"num_entries": 2, "top1": 0.0, "top5": 1.0}


def test_a_head_without_targets_is_left_out_and_so_are_actions():
    scores = {"verb": np.eye(2), "noun": np.eye(2)}
    found = multi_head_metrics(scores, np.array([[0, -1], [0, -1]]))
    assert {name: metrics["top1"] for name, metrics in found.items()} == {"verb": 0.5}
    found = multi_head_metrics(scores, np.array([[0, -1], [-1, 1]]))
    assert {name: metrics["top1"] for name, metrics in found.items()} == {"verb": 1.0, "noun": 1.0}


def test_ranks_equal_sorting_all_pairs(monkeypatch):
    generator = np.random.default_rng(0)
    parts = [softmax(generator.normal(size=(50, classes)), axis=-1) for classes in (5, 7, 2)]
    target = np.column_stack([generator.integers(0, classes, 50) for classes in (5, 7, 2)])
    products = np.einsum("na,nb,nc->nabc", *parts).reshape(50, -1)
    cells = np.ravel_multi_index(tuple(target.T), (5, 7, 2))
    order = np.argsort(-products, axis=1, kind="stable")
    monkeypatch.setattr(multi_head, "CELLS_AT_ONCE", 200)  # several pieces
    assert joint_ranks(parts, target).tolist() == [
        list(row).index(cell) for row, cell in zip(order, cells, strict=True)
    ]


BAD_SCORES = {
    "measure": (lambda: joint_accuracy([np.ones((1, 2))], np.array([[0]]), measure="best"), "measure 'best' is not"),
    "logits": (lambda: joint_ranks([np.array([[3.0, 1.0]])], np.array([[0]])), "take the softmax"),
    "unknown": (lambda: joint_ranks([np.ones((1, 2))], np.array([[-1]])), "no entry has a target of every head"),
    "heads": (lambda: joint_accuracy([np.ones((1, 2))], np.array([[0, 0]])), "1 heads of scores, but 2 columns"),
    "shape": (lambda: joint_accuracy([np.ones(2)], np.array([[0]])), r"scores must be \(N, K\)"),
    "range": (lambda: joint_accuracy([np.ones((1, 2))], np.array([[2]])), r"targets of head 0 span \[2, 2\]"),
    "nan": (lambda: joint_accuracy([np.full((1, 2), np.nan)], np.array([[0]])), "head 0 hold NaN"),
    "name": (lambda: multi_head_metrics({"action": np.ones((1, 2))}, np.array([[0]])), "'action' is a head already"),
}


@pytest.mark.parametrize(("call", "match"), BAD_SCORES.values(), ids=BAD_SCORES)
def test_bad_scores(call, match):
    with pytest.raises(ValueError, match=match):
        call()
