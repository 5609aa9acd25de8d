"""GTEA's class scores as somebody else left them: imported, evaluated, and lifted by a temporal model."""

from __future__ import annotations

import json

import numpy as np
import pytest

from reelwright.pipeline.project import Project
from reelwright.stages.features.members import take_apart
from tests.real.test_gtea_metrics import KEYS, METHODS
from tests.small_project import write_rows

CLASSES = [f"class{number:02d}" for number in range(11)]
FOLDS = (1, 2, 3)
SEED = 0  # the same is true of 1 and 2

PUBLISHED = """
videos: {{manifest: videos.csv, splits: [{methods}]}}
labels: {{rows: rows.csv, classes: [{classes}]}}
stages:
  predicted: {{uses: features, fps: 15, one_hot: 11}}
  taken: {{uses: import_predictions, embeddings: predicted}}
{scores}
"""
TRAINED = """
videos: {{manifest: fold{fold}.csv}}
labels: {{rows: rows.csv, classes: [{classes}]}}
store: store
stages:
  scores: {{uses: features, fps: 15}}
  train:
    uses: train
    embeddings: [scores]
    task: per_row
    window: {{length: 357, hop: 357}}
    model: {{name: ms_tcn, layers: 6, width: 32, dropout: 0.5}}
    epochs: 50
    batch_size: 4
    optimizer: {{lr: 2e-3}}
    val_splits: []
    seed: {seed}
  predict: {{uses: predict, run: train, window: {{length: 357, hop: 357}}, splits: [test]}}
"""


def import_fold(real_data, folder, *, fold, kind):
    """The arrays of one fold named METHOD_KIND_NUMBER as files; the targets as lines of a label table."""
    source = real_data / "gtea_scores" / f"fold{fold}.npz"
    take_apart(source, folder / kind / f"fold{fold}", pattern=f"*_{kind}_*")
    with np.load(source, allow_pickle=False) as arrays:
        return {name.replace("_target_", f"_{kind}_"): arrays[name].tolist() for name in arrays if "_target_" in name}


def label_lines(video_id, targets):
    return [{"video_id": video_id, "frame": row, "label": CLASSES[target]} for row, target in enumerate(targets)]


@pytest.mark.slow
def test_published_metrics_out_of_evaluate(real_data, tmp_path):
    videos, labels = [], []
    for fold in FOLDS:
        for name, targets in import_fold(real_data, tmp_path, fold=fold, kind="pred").items():
            video_id = f"fold{fold}/{name}"
            split = name.partition("_")[0]
            videos.append({"video_id": video_id, "path": f"pred/{video_id}.npy", "split": split})
            labels += label_lines(video_id, targets)
    write_rows(tmp_path / "videos.csv", videos)
    write_rows(tmp_path / "rows.csv", labels)
    nodes = [
        f"  {method}_{name}: {{uses: evaluate, predictions: taken, splits: [{method}], report: false{more}}}"
        for method in METHODS
        for name, more in (("all", ""), ("0", ", background: class00"))
    ]
    text = PUBLISHED.format(methods=", ".join(METHODS), classes=", ".join(CLASSES), scores="\n".join(nodes))
    (tmp_path / "reelwright.yaml").write_text(text, encoding="utf-8")
    project = Project.open(tmp_path / "reelwright.yaml")
    assert project.run().exit_code == 0
    published = json.loads((real_data / "gtea_scores" / "metrics.json").read_text())
    for method, title in METHODS.items():
        for name, background in (("all", None), ("0", 0)):
            expected = published[f"GTEA|{title}|bg={background}"]
            metrics = json.loads((project.report(f"{method}_{name}") / "metrics.json").read_text())
            found = metrics["splits"][method]["segmental"]
            assert found["num_videos"] == expected["n"]
            assert found["num_rows"] == expected["frames"]
            for ours, theirs in KEYS.items():
                assert found[ours] == pytest.approx(expected[theirs], abs=1e-9), (method, name, ours)


@pytest.fixture
def folds(real_data, tmp_path):
    """One manifest a fold: its own videos are test, those of the other two are train."""
    names, labels = {}, []
    for fold in FOLDS:
        targets = import_fold(real_data, tmp_path, fold=fold, kind="scores")
        names[fold] = [name for name in targets if name.startswith("svm_")]
        labels += [line for name in names[fold] for line in label_lines(f"fold{fold}/{name}", targets[name])]
    write_rows(tmp_path / "rows.csv", labels)
    for held_out in FOLDS:
        rows = [
            {
                "video_id": f"fold{fold}/{name}",
                "path": f"scores/fold{fold}/{name}.npy",
                "split": "test" if fold == held_out else "train",
            }
            for fold in FOLDS
            for name in names[fold]
        ]
        write_rows(tmp_path / f"fold{held_out}.csv", rows)
    return tmp_path


def held_out_labels(folder):
    """Predicted and true labels of the 21 videos, each from the model that has not seen its fold."""
    predictions, targets = [], []
    for fold in FOLDS:
        path = folder / f"fold{fold}.yaml"
        path.write_text(TRAINED.format(fold=fold, seed=SEED, classes=", ".join(CLASSES)), encoding="utf-8")
        project = Project.open(path)
        assert project.run().exit_code == 0
        for table in project.predictions("predict").by_video("rows"):
            predictions.append(table["label_id"].to_numpy())
            targets.append(table["target_id"].to_numpy())
    return predictions, targets


@pytest.mark.slow
def test_a_temporal_model_lifts_the_imported_scores(real_data, folds, capsys):
    """As the data's README says: edit from about 36 to 56, F1@10 from about 44 to 60, frame accuracy as it was."""
    from reelwright.models.metrics.classification import segmental_metrics

    published = json.loads((real_data / "gtea_scores" / "metrics.json").read_text())["GTEA|video_SVM|bg=0"]
    metrics = segmental_metrics(*held_out_labels(folds), background=0)
    assert metrics["num_videos"] == 21
    before = [published[name] for name in ("acc_video_mean", "edit", "F1@10_video_mean")]
    found = [metrics[name] for name in ("frame_accuracy_video_mean", "edit", "f1@10_video_mean")]
    with capsys.disabled():
        print(f"\nGTEA, SVM -> TCN, seed {SEED}")
        for name, old, new in zip(("frame accuracy", "edit", "F1@10"), before, found, strict=True):
            print(f"  {name:14}  {old:.1f} -> {new:.1f}")
    assert found[0] > before[0] - 2
    assert found[1] > before[1] + 12
    assert found[2] > before[2] + 10
