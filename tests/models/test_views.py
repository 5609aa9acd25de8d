"""Merging of views, against CAST's and fractal_video's values; and the accuracies of ST-ABN."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from reelwright.models.metrics.classification import classification_metrics
from reelwright.models.metrics.views import merge_probabilities, merge_views

VECTORS = json.loads((Path(__file__).parents[1] / "data" / "training_vectors.json").read_text())


@pytest.fixture
def cast():
    """Logits, video and view of each row, then the case."""
    case = VECTORS["cast"]["merge_views_single_label"]
    views = case["views [chunk,split,logits]"]
    rows = [(number, *view) for number, entries in enumerate(views.values()) for view in entries]
    video, segment, crop = (np.array([row[at] for row in rows]) for at in range(3))
    return np.array([row[3] for row in rows]), video, np.column_stack([segment, crop]), case


def test_cast_mean_of_softmax(cast):
    logits, video, view, case = cast
    merged = merge_views(logits, video_N=video, view_NV=view)
    assert merged.num_views.tolist() == [6, 6, 6]
    np.testing.assert_allclose(merged.probabilities, list(case["mean_of_softmax"].values()), atol=1e-6)
    assert merged.probabilities.argmax(axis=1).tolist() == list(case["pred"].values())
    found = classification_metrics(merged.probabilities, np.array(list(case["labels"].values())))
    assert 100 * found["top1"] == pytest.approx(case["final_top1"])
    assert 100 * found["top5"] == pytest.approx(case["final_top5"])


def test_duplicates_and_order_change_no_bit(cast):
    logits, video, view, _ = cast
    once = merge_views(logits, video_N=video, view_NV=view)
    order = np.random.default_rng(0).permutation(len(logits))
    again = np.concatenate([order, order[:5]])  # as a padded distributed sampler repeats rows
    merged = merge_views(logits[again], video_N=video[again], view_NV=view[again])
    assert (merged.probabilities == once.probabilities).all()
    assert merged.num_views.tolist() == [6, 6, 6]


def test_the_first_of_two_rows_of_a_view_counts():
    merged = merge_views([[0.0, 0.0], [9.0, 0.0]], video_N=[4, 4], view_NV=[[0, 0], [0, 0]])
    assert merged.probabilities.tolist() == [[0.5, 0.5]]


def test_views_above_nine_are_told_apart():
    """Segment 1, crop 11 and segment 11, crop 1: one name in CAST, where both are written without a space."""
    merged = merge_views([[0.0], [0.0]], video_N=[7, 7], view_NV=[[1, 11], [11, 1]])
    assert merged.video.tolist() == [7]
    assert merged.num_views.tolist() == [2]


def test_fractal_clip_average():
    case = VECTORS["fractal"]["clip_average"]
    merged = merge_views(case["logits"], video_N=case["file_idx"], view_NV=np.arange(len(case["logits"])))
    np.testing.assert_allclose(merged.probabilities, case["pred"], atol=1e-6)
    found = classification_metrics(merged.probabilities, np.array(case["labels"]))
    assert 100 * found["top1"] == pytest.approx(case["top1_pct"], abs=1e-4)


def test_huge_logits():
    assert merge_views([[1000.0, -1000.0]], video_N=[0], view_NV=[0]).probabilities.tolist() == [[1.0, 0.0]]


def test_probabilities_are_averaged_as_they_are():
    """Sigmoids or several heads: no softmax over all. (0.2 + 0.6) / 2 and (0.9 + 0.5) / 2; the double counts once."""
    values, views = [[0.2, 0.9], [0.6, 0.5], [0.6, 0.5]], [[0, 0], [0, 1], [0, 1]]
    merged = merge_probabilities(values, video_N=[3, 3, 3], view_NV=views)
    np.testing.assert_allclose(merged.probabilities, [[0.4, 0.7]])
    assert merged.num_views.tolist() == [2]
    with pytest.raises(ValueError, match="1 of 1 views have probabilities that are NaN"):
        merge_probabilities([[float("nan")]], video_N=[0], view_NV=[0])


BAD = {
    "shapes": (([[0.0]], [0, 1], [0]), r"logits must be \(N, K\), videos \(N,\), views \(N, V\)"),
    "nan": (([[float("nan")], [0.0]], [0, 1], [0, 0]), "1 of 2 views have logits that are NaN"),
}


@pytest.mark.parametrize(("arguments", "match"), BAD.values(), ids=BAD)
def test_bad_views(arguments, match):
    logits, video, view = arguments
    with pytest.raises(ValueError, match=match):
        merge_views(logits, video_N=video, view_NV=view)


def test_st_abn_accuracy():
    case = VECTORS["st_abn"]["accuracy"]
    found = classification_metrics(np.array(case["scores"]), np.array(case["labels"]), topk=(1, 2, 5))
    assert [found["top1"], found["top2"], found["top5"]] == pytest.approx(case["top1,top2,top5"])
    # there the mean is NaN: a class without targets is predicted; here it is over the classes that have targets
    per_class = case["per_class(nan where class absent)"]
    recall = found["per_class"]["recall"]
    assert [recall[cls] for cls in (0, 1, 2, 3, 5)] == per_class  # class 4 is neither target nor predicted
    assert found["mean_class_accuracy"] == pytest.approx(np.mean([share for share in per_class if share is not None]))


def test_st_abn_mean_class_accuracy():
    case = VECTORS["st_abn"]["accuracy_all_classes_present_subset"]
    found = classification_metrics(np.eye(4)[case["pred"]], np.array(case["labels"]))
    assert found["mean_class_accuracy"] == pytest.approx(case["mean_class_accuracy"])
    assert found["top1"] == pytest.approx(case["top1"])
