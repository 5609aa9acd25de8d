"""Segmental metrics of four published methods on GTEA equal the figures recomputed with the authors' code."""

from __future__ import annotations

import json

import numpy as np
import pytest

from reelwright.models.metrics.classification import segmental_metrics

METHODS = {
    "svm": "video_SVM",
    "edtcn": "video_ED-TCN_L2_C25",
    "dilatedtcn": "video_DilatedTCN_L5_B2",
    "tcnn": "video_tCNN_C30",
}
KEYS = {
    "frame_accuracy": "acc_frame",
    "frame_accuracy_video_mean": "acc_video_mean",
    "edit": "edit",
    **{f"f1@{k}": f"F1@{k}_pooled" for k in (10, 25, 50)},
    **{f"f1@{k}_video_mean": f"F1@{k}_video_mean" for k in (10, 25, 50)},
}


def load_method(folder, method):
    """(predictions, targets) of all videos of all folds that have the method."""
    pairs = []
    for fold in (1, 2, 3):
        with np.load(folder / "gtea_scores" / f"fold{fold}.npz", allow_pickle=False) as arrays:
            names = [name for name in arrays if name.startswith(f"{method}_target_")]
            pairs += [(arrays[name.replace("target", "pred")], arrays[name]) for name in names]
    predictions, targets = zip(*pairs, strict=True)
    return predictions, targets


@pytest.mark.parametrize("background", [0, None], ids=["background0", "all_classes"])
@pytest.mark.parametrize("method", METHODS)
def test_equals_published_recipe(real_data, method, background):
    published = json.loads((real_data / "gtea_scores" / "metrics.json").read_text())
    expected = published[f"GTEA|{METHODS[method]}|bg={background}"]
    found = segmental_metrics(*load_method(real_data, method), background=background)
    assert found["num_videos"] == expected["n"]
    assert found["num_rows"] == expected["frames"]
    for ours, theirs in KEYS.items():
        assert found[ours] == pytest.approx(expected[theirs], abs=1e-9), ours
