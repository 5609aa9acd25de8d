"""Temporal models that learn without labels by comparing two views of a video: SimCLR, MoCo, BYOL on stored rows."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from reelwright.models.systems.embedding_head import NETWORK
from reelwright.stages.base.work import InputRef, Work
from reelwright.stages.embed_rows.work import run_items as embed_rows
from reelwright.stages.fit.loop.progress import TIMINGS
from reelwright.stages.fit.run_models import load_run_model
from reelwright.stages.train.config import TrainConfig
from reelwright.stages.train.work import run
from reelwright.storage.arrays.embeddings import EmbeddingStore
from reelwright.storage.errors import ConfigError, InputError, Interrupted
from reelwright.storage.results.runs import RunFolder
from reelwright.storage.tables.annotations import Annotation

OBJECTIVES = {
    "simclr": {"name": "simclr", "dim": 8, "hidden": 16},
    "moco": {"name": "moco", "dim": 8, "hidden": 16, "queue": 7, "momentum": 0.9},
    "byol": {"name": "byol", "dim": 8, "hidden": 16, "predictor_hidden": 16, "momentum": 0.9},
}
GRU = {"name": "gru", "width": 8, "dropout": 0.0}
TRANSFORMER = {"name": "transformer", "width": 8, "layers": 1, "dropout": 0.0, "positions": "sinusoidal"}


@pytest.fixture
def walks(toy):
    """Six videos to train on, two to validate on: each goes its own way, under noise; without labels."""
    for number, num_rows in enumerate((20, 9, 24, 30, 18, 22, 26, 21)):
        rng = np.random.default_rng(number)
        rows = rng.normal(size=(1, 5)) + 0.3 * rng.normal(size=(num_rows, 5))
        toy.write("emb", f"d{number}", rows.astype(np.float32))
        toy.add(f"d{number}", "train" if number < 6 else "val", Annotation())
    return toy


def compared(toy, *, objective="simclr", model=GRU, **more):
    named = {"model": model, "objective": OBJECTIVES[objective], "views": {"length": 12}}
    work = toy.train_work(**{"optimizer": {"lr": 1e-2}, "batch_size": 4, "device": "cpu", **named, **more})
    del work.config["window"]
    work.payload["classes"] = []
    return work


def lines_of(toy, key):
    kept = RunFolder(toy.store.run(key)).metrics()
    return [{name: value for name, value in line.items() if name not in TIMINGS} for line in kept]


def weights(toy, key):
    return load_file(toy.store.run(key) / "model.safetensors")


def equal(toy, first, second):
    one, two = weights(toy, first), weights(toy, second)
    return one.keys() == two.keys() and all(torch.equal(value, two[name]) for name, value in one.items())


def embedded(toy, run_key, *, key="own"):
    refs = {
        "run": (InputRef(node="ssl", stage="train", key=run_key),),
        "embeddings": (InputRef(node="emb", stage="embed", key="emb"),),
    }
    items = toy.predict_work().items
    config = {"embeddings": ["emb"], "run": "ssl", "dtype": "float32", "device": "cpu"}
    embed_rows(
        Work(node=key, stage="embed", key=key, config=config, spec={}, store=str(toy.root), inputs=refs, items=items),
        toy.reporter,
    )
    return EmbeddingStore(toy.store.embeddings(key))


@pytest.mark.parametrize("model", [GRU, TRANSFORMER], ids=lambda model: model["name"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_temporal_encoder_is_learned_and_embeds_every_row(walks, objective, model):
    outputs = run(compared(walks, objective=objective, model=model, epochs=3), walks.reporter)
    assert "videos to validate on are not used: the last weights count" in walks.reporter.notes
    names = {name for name in outputs["metrics"] if name.startswith("train_")}
    assert names == {"train_loss"} | (set() if objective == "byol" else {"train_accuracy_1", "train_accuracy_5"})
    folder = RunFolder(walks.store.run("run"))
    assert folder.summary()["best_epoch"] == 3
    loaded, values = load_run_model(folder, plugins={})
    assert (values["task"], values["model"]["num_outputs"], values["views"]["sampling"]) == (None, None, "clip")
    state = weights(walks, "run")
    assert torch.equal(next(iter(loaded.state_dict().values())), state[f"{NETWORK}{next(iter(loaded.state_dict()))}"])
    rows = embedded(walks, "run").rows("d1").output("pooled")
    assert rows.shape == (9, 8)
    given = torch.from_numpy(EmbeddingStore(walks.store.embeddings("emb")).rows("d1").output("pooled"))[None]
    with torch.no_grad():
        wanted = loaded.eval()({"rows": given, "mask": torch.ones(1, 9, dtype=torch.bool)})["embedding"][0]
    np.testing.assert_allclose(rows, wanted.numpy(), atol=1e-6)


@pytest.mark.parametrize("objective", ["simclr", "moco"])
def test_views_of_a_video_become_alike(walks, objective):
    lines = run(compared(walks, objective=objective, epochs=40), walks.reporter)["metrics"]
    first = lines_of(walks, "run")[0]
    assert lines["train_loss"] < 0.7 * first["train_loss"]
    assert lines["train_accuracy_1"] >= max(0.7, first["train_accuracy_1"])


@pytest.mark.parametrize("objective", ["moco", "byol"])
def test_an_interrupted_epoch_goes_on_with_the_very_numbers(walks, objective):
    class Stop(type(walks.reporter)):
        def advance(self, amount):
            super().advance(amount)
            if self.advanced == 20:  # the first of two batches of the second epoch
                os.kill(os.getpid(), signal.SIGTERM)

    how = {"objective": objective, "epochs": 4, "ema": {"decay": 0.9}}
    run(compared(walks, key="whole", **how), walks.reporter)
    with pytest.raises(Interrupted, match=r"after update 3 \(epoch 2\)"):
        run(compared(walks, **how), Stop())
    kept = load_file(next((walks.store.run("run") / "checkpoints" / "last").glob("objective-3.safetensors")))
    assert any(name.startswith("target.network.") for name in kept)
    assert objective == "byol" or kept["pointer"].item() == (4 + 2 + 4) % 7
    run(compared(walks, **how), walks.reporter)
    assert any("goes on after update 3" in note for note in walks.reporter.notes)
    assert equal(walks, "run", "whole")
    assert lines_of(walks, "run") == lines_of(walks, "whole")


@pytest.mark.usefixtures("forked_training")
@pytest.mark.slow
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_two_processes_give_the_losses_of_one_and_go_on_in_the_middle(walks, objective):
    """Batches of 4 and 2 videos, or of 5 and 1, where one process has nothing of its own."""
    batch = 4 if objective == "simclr" else 5
    how = {"objective": objective, "batch_size": batch, "epochs": 3, "optimizer": {"name": "sgd", "lr": 0.05}}
    run(compared(walks, key="one", **how), walks.reporter)
    run(compared(walks, key="two", processes=2, **how), walks.reporter)
    for one, two in zip(lines_of(walks, "one"), lines_of(walks, "two"), strict=True):
        assert two == pytest.approx(one, rel=2e-4, abs=1e-6)
    one, two = weights(walks, "one"), weights(walks, "two")
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=2e-3, atol=1e-5)
    if objective == "simclr":  # nothing but the weights is kept
        return
    with pytest.raises(Interrupted):
        run(compared(walks, key="cut", processes=2, max_minutes=1e-9, **how), walks.reporter)
    run(compared(walks, key="cut", processes=2, **how), walks.reporter)
    assert lines_of(walks, "cut") == lines_of(walks, "two")
    assert equal(walks, "cut", "two")


def test_blocks_that_are_computed_again_are_not_those_of_the_target(walks):
    how = {"objective": "moco", "model": TRANSFORMER, "epochs": 3}
    run(compared(walks, key="plain", **how), walks.reporter)
    run(compared(walks, key="again", gradient_checkpointing=True, **how), walks.reporter)
    one, two = weights(walks, "plain"), weights(walks, "again")
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-5)


def test_labels_are_learned_from_where_it_stopped(walks):
    run(compared(walks, model=TRANSFORMER), walks.reporter)
    for number, video in enumerate(walks.videos):
        video["annotation"] = Annotation(label=number % 2).plain()
    work = walks.train_work(
        key="tuned", task="video", model=TRANSFORMER, window={"length": 12}, init_from="run", device="cpu", batch_size=4
    )
    work.payload["classes"] = ["a", "b"]
    work.inputs["init_from"] = (InputRef(node="ssl", stage="train", key="run"),)
    run(work, walks.reporter)
    told = next(note for note in walks.reporter.notes if note.startswith("init_from run ssl"))
    assert "new (cls_W, head.weight, head.bias)" in told
    assert "unused (heads.projector" in told


def test_kendalls_tau_chooses_where_it_is_asked_for(walks):
    outputs = run(compared(walks, metric="kendalls_tau"), walks.reporter)
    assert "videos to validate on are ranked by kendalls_tau alone" in walks.reporter.notes
    assert {name for name in outputs["metrics"] if name.startswith("val_")} == {"val_kendalls_tau"}


def test_a_single_video_has_nothing_to_be_told_apart_from(walks):
    for video in walks.videos[1:6]:
        video["split"] = "test"
    with pytest.raises(InputError, match=r"Objective simclr compares videos .*; 1 are too few"):
        run(compared(walks), walks.reporter)


def test_rows_that_are_apart_need_longer_videos_and_are_not_those_of_embed(walks):
    run(compared(walks, views={"length": 12, "stride": 2}), walks.reporter)
    notes = [note for note in walks.reporter.notes if "are padded" in note]
    assert [note.partition(" rows")[0] for note in notes] == ["4 of 6 videos to train on are shorter than a view of 23"]
    with pytest.raises(ConfigError, match=r"rows 2 apart \(views.stride\).* Train it with stride: 1"):
        embedded(walks, "run")


BAD = {
    "no views": ({"views": None}, "objective moco learns from views of videos; give views"),
    "model": ({"model": {"name": "mlp"}}, "mlp learns from windows.*transformer, gru, lstm learn from views"),
    "other loss": ({"objective": {"name": "scl"}}, "gru learns from windows"),
    "pool": ({"model": {"name": "gru", "pool": "mean"}}, "model.pool: an embedding of each row is learned"),
    "queue": ({"batch_size": 8}, "objective.queue is 7, but a batch has 8 keys"),
    "metric": ({"metric": "loss"}, "metric is loss, which says nothing of weights here"),
    "pairs": ({"views": {"sampling": "anchor_positive"}}, "the others do not. Leave sampling out"),
    "positions": (
        {"model": {"name": "transformer"}, "metric": "kendalls_tau"},
        "kendalls_tau embeds whole videos, but model.positions: learned are of views.length rows",
    ),
    "early stop": ({"early_stop": {}}, "early_stop waits for a metric, and none is measured"),
    "stride": ({"views": {"sampling": "time_augment", "stride": 2}}, "stride is of sampling clip, not of time_augment"),
}


@pytest.mark.parametrize(("settings", "match"), BAD.values(), ids=BAD)
def test_settings_that_do_not_fit_are_refused(settings, match):
    good = {"embeddings": ["e"], "model": GRU, "objective": OBJECTIVES["moco"], "views": {}, "batch_size": 4}
    TrainConfig(**good)
    with pytest.raises(ValueError, match=match):
        TrainConfig(**{**good, **settings})
