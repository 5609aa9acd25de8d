"""Runs that learn from views of whole videos: with labels and without, what is measured, and what is refused."""

from __future__ import annotations

import copy
import os
import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from reelwright.models.metrics.probes.embedded_videos import EmbeddedVideo
from reelwright.models.metrics.probes.kendalls_tau import kendalls_tau
from reelwright.stages.base.plugins import find_plugin
from reelwright.stages.datasets.stored_rows import read_video
from reelwright.stages.fit.loop.progress import TIMINGS
from reelwright.stages.fit.run_models import load_run_model, task_of_run
from reelwright.stages.predict.work import publish, run_items
from reelwright.stages.train.config import TrainConfig
from reelwright.stages.train.work import run
from reelwright.storage.arrays.embeddings import EmbeddingStore
from reelwright.storage.errors import ConfigError, InputError, Interrupted
from reelwright.storage.results.predictions import PredictionSet, scores_matrix
from reelwright.storage.results.runs import RunFolder
from reelwright.storage.tables.annotations import Annotation
from tests.stages.conftest import Toy

SMALL = {"layers": 1, "width": 32, "heads": 4, "mlp_width": 64, "hidden": 32, "embed_dim": 16, "projection_hidden": 16}
MODELS = {
    "carl": {"name": "carl", **SMALL},
    "vanilla": {"name": "vanilla", "hidden": 32, "embed_dim": 16, "contexts": 2},
}
OBJECTIVES = {
    "scl": {"name": "scl"},
    "scl_batch": {"name": "scl", "negatives": "batch_noself", "variance": 4.0},
    "tcc": {"name": "tcc"},
    "tcn": {"name": "tcn"},
    "per_frame": {"name": "per_frame"},
}


def course(num_rows, *, seed):
    """A video of one course at its own speed, in 2 features, under noise in 6 that is its own; and its phases."""
    rng = np.random.default_rng(seed)
    time = np.linspace(0, 1, num_rows) ** rng.uniform(0.6, 1.6)
    seen = np.stack([np.cos(3 * time), np.sin(3 * time)], 1)
    noise = 2 * rng.normal(size=(1, 6)) + 0.3 * rng.normal(size=(num_rows, 6))
    return np.concatenate([seen, noise], 1).astype(np.float32), (time * 3).astype(int).clip(0, 2)


@pytest.fixture(scope="module")
def courses_template(tmp_path_factory):
    return fill(Toy(tmp_path_factory.mktemp("courses") / "store"))


@pytest.fixture
def courses(courses_template, toy):
    """Six videos to train on and three to validate on, without labels; 30 to 60 rows. A copy, for one test."""
    shutil.copytree(courses_template.root, toy.root)
    toy.videos = copy.deepcopy(courses_template.videos)
    return toy


def fill(toy, *, labelled=False, lengths=(40, 55, 60, 30, 48, 52, 44, 50, 36)):
    for number, num_rows in enumerate(lengths):
        rows, phases = course(num_rows, seed=number)
        toy.write("emb", f"d{number}", rows)
        times = tuple((0.5 * row, int(phase)) for row, phase in enumerate(phases)) if labelled else ()
        toy.add(f"d{number}", "train" if number < len(lengths) - 3 else "val", Annotation(times=times))
    return toy


def view_work(toy, *, classes=(), model="carl", objective="scl", **more):
    model = MODELS[model] if isinstance(model, str) else model
    objective = OBJECTIVES[objective] if isinstance(objective, str) else objective
    named = {"model": model, "objective": objective, "views": {"length": 16}}
    work = toy.train_work(**{"optimizer": {"lr": 1e-3}, **named, "batch_size": 3, **more})
    del work.config["window"]
    work.payload["classes"] = list(classes)
    return work


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("objective", [name for name in OBJECTIVES if name != "per_frame"])
def test_no_label_is_needed(courses, model, objective):
    outputs = run(view_work(courses, model=model, objective=objective), courses.reporter)
    folder = RunFolder(courses.store.run("run"))
    config = folder.config()
    lines = folder.metrics()
    assert "6 videos to train on, 3 to validate on" in courses.reporter.notes
    assert outputs["metrics"]["val_loss"] == folder.summary()["best"] == min(line["val_loss"] for line in lines)
    assert (config["task"], config["classes"], config["model"]["num_outputs"]) == (None, [], None)
    assert config["views"]["sampling"] == ("anchor_positive" if objective == "tcn" else "time_augment")
    loaded, _ = load_run_model(folder, plugins={})
    assert loaded.embedder.embed.out_features == 16
    num_views = 2 if objective.startswith("scl") else 1
    assert courses.reporter.advanced == courses.reporter.totals[-1] == 2 * 6 * num_views
    assert courses.reporter.unit == "views"
    assert "learning rate 0.001; 3 videos an update" in courses.reporter.notes


@pytest.mark.slow
def test_labels_of_rows_are_learned_and_predicted(toy):
    fill(toy, labelled=True, lengths=(40,) * 20)
    learning = {"epochs": 30, "optimizer": {"lr": 1e-2, "weight_decay": 0.0}, "batch_size": 6}
    work = view_work(toy, classes=["a", "b", "c"], model="vanilla", objective="per_frame", **learning)
    outputs = run(work, toy.reporter)
    folder = RunFolder(toy.store.run("run"))
    assert outputs["metrics"]["val_macro_f1"] > 0.6
    assert folder.summary()["metric"] == "macro_f1"
    assert task_of_run(folder.config()).traits.per_row
    assert folder.config()["window"]["length"] == 16


def test_labels_that_nothing_learns_from_change_nothing(toy):
    fill(toy, labelled=True)
    run(view_work(toy, classes=["a", "b", "c"]), toy.reporter)
    with_labels = RunFolder(toy.store.run("run")).config()
    for video in toy.videos:
        video["annotation"] = Annotation().plain()
    run(view_work(toy, key="without"), toy.reporter)
    assert equal(toy, "run", "without")
    assert with_labels["classes"] == []


def equal(toy, first, second):
    one, two = (load_file(toy.store.run(key) / "model.safetensors") for key in (first, second))
    return one.keys() == two.keys() and all(torch.equal(value, two[name]) for name, value in one.items())


def test_kendalls_tau_of_whole_videos_chooses_where_it_is_asked_for(courses):
    outputs = run(view_work(courses, metric="kendalls_tau"), courses.reporter)
    folder = RunFolder(courses.store.run("run"))
    assert folder.summary()["best"] == max(line["val_kendalls_tau"] for line in folder.metrics())
    model, _ = load_run_model(folder, plugins={})
    videos, store = [], EmbeddingStore(courses.store.embeddings("emb"))
    for digest in ("d6", "d7", "d8"):
        rows = torch.from_numpy(read_video([store], digest, output="pooled")[0])[None]
        with torch.no_grad():
            found = model.eval()({"rows": rows, "mask": torch.ones(rows.shape[:2], dtype=torch.bool)})["embedding"]
        videos.append(EmbeddedVideo(name=digest, rows=found[0].numpy()))
    assert outputs["metrics"]["val_kendalls_tau"] == pytest.approx(kendalls_tau(videos)["kendalls_tau"], abs=1e-6)


def test_an_interrupted_epoch_goes_on_with_the_very_numbers(courses):
    class Stop(type(courses.reporter)):
        def advance(self, amount):
            super().advance(amount)
            if self.advanced == 18:  # the first of two batches of the second epoch
                os.kill(os.getpid(), signal.SIGTERM)

    run(view_work(courses, key="whole"), courses.reporter)
    with pytest.raises(Interrupted, match=r"after update 3 \(epoch 2\)"):
        run(view_work(courses), Stop())
    run(view_work(courses), courses.reporter)
    assert any("goes on after update 3" in note for note in courses.reporter.notes)
    assert equal(courses, "run", "whole")
    losses = [[line["train_loss"] for line in RunFolder(courses.store.run(key)).metrics()] for key in ("run", "whole")]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_videos_of_one_row_and_shorter_than_a_view(toy, objective):
    fill(toy, labelled=objective == "per_frame", lengths=(1, 1, 9, 40, 1, 9, 40))
    classes = ["a", "b", "c"] if objective == "per_frame" else []
    work = view_work(toy, objective=objective, classes=classes, batch_size=2)
    loss = run(work, toy.reporter)["metrics"]["train_loss"]
    assert np.isfinite(loss)
    notes = "\n".join(toy.reporter.notes)
    if objective == "tcn":
        assert "warning: 2 video(s) have fewer than 2 rows and are left out: name of d0, name of d1" in notes
    assert "are shorter than a view of 16 rows and are padded" in notes


def test_a_batch_has_videos_of_one_label(toy):
    fill(toy)
    work = view_work(toy, views={"length": 16, "one_label": True}, batch_size=2, classes=["a", "b"])
    with pytest.raises(InputError, match=r"one_label puts videos of one label into a batch, but 6 have none"):
        run(work, toy.reporter)
    for number, video in enumerate(toy.videos):
        video["annotation"] = Annotation(label=number % 2).plain()
    assert np.isfinite(run(work, toy.reporter)["metrics"]["val_loss"])


def test_labels_that_do_not_fit_the_rows_are_named(toy):
    fill(toy, labelled=True)
    toy.videos[0]["annotation"] = Annotation(segments=((0.0, 4.0, 0), (5.0, 300.0, 1))).plain()
    run(view_work(toy, classes=["a", "b", "c"], objective="per_frame"), toy.reporter)
    notes = "\n".join(toy.reporter.notes)
    assert "labels of 1 video(s) reach beyond their last row, by up to 280.00 s: name of d0" in notes
    assert "2 of 285 rows to train on have no label and are not learned from" in notes


def test_without_a_label_to_validate_on_the_last_weights_count(toy):
    fill(toy, labelled=True)
    for video in toy.videos[-3:]:
        video["annotation"] = Annotation().plain()
    outputs = run(view_work(toy, classes=["a", "b", "c"], objective="per_frame"), toy.reporter)
    assert "warning: no row to validate on has a label, so there is no validation" in toy.reporter.notes
    assert not any(name.startswith("val_") for name in outputs["metrics"])
    for video in toy.videos:
        video["annotation"] = Annotation().plain()
    with pytest.raises(InputError, match=r"none of the 285 rows to train on has a label"):
        run(view_work(toy, key="none", classes=["a", "b", "c"], objective="per_frame"), toy.reporter)


AMISS = {
    "no rows": ({"train_splits": ["none"]}, "No video of the splits none has rows"),
    "one video to compare": ({"objective": "tcc", "train_splits": ["one"]}, "compares videos"),
    "no labels": ({"objective": "per_frame"}, "objective per_frame learns labels of rows"),
    "drop_last": ({"drop_last": True, "batch_size": 64}, "drop_last leaves no batch"),
}


@pytest.mark.parametrize(("settings", "match"), AMISS.values(), ids=AMISS)
def test_what_cannot_be_learned_from_is_refused(courses, settings, match):
    courses.videos[0]["split"] = "one"
    with pytest.raises(InputError, match=match):
        run(view_work(courses, **settings), courses.reporter)


BAD = {
    "windows": ({"window": {"length": 8}}, "window is of windows, but views are learned from"),
    "task": ({"task": "per_row"}, "task is of windows"),
    "no views": ({"views": None}, "model carl learns from views of videos; give views"),
    "objective without views": (
        {"views": None, "model": {"name": "gru"}},
        "objective scl learns from views of videos; give views",
    ),
    "no objective": ({"objective": None}, "views need an objective: scl, tcc, tcn, per_frame, or a plug-in's"),
    "model of windows": ({"model": {"name": "gru"}}, "views are of models carl, conv, vanilla or .* gru learns from"),
    "frames": ({"model": {"name": "carl", "source": "frames"}}, "source: frames reads pictures"),
    "tcc alone": (
        {"objective": {"name": "tcc"}, "batch_size": 1},
        "tcc compares the videos of a batch, but batch_size",
    ),
    "tcn": ({"objective": {"name": "tcn"}, "views": {"sampling": "offset_uniform"}}, "tcn reads anchors and positives"),
    "odd": ({"objective": {"name": "tcn"}, "views": {"length": 15}}, "length is 15; of anchors and positives .* even"),
    "anchors": ({"views": {"sampling": "anchor_positive"}}, "the others do not. Leave sampling out"),
    "of other sampling": ({"views": {"positive_window": 3}}, "positive_window is of sampling anchor_positive, not of"),
    "metric": (
        {"metric": "macro_f1"},
        "metric is 'macro_f1', but with views and no labels there are loss and kendalls",
    ),
    "mix": ({"mix": {}}, "mix is of windows with labels"),
    "loss": ({"loss": {"label_smoothing": 0.1}}, "objective takes its place; leave loss out"),
    "unknown objective": (
        {"objective": {"name": "sclx"}},
        "unknown objective 'sclx'.*ours are scl, tcc, tcn, per_frame",
    ),
    "unknown option": ({"objective": {"name": "scl", "varianze": 1}}, "varianze: unknown key. Did you mean 'variance'"),
    "option of another": ({"objective": {"name": "tcc", "negatives": "batch"}}, "negatives is of scl, not of tcc"),
    "option of the model": ({"model": {"name": "carl", "layer": 2}}, "unknown option of carl 'layer'.*'layers'"),
    "type of an option": ({"model": {"name": "carl", "layers": "2"}}, "layers is '2'"),
}


@pytest.mark.parametrize(("settings", "match"), BAD.values(), ids=BAD)
def test_settings_that_do_not_fit_are_refused(settings, match):
    good = {"embeddings": ["e"], "model": {"name": "carl"}, "objective": {"name": "scl"}, "views": {}}
    TrainConfig(**good)
    with pytest.raises(ValueError, match=match):
        TrainConfig(**{**good, **settings})


def test_a_run_without_classes_scores_nothing(courses):
    run(view_work(courses), courses.reporter)
    with pytest.raises(ConfigError, match=r"trained without labels and gives no scores; embed rows with it"):
        task_of_run(RunFolder(courses.store.run("run")).config())


def test_keys_of_windows_know_nothing_of_views():
    spec = TrainConfig(embeddings=("e",)).spec()
    assert "views" not in spec
    assert "window" in spec
    views = TrainConfig(embeddings=("e",), model={"name": "carl"}, objective={"name": "scl"}, views={}).spec()
    assert "window" not in views
    assert views["views"]["length"] == 80


def lines_of(toy, key):
    return [
        {name: value for name, value in line.items() if name not in TIMINGS}
        for line in RunFolder(toy.store.run(key)).metrics()
    ]


@pytest.mark.usefixtures("forked_training")
@pytest.mark.slow
@pytest.mark.parametrize("objective", ["scl", "scl_batch", "tcc", "tcn"])
def test_two_processes_give_the_losses_of_one(toy, objective):
    """Uneven shares; in the last batch of scl and tcn only the first process has a video of its own."""
    fill(toy, lengths=(40, 9, 60, 30, 48, 52, 44, 50))
    model = {**MODELS["carl"], "dropout": 0.0}
    # no bias in front of a batch norm has a gradient but rounding, which Adam would blow up
    learning = {"model": model, "batch_size": 4, "epochs": 3, "device": "cpu", "optimizer": {"name": "sgd", "lr": 0.05}}
    run(view_work(toy, key="one", objective=objective, **learning), toy.reporter)
    run(view_work(toy, key="two", objective=objective, processes=2, **learning), toy.reporter)
    for one, two in zip(lines_of(toy, "one"), lines_of(toy, "two"), strict=True):
        assert two == pytest.approx(one, rel=2e-4, abs=1e-6)
    one, two = (load_file(toy.store.run(key) / "model.safetensors") for key in ("one", "two"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=2e-3, atol=1e-5)


@pytest.mark.usefixtures("forked_training")
@pytest.mark.slow
def test_two_processes_go_on_in_the_middle_of_an_epoch(courses):
    class Stop(type(courses.reporter)):
        def advance(self, amount):
            super().advance(amount)
            if self.advanced == 18:
                os.kill(os.getpid(), signal.SIGTERM)

    learning = {"batch_size": 3, "epochs": 30, "device": "cpu", "processes": 2, "metric": "kendalls_tau"}
    run(view_work(courses, key="whole", **learning), courses.reporter)
    with pytest.raises(Interrupted):
        run(view_work(courses, key="cut", **learning), Stop())
    run(view_work(courses, key="cut", **learning), courses.reporter)
    assert lines_of(courses, "cut") == lines_of(courses, "whole")
    assert equal(courses, "cut", "whole")


NET = """
import torch
from reelwright.models.temporal.common import TemporalModel


class Net(TemporalModel):
    def __init__(self, sizes, *, width: int = 8, pooled: bool = False):
        super().__init__(sizes)
        self.body, self.pooled = torch.nn.Linear(sizes.input_dim, width), pooled

    def forward(self, batch):
        rows = self.body(batch["rows"].masked_fill(~batch["mask"].unsqueeze(-1), 0.0))
        return {"embedding": torch.nn.functional.normalize(rows.mean(1) if self.pooled else rows, dim=-1)}
"""
LOSS = """
from reelwright.models.contracts import Outputs
from reelwright.stages.objectives.contract import LossParts, Objective


class Apart(Objective):
    num_views = 2

    def __init__(self, sizes):
        super().__init__()
        assert (sizes.task, sizes.num_classes) == ("per_row", 0)

    def forward(self, outputs, batch):
        one, other = outputs["embedding"].reshape(-1, 2, *outputs["embedding"].shape[1:]).unbind(1)
        return LossParts((one.mean(1) - other.mean(1)).square().mean())
"""


def plugged(toy, work, folder):
    for name, text in (("net.py", NET), ("loss.py", LOSS)):
        (folder / name).write_text(text, encoding="utf-8")
    uses = TrainConfig.model_validate(work.config).plugins().values()
    found = {use.key: find_plugin(use.group, use.name, folder=folder).plain() for use in uses}
    return replace(work, plugins=found)


def test_models_and_objectives_of_others_learn_from_views(courses, tmp_path):
    work = view_work(courses, model={"name": "net.py:Net", "width": 4}, objective={"name": "loss.py:Apart"})
    outputs = run(plugged(courses, work, tmp_path), courses.reporter)
    losses = [line["val_loss"] for line in RunFolder(courses.store.run("run")).metrics()]
    assert outputs["metrics"]["val_loss"] == min(losses) < losses[0]
    work = view_work(courses, key="other", model={"name": "net.py:Net", "pooled": True})
    with pytest.raises(ConfigError, match=r"Net gives embedding of shape \(2, 8\) .* needed is \(2, 16, 8\)"):
        run(plugged(courses, work, tmp_path), courses.reporter)


@pytest.mark.slow
def test_a_very_long_video_takes_no_more_than_its_rows(toy):
    rows = np.random.default_rng(0).normal(size=(100_000, 64)).astype(np.float32)
    toy.write("emb", "long", rows)
    toy.write("emb", "short", rows[:1])
    for digest, split in (("long", "train"), ("short", "train"), ("long", "val"), ("short", "val")):
        toy.add(digest, split, Annotation())
    work = view_work(toy, metric="kendalls_tau", memory_bytes=1 << 20, epochs=3)
    with pytest.raises(InputError, match=r"kendalls_tau compares videos .* more than a row, and there are 1"):
        run(work, toy.reporter)
    run(view_work(toy, key="again", memory_bytes=1 << 20, epochs=3), toy.reporter)
    before, *_, after = (line["peak_memory_bytes"] for line in RunFolder(toy.store.run("again")).metrics())
    assert after - before < 20 << 20


HOWS = {
    "bf16": {"precision": "bf16"},
    "recomputed": {"gradient_checkpointing": True},
    "mean of the weights": {"ema": {"decay": 0.9}},
    "accumulated, deterministic": {"optimizer": {"lr": 1e-3, "accumulate": 2}, "deterministic": True},
}


@pytest.mark.parametrize("how", HOWS.values(), ids=HOWS)
@pytest.mark.parametrize("objective", ["scl", "tcc"])
def test_settings_of_learning_go_with_views(courses, how, objective):
    assert np.isfinite(run(view_work(courses, objective=objective, **how), courses.reporter)["metrics"]["val_loss"])


def test_recomputed_blocks_give_the_same_weights(courses):
    model = {**MODELS["carl"], "dropout": 0.0}
    run(view_work(courses, key="plain", model=model), courses.reporter)
    run(view_work(courses, key="again", model=model, gradient_checkpointing=True), courses.reporter)
    one, two = (load_file(courses.store.run(key) / "model.safetensors") for key in ("plain", "again"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-5)


def test_a_run_with_classes_predicts_a_label_a_row(toy):
    fill(toy, labelled=True)
    classes = ["a", "b", "c"]
    run(view_work(toy, classes=classes, objective="per_frame"), toy.reporter)
    work = toy.predict_work()
    work.payload["classes"] = classes
    run_items(work, toy.reporter)
    publish(work, toy.store.predictions("published"))
    rows = PredictionSet(toy.store.predictions("published")).rows()
    frame = rows.to_pandas()
    assert (frame[frame.video_id == "name of d8"].row == np.arange(36)).all()
    assert np.allclose(scores_matrix(rows).sum(1), 1, atol=1e-5)
