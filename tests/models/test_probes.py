"""Probes of rows against the public code's values (tests/data/carl_evaluation.json), torch, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from reelwright.models.metrics.probes.linear_probe import LinearLayer, LinearProbe, linear_probe, train_layer
from reelwright.models.metrics.probes.phase_probe import CLASSIFIERS, joined, phase_classification
from reelwright.models.metrics.probes.probe_protocol import LabelFractions, over_fractions, per_action
from reelwright.models.metrics.probes.progression import phase_progression, progression_targets
from tests.models.embedded import PUBLIC, drawn, given, line

FIRST = LabelFractions(fractions=(0.1,), compat=True)  # one of the ten public videos, the first
ALL = LabelFractions(fractions=(1.0,))


@pytest.mark.parametrize(("classifier", "name"), [("logistic", "logreg"), ("svm", "svm_rbf")])
def test_classification_of_the_public_code(classifier, name):
    found = phase_classification(given("train"), given("val"), classifier=classifier, labels=FIRST)
    expected = PUBLIC[f"classification_{name}"]["0.1"]
    assert found["accuracy"] == pytest.approx(expected["val_acc"], abs=1e-12)
    assert found["train_accuracy"] == pytest.approx(expected["train_acc"], abs=1e-12)
    assert [draw["videos"] for draw in found["draws"]] == [["train0"]]


def test_progression_of_the_public_code():
    expected = PUBLIC["event_completion"]["0.1"]
    for compat in (False, True):  # all rows have labels and all videos all phases: the same
        found = phase_progression(given("train"), given("val"), num_classes=5, labels=FIRST, compat=compat)
        assert found["train_r2"] == pytest.approx(expected["train_R2"], abs=1e-10)
        assert found["r2"] == pytest.approx(expected["val_R2"], abs=1e-10)
        assert found["num_phases"] == 4


def test_progression_targets_of_the_public_code():
    example = PUBLIC["event_completion_targets_example"]
    found = progression_targets(np.array(example["labels"]), num_classes=5)
    np.testing.assert_allclose(found, example["targets_for_classes_0_to_3"], atol=1e-12)


def test_a_missing_phase():
    labels = np.array(PUBLIC["event_completion_missing_class"]["labels"])
    found = progression_targets(labels, num_classes=5)
    assert np.isnan(found[:, 1]).all()
    assert not np.isnan(found[:, [0, 2, 3]]).any()
    with pytest.raises(IndexError, match="phase 1 is not in a video of 6 rows"):
        progression_targets(labels, num_classes=5, compat=True)
    whole, part = line(range(10), [0, 0, 0, 1, 1, 2, 2, 2, 3, 4]), line(range(6), labels)
    assert phase_progression([whole, part], [whole], labels=ALL)["num_phases"] == 4
    assert phase_progression([part], [whole], labels=ALL)["num_phases"] == 3
    with pytest.raises(IndexError, match="phase 1"):
        phase_progression([part], [whole], compat=True)


def test_errors_of_progression_in_rows_and_seconds():
    # rows know their place but not the length: 10 rows learnt, 20 measured; phase 0 ends at row 4 and at row 9
    train, test = line(range(10), [0] * 5 + [1] * 5, fps=10), line(range(20), [0] * 10 + [1] * 10, fps=4)
    found = phase_progression([train], [test], labels=ALL)
    errors = np.abs((np.arange(20) - 4) / 10 - (np.arange(20) - 9) / 20) * 20
    assert found["train_r2"] == pytest.approx(1)
    assert found["error_rows"] == pytest.approx(errors.mean())
    assert found["error_seconds"] == pytest.approx(errors.mean() / 4)
    assert phase_progression([train], [line(range(20), [0] * 10 + [1] * 10)], labels=ALL)["error_seconds"] is None


def test_rows_without_labels_take_their_time_in_progression():
    labels = [0, 0, -1, -1, 1, 1]
    whole, cut = line(range(6), [0, 0, 0, 0, 1, 1]), line(range(6), labels)
    known = progression_targets(np.array(labels), num_classes=2)[:, 0]
    assert known == pytest.approx((np.arange(6) - 1) / 6)
    assert phase_progression([cut], [cut], labels=ALL)["r2"] == pytest.approx(1)
    assert phase_progression([cut], [cut], labels=ALL, compat=True)["r2"] < 0.97  # a jump of two rows is not seen
    assert phase_progression([whole], [cut, line([3])], labels=ALL)["error_rows"] == pytest.approx(2)


def test_progression_refuses():
    one = line([0, 1], [0, 0])
    with pytest.raises(ValueError, match="two phases or more, got 1"):
        phase_progression([one], [one])
    with pytest.raises(ValueError, match="phase progression, validation: none of 1 videos"):
        phase_progression([one], [line([0])])
    single = line([0], [1])
    assert phase_progression([single], [single], labels=ALL)["r2"] is None


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_classification_by_hand(classifier):
    train = [line([0, 0.1, 10, 10.1], [0, 0, 1, 1], fps=10), line([5, 5])]
    test = [line([0, 0, 0, 10], [0, 0, 1, 1], fps=4, name="a"), line([10, 0], [1, -1], fps=2, name="b"), line([3])]
    found = phase_classification(train, test, classifier=classifier, labels=ALL)
    assert found["accuracy"] == found["accuracy@100%"] == pytest.approx(4 / 5)
    assert found["video_accuracy"] == pytest.approx((3 / 4 + 1) / 2)
    assert found["class_recall"] == pytest.approx((1 + 2 / 3) / 2)
    assert found["macro_f1"] == pytest.approx((4 / 5 + 4 / 5) / 2)
    assert found["wrong_rows"] == pytest.approx(1 / 2)
    assert found["wrong_seconds"] == pytest.approx(0.25 / 2)
    assert (found["chance"], found["num_validation_videos"]) == (pytest.approx(3 / 5), 2)


def test_one_label_alone_is_predicted():
    found = phase_classification([line([0, 1], [2, 2])], [line([0, 1], [2, 0])], labels=ALL)
    assert found["accuracy"] == 0.5
    assert found["wrong_seconds"] is None


def test_classification_refuses():
    video = line([0, 1], [0, 1])
    with pytest.raises(ValueError, match="'tree' is not known; choose one of logistic, svm, svm_linear"):
        phase_classification([video], [video], classifier="tree")
    with pytest.raises(ValueError, match="phase classification, training: none of 1"):
        phase_classification([line([0])], [video])
    with pytest.raises(ValueError, match="phase classification, validation: none of 1"):
        phase_classification([video], [line([0])])


@pytest.mark.parametrize(
    ("fraction", "videos", "compat", "expected"),
    [(0.1, 7, False, 1), (0.5, 7, False, 3), (1, 7, False, 7), (0.29, 100, False, 29), (0.29, 100, True, 28)],
)
def test_how_many_videos(fraction, videos, compat, expected):
    assert LabelFractions(compat=compat).count(fraction, videos) == expected


def test_draws_follow_from_the_seed_and_grow():
    how = LabelFractions(seeds=(3, 4))
    small, large = (dict(how.draws(fraction, 20)) for fraction in (0.1, 0.5))
    assert all(set(small[seed]) < set(large[seed]) for seed in (3, 4))
    assert small == dict(LabelFractions(seeds=(4, 3)).draws(0.1, 20))
    assert large[3] != large[4]
    assert how.draws(1.0, 3) == [(3, [0, 1, 2])]
    assert [seed for seed, _ in how.draws(1.0, 3, is_random=True)] == [3, 4]
    assert LabelFractions(compat=True).draws(0.5, 4) == [(0, [0, 1])]
    assert LabelFractions(fewest=10).count(0.1, 30) == 10
    assert LabelFractions(fewest=10).count(0.1, 6) == 6


def test_means_and_spread_over_draws():
    train = [line([value], [0], name=str(value)) for value in range(4)]

    def measure(videos, seed):
        return {"largest": float(max(video.rows.max() for video in videos)), "never": None, "odd": seed % 2 or None}

    found = over_fractions(measure, train, LabelFractions(fractions=(0.25, 1), seeds=(0, 1, 2)))
    single = [row["largest"] for row in found["draws"][:3]]
    assert found["largest@25%"] == pytest.approx(np.mean(single))
    assert found["largest_spread@25%"] == pytest.approx(np.std(single, ddof=1))
    assert (found["largest@100%"], found["largest"], found["largest_spread@100%"]) == (3, 3, None)
    assert (found["never@25%"], found["odd@25%"], found["odd@100%"]) == (None, 1, None)
    assert [(row["fraction"], row["seed"], len(row["videos"])) for row in found["draws"]] == [
        (0.25, 0, 1),
        (0.25, 1, 1),
        (0.25, 2, 1),
        (1, 0, 4),
    ]


def test_per_action_is_the_mean_of_actions_not_of_videos():
    train = [line([0, 9], [0, 1], action=action) for action in ("run", "jump")]
    test = [line([0, 0, 0, 9], [0, 0, 1, 1], action="run"), *([line([0, 9], [0, 1], action="jump")] * 9)]
    test.append(line([0], [0], action="swim"))
    found = per_action(lambda *groups: phase_classification(*groups, labels=ALL), train, test)
    assert {name: values["accuracy"] for name, values in found["actions"].items()} == {"jump": 1, "run": 0.75}
    assert found["accuracy"] == pytest.approx(0.875)
    assert (found["num_actions"], found["left_out"]) == (2, ["swim"])
    assert "draws" not in found
    assert "num_validation_videos" not in found
    with pytest.raises(ValueError, match="no action is in all groups of videos"):
        per_action(phase_classification, train, [line([0], [0], action="swim")])


def test_a_linear_layer_learns_as_in_torch():
    videos, how = drawn(1, num_videos=5), LinearProbe(epochs=7, batch_videos=2, learning_rate=3.0, weight_decay=1e-2)
    layer = LinearLayer.drawn(5, 3, np.random.default_rng(0))
    found = train_layer(layer, videos, how=how, generator=np.random.default_rng(5))
    weight = torch.tensor(layer.weight.T.copy(), requires_grad=True)
    bias = torch.tensor(layer.bias.copy(), requires_grad=True)
    optimizer = torch.optim.SGD([weight, bias], lr=3.0, momentum=0.9, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=7)
    generator = np.random.default_rng(5)
    for _ in range(7):
        order = generator.permutation(5).tolist()
        for batch in (order[:2], order[2:4], order[4:]):
            rows, labels = joined([videos[index] for index in batch])
            optimizer.zero_grad()
            functional.cross_entropy(torch.tensor(rows) @ weight.T + bias, torch.tensor(labels)).backward()
            optimizer.step()
        schedule.step()
    np.testing.assert_allclose(found.weight.T, weight.detach().numpy(), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.bias, bias.detach().numpy(), rtol=1e-9, atol=1e-12)


def test_linear_probe_tells_phases_apart():
    found = linear_probe(drawn(1, num_videos=12), drawn(2), how=LinearProbe(epochs=20, learning_rate=1.0))
    assert found["accuracy@100%"] > 0.9
    assert found["accuracy"] == found["accuracy@100%"]
    assert [len(draw["videos"]) for draw in found["draws"]] == [10] * 6 + [12] * 3
    assert found["num_classes"] == 3
    again = linear_probe(drawn(1, num_videos=12), drawn(2), how=LinearProbe(epochs=20, learning_rate=1.0))
    assert again == found
    chance = linear_probe(drawn(1, noise=100), drawn(2, noise=100), how=LinearProbe(epochs=5), labels=ALL)
    assert chance["accuracy"] < 0.6


def test_the_last_batch_counts_but_in_compat():
    videos, generator = drawn(1, num_videos=3), np.random.default_rng
    layer = LinearLayer.drawn(5, 3, generator(0))
    how, compat = (LinearProbe(epochs=1, batch_videos=2, compat=value) for value in (False, True))
    whole = train_layer(layer, videos, how=how, generator=generator(1))
    part = train_layer(layer, videos, how=compat, generator=generator(1))
    first_two = [videos[index] for index in generator(1).permutation(3)[:2]]
    rows, labels = joined(first_two)
    weight, bias = layer.gradients(rows, labels)
    np.testing.assert_allclose(part.weight, layer.weight - 50 * (weight + 1e-6 * layer.weight))
    np.testing.assert_allclose(part.bias, layer.bias - 50 * (bias + 1e-6 * layer.bias))
    assert not np.allclose(whole.weight, part.weight)
    with pytest.raises(ValueError, match="compat needs 2 videos to train a linear probe, got 1"):
        train_layer(layer, videos[:1], how=compat, generator=generator(1))


def test_linear_probe_refuses():
    video = line([0, 1], [0, 4])
    with pytest.raises(ValueError, match="label 4 is not among 3 classes; give num_classes of 5"):
        linear_probe([video], [video], num_classes=3)
    assert linear_probe([video], [video], num_classes=99, labels=ALL)["num_classes"] == 99
