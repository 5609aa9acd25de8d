"""Features as a source of a pipeline: only new and changed files are imported; training and scores run on them."""

from __future__ import annotations

import json
import os
import types

import numpy as np
import pytest

from reelwright.pipeline.project import Project
from reelwright.stages.features import work
from reelwright.stages.import_predictions.config import ImportPredictionsConfig
from reelwright.stages.import_predictions.work import _scores
from reelwright.storage.errors import InputError, ItemError
from tests.small_project import write_rows

CHAIN = """
videos: {features: feats}
labels: {rows: rows.csv}
stages:
  feats: {uses: features, fps: 2}
  train:
    uses: train
    embeddings: [feats]
    task: per_row
    window: {length: 4, hop: 4}
    model: {name: linear}
    epochs: 30
    optimizer: {lr: 0.1}
    batch_size: 4
    val_splits: []
  predict: {uses: predict, run: train}
  scores: {uses: evaluate, predictions: predict}
"""
TAKEN = """
videos: {features: feats}
labels: {rows: rows.csv, classes: [still, moves]}
stages:
  feats: {uses: features, fps: 2}
  taken: {uses: import_predictions, embeddings: feats, activation: softmax}
  scores: {uses: evaluate, predictions: taken, splits: [train, test]}
"""


@pytest.fixture
def folder(tmp_path):
    """Six videos of eight rows: (2, -2) where nothing moves, (-2, 2) where something does, and a little noise."""
    rng = np.random.default_rng(0)
    labels = []
    for number in range(6):
        moves = np.arange(8) >= number + 1
        rows = np.where(moves[:, None], (-2.0, 2.0), (2.0, -2.0)) + rng.normal(size=(8, 2)) * 0.01
        name = f"{'train' if number < 4 else 'test'}/v{number}"
        (tmp_path / "feats" / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / "feats" / f"{name}.npy", rows)
        labels += [
            {"video_id": name, "frame": row, "label": "moves" if moved else "still"} for row, moved in enumerate(moves)
        ]
    write_rows(tmp_path / "rows.csv", labels)
    return tmp_path


def open_project(folder, text):
    (folder / "reelwright.yaml").write_text(text, encoding="utf-8")
    return Project.open(folder / "reelwright.yaml")


def states(result):
    return {node.node: (node.state, node.num_done) for node in result.nodes}


@pytest.mark.slow
def test_whole_chain_and_only_what_changed(folder):
    project = open_project(folder, CHAIN)
    assert project.run().exit_code == 0
    rows = project.embeddings("feats")["test/v4"]
    np.testing.assert_array_equal(rows.output("pooled"), np.load(folder / "feats/test/v4.npy").astype(np.float32))
    assert rows.spans.start_seconds.tolist() == [number / 2 for number in range(8)]
    metrics = json.loads((project.report("scores") / "metrics.json").read_text())
    assert metrics["headline"]["frame_accuracy"] == 100
    assert metrics["headline"]["num_videos"] == 2
    assert "there is a file of features, and no video" in (project.report("scores") / "report.html").read_text()
    assert project.run().nothing_to_do

    changed = np.load(folder / "feats/train/v0.npy")
    np.save(folder / "feats/train/v0.npy", changed + 0.001)
    (folder / "feats/train/v1.npy").rename(folder / "feats/train/renamed.npy")
    again = states(project.run(until=["feats"]))
    assert again["feats"] == ("ran", 1)


def test_scores_of_others_become_predictions(folder):
    project = open_project(folder, TAKEN)
    assert project.run().exit_code == 0
    table = project.predictions("taken").rows()
    assert table.num_rows == 48
    assert table["label"].to_pylist() == table["target"].to_pylist()
    assert table["score"][0].as_py() == pytest.approx(1 / (1 + np.exp(-4)), abs=0.01)
    assert project.run().nothing_to_do


def test_a_bad_file_is_a_row_and_the_others_are_imported(folder):
    np.save(folder / "feats/train/v0.npy", np.zeros((8, 3)))
    (folder / "feats/train/v1.npy").write_text("no array")
    np.save(folder / "feats/train/v2.npy", np.full((8, 2), np.inf))
    result = open_project(folder, CHAIN).run(until=["feats"])
    assert result.exit_code == 3
    assert sorted(failure.row.cause for failure in result.failures) == ["not_finite", "other_shape", "unreadable"]
    assert states(result)["feats"] == ("ran", 3)


def causes(result):
    return {failure.video_ids[0]: failure.row.cause for failure in result.failures}


@pytest.mark.parametrize("when", ["before it is opened", "while it is read"])
def test_a_file_replaced_after_its_digest_is_a_failure_and_imported_by_the_next_run(folder, monkeypatch, when):
    victim, other = folder / "feats/train/v0.npy", folder / "other.npy"
    np.save(other, np.full((8, 2), 7.0))
    read = work.read_features

    def replaced(path, config, *, times=None):
        if other.exists() and (path == victim) == (when == "while it is read"):
            found = read(path, config, times=times)
            other.replace(victim)
            return found
        return read(path, config, times=times)

    monkeypatch.setattr(work, "read_features", replaced)
    project = open_project(folder, CHAIN.replace("fps: 2", "fps: 2, dim: 2"))
    result = project.run(until=["feats"])
    assert causes(result) == {"train/v0": "changed"}
    assert "changed while it was read, so nothing of it was kept; run again" in result.failures[0].row.message
    assert project.run(until=["feats"]).exit_code == 0
    assert (project.embeddings("feats")["train/v0"].output("pooled") == 7).all()


def test_quick_digests_are_compared_as_such(folder):
    project = open_project(folder, CHAIN.replace("{features: feats}", "{features: feats, digest: quick}"))
    assert project.run(until=["feats"]).exit_code == 0


def test_a_name_that_is_not_utf8_is_left_out_and_the_others_are_imported(folder):
    name = os.fsdecode(b"caf\xe9.npy")
    (folder / "feats/train/v0.npy").rename(folder / "feats/train" / name)
    result = open_project(folder, CHAIN).run(until=["feats"])
    assert result.exit_code == 0
    assert states(result)["feats"] == ("ran", 5)
    assert result.notes[0].startswith(r"left out: train/caf\xe9.npy: not UTF-8, so no table can hold the name. Rename")


BROKEN = {
    "no classes for the columns": (TAKEN.replace("[still, moves]", "[still, moves, jumps]"), "there are 3 classes"),
    "no file fits": (CHAIN.replace("fps: 2", "fps: 2, dim: 7"), "none of the 6 files"),
    "logits as they are": (TAKEN.replace("softmax", "none"), "no video"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("text", "message"), BROKEN.values(), ids=BROKEN)
def test_what_cannot_be_is_told(folder, text, message):
    result = open_project(folder, text).run()
    assert result.exit_code
    told = [node.message for node in result.nodes] + [failure.row.message for failure in result.failures]
    assert any(message in text or "probabilities" in text for text in told), told


def test_no_folder(tmp_path):
    with pytest.raises(InputError, match="no such folder of features"):
        open_project(tmp_path, CHAIN.replace("labels: {rows: rows.csv}\n", "")).run()


@pytest.mark.slow
def test_times_of_a_table(folder):
    entries = [
        {"video_id": f"{'train' if number < 4 else 'test'}/v{number}", "start_seconds": row * 3}
        for number in range(6)
        for row in range(8)
    ]
    write_rows(folder / "times.csv", entries)
    project = open_project(folder, CHAIN.replace("fps: 2", "times: times.csv"))
    assert project.run(until=["feats"]).exit_code == 0
    assert project.embeddings("feats")["test/v5"].spans.stop_seconds.tolist() == [3, 6, 9, 12, 15, 18, 21, 24]


def test_scores_that_are_not_numbers_are_refused():
    scores = types.SimpleNamespace(num_rows=2, output=lambda _: np.array([[0.2, 0.8], [np.nan, 1.0]], np.float32))
    source = types.SimpleNamespace(rows=lambda _: scores)
    with pytest.raises(ItemError, match=r"scores reach from nan to nan; probabilities are in \[0, 1\]"):
        _scores(source, "d", ImportPredictionsConfig(embeddings="e"))
