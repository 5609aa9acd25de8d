"""Several heads (verb, noun): losses that add up, learning, official action accuracy in validation and scores."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from reelwright.models.blocks.heads import Head, soft_head_targets, split_heads
from reelwright.stages.datasets.tasks.labels import LabelSpace
from reelwright.stages.datasets.tasks.sets import head_metrics
from reelwright.stages.datasets.tasks.task import build_task
from reelwright.stages.evaluate.config import EvaluateConfig
from reelwright.stages.evaluate.scoring import headline, score_predictions
from reelwright.stages.evaluate.videos import video_labels
from reelwright.stages.fit.config import LossSettings
from reelwright.stages.objectives.classification import HeadLoss
from reelwright.stages.predict.work import publish, run_items
from reelwright.stages.train.work import run
from reelwright.storage.errors import ConfigError, InputError
from reelwright.storage.results.predictions import PredictionSet, scores_matrix
from reelwright.storage.results.runs import RunFolder
from reelwright.storage.tables.annotations import Annotation
from tests.stages.conftest import Toy

CPU = torch.device("cpu")
HEADS = (Head(name="verb", num_classes=3), Head(name="noun", num_classes=2, weight=0.5, label_smoothing=0.1))
CLASSES = ["verb: close", "verb: open", "verb: turn", "noun: door", "noun: lid"]
LABELS = LabelSpace(classes=tuple(CLASSES), heads=(("verb", 3), ("noun", 2)))
TASK = build_task("heads", LABELS, heads=HEADS)


@pytest.fixture(scope="module")
def head_toy(tmp_path_factory):
    """Videos whose first three features tell the verb and whose last tells the noun; runs have keys of their own."""
    toy = Toy(tmp_path_factory.mktemp("heads") / "store")
    generator = np.random.default_rng(0)
    for number in range(36):
        split = ["train", "train", "train", "train", "val", "test"][number // 6]
        verb, noun = number % 3, number // 3 % 2
        rows = generator.normal(0, 0.5, (8, 6)).astype(np.float32)
        rows[:, verb] += 3
        rows[:, 5] += 4 * noun - 2
        toy.write("emb", f"d{number}", rows)
        # the verb of one training video is not known, nor is the noun of another
        labels = (-1 if number == 0 else verb, -1 if number == 1 else 3 + noun)
        toy.add(f"d{number}", split, Annotation(labels=labels))
    return toy


def work(toy, key, **config):
    made = toy.train_work(key=key, task="heads", **{"window": {"length": 8}, "model": {"name": "linear"}, **config})
    heads = [["verb", 3], ["noun", 2]]
    return type(made)(**{**vars(made), "payload": {**made.payload, "classes": CLASSES, "heads": heads}})


def test_the_loss_is_the_weighted_sum_by_hand():
    heads = (Head(name="verb", num_classes=3), Head(name="noun", num_classes=2, weight=0.5))
    logits = torch.zeros(2, 5)
    logits[:, 3] = math.log(3.0)  # noun 0 has 3/4
    loss, targets = HeadLoss(heads, counts=None, device=CPU), torch.tensor([[0, 0], [2, 0]])
    assert loss(logits, targets).item() == pytest.approx(math.log(3) + 0.5 * math.log(4 / 3))
    unknown = torch.tensor([[0, 0], [2, -1]])  # counts for nothing, in a mean over both windows
    assert loss(logits, unknown).item() == pytest.approx(math.log(3) + 0.5 * math.log(4 / 3) / 2)
    soft = soft_head_targets(unknown, heads)
    torch.testing.assert_close(loss(logits, soft), loss(logits, unknown))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_where_all_is_known_is_cross_entropy_of_each_head(smoothing):
    heads = [replace(head, label_smoothing=smoothing) for head in HEADS]
    logits, target = torch.randn(6, 5), torch.tensor([[0, 1], [2, 0], [1, 1], [0, 0], [2, 1], [1, 0]])
    losses = [
        head.weight * functional.cross_entropy(part, column, label_smoothing=smoothing)
        for head, part, column in zip(heads, split_heads(logits, heads).values(), target.T, strict=True)
    ]
    torch.testing.assert_close(HeadLoss(heads, counts=None, device=CPU)(logits, target), sum(losses))


@pytest.mark.parametrize("balanced", ["none", "balanced"])
def test_parts_of_a_batch_add_up_whatever_is_known(balanced):
    logits = torch.randn(6, 5)
    target = torch.tensor([[0, 1], [-1, 0], [1, -1], [0, 0], [-1, -1], [1, 0]])
    counts = TASK.counts(target.numpy())
    assert counts.tolist() == [2, 2, 0, 3, 1]
    settings = LossSettings(class_weights=balanced)
    loss = TASK.objective(settings, counts=counts, device=CPU).loss
    parts = [loss(logits[part], target[part]) * len(logits[part]) for part in (slice(0, 4), slice(4, 6))]
    torch.testing.assert_close(sum(parts) / 6, loss(logits, target))


def test_probabilities_are_of_each_head():
    found = TASK.probabilities(torch.randn(4, 5))
    torch.testing.assert_close(found[:, :3].sum(1), torch.ones(4))
    torch.testing.assert_close(found[:, 3:].sum(1), torch.ones(4))


def test_actions_are_ranked_by_the_product_of_probabilities():
    """Verb and noun are each second, yet so is 0.4 x 0.45 among the pairs only after 0.33 and 0.27 and 0.22."""
    scores = np.array([[0.6, 0.4, 0.0, 0.55, 0.45], [0.1, 0.9, 0.0, 0.2, 0.8]], dtype=np.float32)
    found = head_metrics(scores, np.array([[1, 1], [1, 1]]), HEADS, topk=(1, 3, 5))
    assert (found["verb_top1"], found["noun_top1"], found["action_top1"]) == (0.5, 0.5, 0.5)
    assert (found["action_top3"], found["action_top5"]) == (0.5, 1.0)


def test_sets_of_heads():
    targets = np.array([[2, 0], [-1, 1]])
    found = TASK.scored(np.zeros((2, 5), dtype=np.float32), targets, Annotation()).targets
    assert found.tolist() == [[False, False, True, True, False], [False, False, False, False, True]]


def test_a_run_learns_both_and_its_actions_are_scored(head_toy):
    settings = {"epochs": 12, "optimizer": {"lr": 0.1}, "schedule": {"warmup_epochs": 0}, "batch_size": 8}
    outputs = run(work(head_toy, "learn", head_weights={"noun": 0.5}, **settings), head_toy.reporter)
    assert outputs["metrics"]["val_action_top1"] == 1
    assert {"val_verb_top1", "val_noun_top1", "val_verb_macro_f1"} <= outputs["metrics"].keys()
    predict = head_toy.predict_work(run="learn")
    predict = type(predict)(**{**vars(predict), "payload": work(head_toy, "x").payload})
    run_items(predict, head_toy.reporter)
    folder = head_toy.store.root / "published"
    publish(predict, folder)
    found = PredictionSet(folder)
    assert found.info.heads == (("verb", 3), ("noun", 2))
    scores = scores_matrix(found.windows())
    np.testing.assert_allclose(scores[:, :3].sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(scores[:, 3:].sum(1), 1, rtol=1e-5)
    config = EvaluateConfig(predictions="p")
    labels = video_labels(found, unit="windows", splits={"test"}, threshold=config.threshold)
    numbers = headline(score_predictions(found, labels, config), found.info)
    assert (numbers["action_top1"], numbers["video_action_top1"]) == (1, 1)
    assert numbers["chance_action_top1"] < 0.5


def test_mixed_and_balanced_runs_go_through(head_toy):
    for key, settings in (("mix", {"mix": {}}), ("balanced", {"loss": {"class_weights": "balanced"}})):
        found = run(work(head_toy, key, epochs=2, **settings), head_toy.reporter)
        assert np.isfinite(found["metrics"]["train_loss"])


def test_accumulated_batches_equal_one_large_batch(head_toy):
    still = {"epochs": 1, "optimizer": {"name": "sgd", "lr": 0.1}, "schedule": {"name": "constant", "warmup_epochs": 0}}
    run(work(head_toy, "large", batch_size=12, **still), head_toy.reporter)
    small = {**still, "optimizer": {**still["optimizer"], "accumulate": 3}}
    run(work(head_toy, "small", batch_size=4, **small), head_toy.reporter)
    large, parts = (load_file(RunFolder(head_toy.store.run(key)).weights) for key in ("large", "small"))
    for name, value in large.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-5, atol=1e-6)


REFUSED = {
    "weights of no head": ({"head_weights": {"vreb": 2}}, ConfigError, "no head 'vreb'. Did you mean 'verb'"),
    "metric": ({"metric": "action_top2"}, ConfigError, "'action_top2' is not known.*action_top1, action_top5"),
    "balanced sampling": (
        {"window": {"length": 8, "sampling": "balanced"}},
        ConfigError,
        "choose per_video, or loss.class_weights",
    ),
    "other task": ({"task": "video", "head_weights": {"verb": 1}}, ConfigError, "head_weights are of task heads"),
}


@pytest.mark.parametrize(("config", "kind", "message"), REFUSED.values(), ids=REFUSED)
def test_refused_before_training(head_toy, config, kind, message):
    made = work(head_toy, "refused")
    with pytest.raises(kind, match=message):
        run(type(made)(**{**vars(made), "config": {**made.config, **config}}), head_toy.reporter)


def test_labels_of_one_kind_have_no_heads(pulse_toy):
    with pytest.raises(InputError, match=r"task is heads, but the labels are of one kind. Give labels.columns"):
        run(pulse_toy.train_work(task="heads"), pulse_toy.reporter)
