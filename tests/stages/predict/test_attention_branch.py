"""An attention branch over stored maps and tokens: trained, both classifiers scored, predicted, its attention kept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from reelwright.stages.embed.work import run_items as embed_items
from reelwright.stages.fit.run_models import load_run_model
from reelwright.stages.predict.work import run_items
from reelwright.stages.train.work import run
from reelwright.storage.arrays.embeddings import EmbeddingStore
from reelwright.storage.arrays.window_outputs import WindowOutputStore
from reelwright.storage.errors import ConfigError, StageError
from reelwright.storage.results.runs import RunFolder
from reelwright.storage.results.scores import read_scores
from reelwright.storage.tables.annotations import Annotation
from tests.stages.predict.conftest import EMBED, over_frames

MODEL = {"name": "attention_branch", "width": 8, "layers": 1, "dropout": 0.0}
WINDOW = {"length": 6, "hop": 6}
GRID = 3


def lights(toy, digest, split, *, seed, form="map", num_rows=24):
    """A light in one place of a grid of noise; its class: whether that is on the left or on the right."""
    generator = np.random.default_rng(seed)
    label = seed % 2
    maps = generator.normal(0, 0.3, (num_rows, 4, GRID, GRID)).astype(np.float32)
    maps[:, 0, generator.integers(GRID), 2 * label] += 3.0
    rows = maps if form == "map" else maps.reshape(num_rows, 4, GRID * GRID).transpose(0, 2, 1).copy()
    toy.write("emb", digest, rows, name=form)
    toy.add(digest, split, Annotation(label=label))
    return maps


def trained(toy, *, form="map", num_videos=8, **config):
    for number in range(num_videos):
        lights(toy, f"d{number}", "train", seed=number, form=form)
    for number in range(num_videos // 4):
        lights(toy, f"v{number}", "val", seed=100 + number, form=form)
    settings = {
        "output": form,
        "task": "video",
        "window": WINDOW,
        "model": MODEL,
        "epochs": 2,
        "batch_size": 8,
        **config,
    }
    work = toy.train_work(**settings)
    run(work, toy.reporter)
    return RunFolder(toy.store.run(work.key))


@pytest.mark.parametrize("form", ["map", "tokens"])
def test_positions_reach_the_model_and_its_attention_is_kept(toy, form):
    folder = trained(toy, form=form)
    run_items(toy.predict_work(keep=["attention"], window={"hop": 6}), toy.reporter)
    module, values = load_run_model(folder, plugins={})
    assert values["model"]["row_shape"] == ([4, GRID, GRID] if form == "map" else [GRID * GRID, 4])
    assert values["model"]["input_dim"] == 4
    rows = EmbeddingStore(toy.store.embeddings("emb")).rows("v1").output(form)
    with torch.inference_mode():
        wanted = module.eval()(
            {"rows": torch.from_numpy(rows).unflatten(0, (4, 6)), "mask": torch.ones(4, 6, dtype=torch.bool)}
        )
    found = WindowOutputStore(toy.store.attention("scores")).rows("v1")
    assert found.output("attention.space").shape == (4, 6, GRID, GRID)
    np.testing.assert_allclose(found.output("attention.space"), wanted["attention.space"].numpy(), atol=1e-3)
    np.testing.assert_allclose(found.output("attention.time"), wanted["attention.time"].numpy(), atol=1e-5)
    scores = read_scores(toy.store.predictions("scores"), "v1").scores
    np.testing.assert_allclose(scores, wanted["logits"].softmax(-1).numpy(), atol=1e-5)


@pytest.mark.slow
def test_it_learns_where_the_light_is_which_a_mean_over_places_cannot_say(toy):
    """Both classifiers are right about videos not seen, and both are scored and logged."""
    folder = trained(toy, num_videos=24, epochs=15, optimizer={"lr": 0.01}, schedule={"warmup_epochs": 1})
    line = folder.metrics()[-1]
    assert line["train_loss"] == pytest.approx(line["train_loss_perception"] + line["train_loss_attention"], rel=1e-4)
    best = max(folder.metrics(), key=lambda entry: entry["val_macro_f1"])
    assert best["val_macro_f1"] == 1.0
    assert max(entry["val_attention_macro_f1"] for entry in folder.metrics()) == 1.0
    plain = trained(toy, num_videos=0, key="mean", model={"name": "mlp", "hidden": 16}, epochs=15)
    assert max(entry["val_macro_f1"] for entry in plain.metrics()) < 0.8


def test_the_weight_of_the_branch_is_a_setting(toy):
    line = trained(toy, loss={"attention_weight": 0.25}, epochs=1, optimizer={"lr": 1e-12}).metrics()[-1]
    module, _ = load_run_model(RunFolder(toy.store.run("run")), plugins={})
    rows = EmbeddingStore(toy.store.embeddings("emb"))
    clips = torch.cat([torch.from_numpy(rows.rows(name).output("map")).unflatten(0, (4, 6)) for name in ("v0", "v1")])
    with torch.inference_mode():
        outputs = module.eval()({"rows": clips, "mask": torch.ones(8, 6, dtype=torch.bool)})
    targets = torch.tensor([0] * 4 + [1] * 4)
    losses = {
        name: float(torch.nn.functional.cross_entropy(outputs[output], targets))
        for name, output in {"perception": "logits", "attention": "aux.attention_logits"}.items()
    }
    assert line["val_loss_perception"] == pytest.approx(losses["perception"], abs=1e-4)
    assert line["val_loss_attention"] == pytest.approx(0.25 * losses["attention"], abs=1e-4)


def test_rows_of_another_grid_and_several_stores_are_refused(toy):
    trained(toy, epochs=1)
    toy.write("other", "d0", np.zeros((24, 4, 2, 2), np.float32), name="map")
    toy.videos = toy.videos[:1]
    with pytest.raises(StageError, match="trained on rows of 4 x 3 x 3 features, these have 4 x 2 x 2"):
        run_items(toy.predict_work(stores=("other",)), toy.reporter)
    with pytest.raises(ConfigError, match="the model reads positions, which 2 embeddings do not share"):
        run(
            toy.train_work(
                key="both", stores=("emb", "other"), output="map", task="video", window=WINDOW, model=MODEL, epochs=1
            ),
            toy.reporter,
        )


def test_frames_give_what_their_stored_maps_give(filmed):
    toy, items = filmed
    settings = {**EMBED, "outputs": ["map"]}
    work = over_frames(toy, items)
    (embedding,) = work.inputs["run"][0].inputs["embeddings"]
    maps = replace(embedding, node="maps", key="maps", config=settings)
    embed_items(
        replace(
            work, node="maps", stage="embed", key="maps", config=settings, inputs={"frames": work.inputs["frames"]}
        ),
        toy.reporter,
    )
    train = {"output": "map", "window": {"length": 4}, "model": MODEL, "epochs": 1}
    run(toy.train_work(key="branch", stores=("maps",), **train), toy.reporter)
    keep = {"keep": ["attention"]}
    run_items(toy.predict_work(key="of maps", run="branch", stores=("maps",), **keep), toy.reporter)
    reference = replace(work.inputs["run"][0], key="branch", inputs={"embeddings": (maps,)})
    work = replace(work, config={**work.config, **keep}, inputs={**work.inputs, "run": (reference,)})
    run_items(work, toy.reporter)
    for name in ("a", "b", "c"):
        found, wanted = (WindowOutputStore(toy.store.attention(key)).rows(name) for key in ("over frames", "of maps"))
        np.testing.assert_allclose(found.output("space"), wanted.output("space"), atol=2e-3)
        np.testing.assert_allclose(found.output("time"), wanted.output("time"), atol=1e-4)
