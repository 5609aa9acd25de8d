"""Metrics by hand and against scikit-learn."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from sklearn import metrics as reference

from reelwright.models.metrics.classification import (
    chance_levels,
    classification_metrics,
    multilabel_metrics,
    segmental_metrics,
)
from reelwright.models.metrics.segmental import find_segments, levenshtein, match_segments

SCORES = np.array([[0.7, 0.2, 0.1], [0.4, 0.5, 0.1], [0.1, 0.6, 0.3], [0.2, 0.2, 0.6], [0.9, 0.1, 0.0]])
TARGET = np.array([0, 0, 1, 1, -1])


def test_classification_by_hand():
    found = classification_metrics(SCORES, TARGET, topk=(1, 2, 5))
    assert found["num_entries"] == 4
    assert found["confusion"] == [[1, 1, 0], [0, 1, 1], [0, 0, 0]]
    assert found["top1"] == 0.5
    assert found["top2"] == 0.75  # row 3: classes 0 and 1 are equal behind 2, and class 0 comes first
    assert "top5" not in found
    assert found["mean_class_accuracy"] == 0.5
    assert found["per_class"]["support"] == [2, 2, 0]
    assert found["per_class"]["precision"] == [1.0, 0.5, 0.0]
    assert found["per_class"]["recall"] == [0.5, 0.5, None]
    assert found["per_class"]["f1"] == pytest.approx([2 / 3, 0.5, 0.0])
    assert found["macro_f1"] == pytest.approx((2 / 3 + 0.5) / 3)
    # Class 0 by score: 0.7 (hit), 0.4 (hit): 1.
    # Class 1 by score: 0.6 (hit), 0.5, then two equal at 0.2 with one hit: 1/2 x 1/1 + 1/2 x 2/4.
    assert found["per_class"]["average_precision"] == [1.0, 0.75, None]
    assert found["mean_average_precision"] == 0.875


def test_classification_equals_scikit_learn():
    rng = np.random.default_rng(0)
    scores, target = rng.random((200, 6)), rng.integers(0, 6, 200)
    found, predicted = classification_metrics(scores, target, topk=(1, 3, 5)), scores.argmax(axis=1)
    assert found["top1"] == pytest.approx(reference.accuracy_score(target, predicted))
    for k in (3, 5):
        assert found[f"top{k}"] == pytest.approx(reference.top_k_accuracy_score(target, scores, k=k))
    assert found["mean_class_accuracy"] == pytest.approx(reference.balanced_accuracy_score(target, predicted))
    assert found["macro_f1"] == pytest.approx(reference.f1_score(target, predicted, average="macro"))
    assert found["confusion"] == reference.confusion_matrix(target, predicted).tolist()
    expected = reference.average_precision_score(np.eye(6)[target], scores, average="macro")
    assert found["mean_average_precision"] == pytest.approx(expected)


def test_multilabel_equals_scikit_learn():
    rng = np.random.default_rng(0)
    scores, target = rng.random((100, 4)), rng.random((100, 4)) < 0.3
    found, predicted = multilabel_metrics(scores, target, threshold=0.6), scores >= 0.6
    for average, name in (("macro", "mean_average_precision"), ("micro", "micro_average_precision")):
        assert found[name] == pytest.approx(reference.average_precision_score(target, scores, average=average))
    for average in ("macro", "micro"):
        assert found[f"{average}_f1"] == pytest.approx(reference.f1_score(target, predicted, average=average))


def test_multilabel_by_hand():
    scores = np.array([[0.9, 0.2, 0.1], [0.8, 0.5, 0.1]])
    found = multilabel_metrics(scores, [[1, 0, 0], [0, 1, 0]])
    assert found["per_class"]["support"] == [1, 1, 0]
    assert found["per_class"]["f1"] == pytest.approx([2 / 3, 1.0, None])
    assert found["per_class"]["average_precision"] == [1.0, 1.0, None]
    assert found["macro_f1"] == pytest.approx(5 / 6)
    assert found["micro_f1"] == pytest.approx(4 / 5)


@pytest.mark.parametrize(
    "found",
    [
        classification_metrics(SCORES, TARGET),
        multilabel_metrics(SCORES, np.zeros((5, 3), bool)),
        segmental_metrics([np.array([0, 1])], [np.array([0, 0])]),
        chance_levels(TARGET, 3),
    ],
    ids=["classification", "multilabel", "segmental", "chance"],
)
def test_results_are_plain_json(found):
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_chance_levels():
    assert chance_levels(np.array([2, 2, 0, -1, 2]), 4) == {"uniform": 0.25, "majority": 0.75}


def test_find_segments():
    found = find_segments(np.array([0, 0, 1, 1, 1, 0]))
    assert [found.label.tolist(), found.start.tolist(), found.stop.tolist()] == [[0, 1, 0], [0, 2, 5], [2, 5, 6]]
    assert find_segments(np.array([0, 0, 1, 0]), background=0).label.tolist() == [1]
    assert find_segments(np.array([], dtype=int)).label.tolist() == []


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "abc", 0), ("abc", "", 3), ("ab", "ba", 2)],
)
def test_levenshtein(first, second, expected):
    assert levenshtein([ord(c) for c in first], [ord(c) for c in second]) == expected


def test_match_segments_by_hand():
    target = find_segments(np.array([1] * 10 + [2] * 10))
    # The target's first segment is split in two pieces of label 1 (5 and 3 of its 10 rows), with a 2 between.
    pred = find_segments(np.array([1] * 5 + [2] * 2 + [1] * 3 + [2] * 10))
    assert match_segments(pred, target, overlap=0.5) == (2, 2, 0)
    assert match_segments(pred, target, overlap=0.51) == (1, 3, 1)
    # The 2 in between overlaps the target's 2 nowhere; the second piece of 1 finds its target taken.
    assert match_segments(pred, target, overlap=0.1) == (2, 2, 0)


def test_segmental_by_hand():
    pred = [np.array([0, 0, 1, 1]), np.array([2, 2])]
    target = [np.array([0, 1, 1, 1]), np.array([2, 2])]
    found = segmental_metrics(pred, target)
    assert found["frame_accuracy"] == pytest.approx(100 * 5 / 6)
    assert found["frame_accuracy_video_mean"] == pytest.approx(100 * (3 / 4 + 1) / 2)
    assert found["edit"] == 100.0
    # Overlaps: 1/2 for label 0, 2/3 for label 1, 1 for the second video.
    assert (found["f1@10"], found["f1@50"], found["f1@50_video_mean"]) == (100.0, 100.0, 100.0)
    without = segmental_metrics(pred, target, background=0)
    assert without["frame_accuracy"] == found["frame_accuracy"]
    shifted = segmental_metrics([np.array([0, 0, 0, 1])], [np.array([0, 1, 1, 1])])
    assert (shifted["f1@25"], shifted["f1@50"]) == (100.0, 0.0)


def test_segmental_pools_and_means_differ():
    # First video: all 3 segments right; second: its only segment wrong.
    pred, target = [np.array([0, 1, 2]), np.array([0, 0])], [np.array([0, 1, 2]), np.array([1, 1])]
    found = segmental_metrics(pred, target)
    assert found["f1@10"] == pytest.approx(75.0)  # 3 hits, 1 false positive, 1 false negative
    assert found["f1@10_video_mean"] == pytest.approx(50.0)
    assert found["edit"] == pytest.approx(50.0)


def test_unknown_rows_are_cut_out():
    known = segmental_metrics([np.array([0, 0, 1])], [np.array([0, 0, 1])])
    cut = segmental_metrics(
        [np.array([0, 5, 0, 1]), np.array([3])], [np.array([0, -1, 0, 1]), np.array([-1])], ignore=-1
    )
    assert cut == known


REFUSED = [
    ("shapes", lambda: classification_metrics(np.zeros((3, 2)), np.zeros(4, int)), r"got \(3, 2\) and \(4,\)"),
    ("class", lambda: classification_metrics(np.zeros((2, 2)), np.array([0, 2])), r"span \[0, 2\]; allowed: -1"),
    ("no target", lambda: classification_metrics(np.zeros((2, 2)), np.array([-1, -1])), r"no entry has a target"),
    ("nan", lambda: classification_metrics(np.array([[np.nan, 0], [0, 1]]), np.array([0, 1])), r"1 of 2 rows .* NaN"),
    ("label shapes", lambda: multilabel_metrics(np.zeros((3, 2)), np.zeros((3, 1))), r"must both be \(N, K\)"),
    ("label values", lambda: multilabel_metrics(np.zeros((1, 2)), [[0, 2]]), r"must be False or True"),
    ("label nan", lambda: multilabel_metrics(np.array([[np.nan]]), [[1]]), r"1 of 1 rows of scores hold NaN"),
    ("videos", lambda: segmental_metrics([np.array([1])], []), r"1 predicted videos but 0 targets"),
    ("lengths", lambda: segmental_metrics([np.array([1])], [np.array([1, 1])]), r"video 0: .*\(1,\), target \(2,\)"),
    ("unknown", lambda: segmental_metrics([np.array([1])], [np.array([-1])]), r"no row has a target"),
    ("chance", lambda: chance_levels(np.array([-1]), 3), r"no target is known"),
]


@pytest.mark.parametrize(("call", "message"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_metrics_need_no_torch():
    script = "import sys, reelwright.models.metrics.classification; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
