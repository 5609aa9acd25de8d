"""An encoder learns states from their key frames, embed takes it, and nodes have labels of their own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from reelwright.pipeline.project import Project, SilentObserver
from reelwright.pipeline.upkeep.verify import verify
from reelwright.stages.base.work import SilentReporter
from reelwright.stages.embed.encoding.encoder import spatial_config
from reelwright.stages.synthesize.procedures.write import DatasetParameters, make_procedure_dataset
from reelwright.storage.errors import ConfigError
from tests.small_project import read_rows, write_rows

PIPELINE = """
videos: {manifest: data/manifest.csv, root: data}
labels: {steps: data/steps.csv}
stages:
  frames: {uses: decode, fps: 5, short_side: 48, workers: 1}
  pretrain:
    uses: pretrain
    frames: frames
    labels: {rows: states.csv}
    encoder: timm/test_resnet
    weights: none
    embed_dim: 8
    key_frames: {seconds: 0.6}
    batch: {per_class: 4, background: 4, per_epoch: 4}
    epochs: 2
    optimizer: {lr: 1.0e-3}
    schedule: {warmup_epochs: 0}
  embed: {uses: embed, frames: frames, run: pretrain, batch_size: 32, channels_last: false, dtype: float32}
  states:
    uses: train
    embeddings: [embed]
    labels: {rows: states.csv}
    task: last_row
    window: {length: 1, hop: 2}
    model: {name: linear}
    epochs: 1
    val_splits: []
  changes:
    uses: train
    embeddings: [embed]
    task: multi_label
    window: {length: 8, hop: 4}
    model: {name: linear}
    epochs: 1
    val_splits: []
  states_said: {uses: predict, run: states}
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Three small recordings and the states that follow from their steps, run to the end."""
    folder = tmp_path_factory.mktemp("pretrain")
    make_procedure_dataset(folder / "data", DatasetParameters(2, 1, 0, height=48, width=48))
    names = ["place_base", "add_red_bar", "add_blue_disc", "add_green_triangle"]
    rows, done = [], {}
    for step in read_rows(folder / "data" / "steps.csv"):
        state = done.setdefault(step["video_id"], [0, 0, 0, 0])
        state[names.index(step["step"])] = 1
        label = "".join(map(str, state))
        rows.append({"video_id": step["video_id"], "time_seconds": step["time_seconds"], "label": label})
    write_rows(folder / "states.csv", rows)
    (folder / "reelwright.yaml").write_text(PIPELINE, encoding="utf-8")
    opened = Project.open(folder / "reelwright.yaml")
    assert opened.run().exit_code == 0
    return opened


def ran(result):
    return [node.node for node in result.nodes if node.state == "ran"]


def test_an_encoder_is_learned_and_used(project):
    run = project.trained("pretrain")
    records = run.metrics()
    assert [record["epoch"] for record in records] == [1, 2]
    names = {name for name in records[0] if name.startswith("val_")}
    assert {"val_precision_at_1", "val_mean_average_precision_at_r_states", "val_f1_at_1"} <= names
    weights = load_file(run.weights)
    assert {name.split(".")[0] for name in weights} == {"spatial", "projection"}
    assert spatial_config(run.path).embed_dim == 8
    rows = project.embeddings("embed")["val_00"].output("pooled")
    assert rows.shape[1] == 8
    assert rows.min() >= 0
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


def test_labels_of_a_node_are_its_own(project):
    assert "1000" in project.trained("states").config()["classes"]
    assert "place_base" in project.trained("changes").config()["classes"]
    said = project.predictions("states_said").rows(columns=["label", "target"])
    assert set(said["target"].to_pylist()) - {None} <= set(project.trained("states").config()["classes"])
    assert ran(project.run()) == []
    assert verify(project.file, whole=True).is_whole


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("changes.window.length=6", ["changes"]),
        ("changes.window.sampling=random", ["changes"]),
        ("pretrain.batch_size=7", []),
    ],
)
def test_a_second_experiment_embeds_nothing(project, change, expected):
    assert ran(Project.open(project.file.path, overrides=[change]).run()) == expected


def test_labels_of_one_node_change_nothing_else(project):
    path = project.file.folder / "states.csv"
    rows, before = read_rows(path), path.read_text(encoding="utf-8")
    rows[0]["time_seconds"] = "0.5"
    write_rows(path, rows)
    plans = {plan.node.name: plan for plan in Project.open(project.file.path).planner().plans()}
    stale = {name for name, plan in plans.items() if plan.reasons}
    path.write_text(before, encoding="utf-8")
    assert stale == {"pretrain", "states", "embed", "changes", "states_said"}
    assert plans["changes"].reasons == ("waits for embed",) or "waits" in plans["changes"].reasons[0]


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        (["frames.materialize=false"], "pretrain reads its frames many times"),
        (["states_said.run=pretrain"], "is a pretrain node, whose encoder gives embeddings"),
        (
            ["pretrain.objective.name=ce", "pretrain.objective.exclude_background=true"],
            "exclude_background is of supcon",
        ),
        (["pretrain.batch.synthetic_per_class=2"], "synthetic_splits: 'synthetic' is no split"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_is_refused(project, settings, match):
    with pytest.raises(ConfigError, match=match):
        Project.open(project.file.path, overrides=settings).run(until=["pretrain"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("pretrain.states=['1000',nonsense]", "states: 'nonsense' is no label"),
        ("pretrain.batch.classes=40", "batch.classes is 40, but only"),
    ],
)
def test_what_is_told_when_it_runs(project, settings, message):
    result = Project.open(project.file.path, overrides=[settings]).run(until=["pretrain"])
    (failed,) = [node for node in result.nodes if node.state == "failed"]
    assert message in failed.message


def test_the_log_says_of_how_many_frames_an_update_and_a_validation_are(project):
    """One recording comes through fewer states than the two of train: what is not learned is not looked for."""
    notes = []

    class Reporter(SilentReporter):
        def note(self, text):
            notes.append(text)

    class Observer(SilentObserver):
        def started(self, plan):
            return Reporter()

    turned = ["pretrain.train_splits=[val]", "pretrain.val_splits=[train]"]
    other = Project.open(project.file.path, overrides=turned)
    assert ran(other.run(until=["pretrain"], observer=Observer())) == ["pretrain"]
    assert notes[0].startswith("12 frames of 6 states")  # three of each that there is: of four
    num_val = int(notes[0].split("synthetic ones; ")[1].split()[0])
    left_out = int(notes[1].split()[0])
    assert "more frames to validate on are left out: no real frame to learn from is of their state" in notes[1]
    assert (num_val, left_out) == (42, 6)
    assert "learning rate 0.001; 20 images an update" in notes


@pytest.mark.parametrize("objective", ["simclr", "batch_all", "batch_hard", "ce"])
def test_every_loss_trains(project, objective):
    other = Project.open(project.file.path, overrides=[f"pretrain.objective.name={objective}"])
    assert ran(other.run(until=["pretrain"])) == ["pretrain"]
    record = other.trained("pretrain").metrics()[-1]
    assert np.isfinite(record["train_loss"])
    assert torch.isfinite(torch.tensor(record["val_precision_at_1"]))


@pytest.mark.usefixtures("forked_training")
def test_two_processes_learn_as_one(project):
    """Batches of an odd number of frames, whose embeddings are compared across the processes; batch norms too."""
    still = [f"pretrain.augment.{name}=0" for name in ("brightness", "contrast", "saturation", "blur")]
    # not Adam, whose scale makes an update of float noise where a gradient is 0
    how = ["pretrain.objective.name=simclr", "pretrain.optimizer={name: momentum, lr: 0.001}", *still]
    lines, weights = [], []
    for processes in (1, 2):
        wanted = [*how, "pretrain.epochs=1", "pretrain.batch.background=5", f"pretrain.processes={processes}"]
        opened = Project.open(project.file.path, overrides=wanted)
        assert ran(opened.run(until=["pretrain"], force=("pretrain",))) == ["pretrain"]
        run = opened.trained("pretrain")
        lines.append([[line["train_loss"], line["gradient_norm"]] for line in run.metrics()])
        weights.append(load_file(run.weights))
    for a, b in zip(*lines, strict=True):
        assert b == pytest.approx(a, rel=5e-3)
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=1e-2, atol=1e-3)
