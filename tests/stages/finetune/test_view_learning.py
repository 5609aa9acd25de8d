"""CARL from frames: no label is needed, the base stays as it is, the layers behind it learn, and resumes are exact."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from reelwright.models.encoders.build import build_encoder
from reelwright.models.systems.carl import build_frame_model
from reelwright.stages.base.config import parse_config
from reelwright.stages.base.work import InputRef
from reelwright.stages.embed.config import EmbedConfig
from reelwright.stages.embed.work import run_items as embed_items
from reelwright.stages.embed_rows.work import run_items as embed_rows
from reelwright.stages.finetune.config import FinetuneConfig
from reelwright.stages.finetune.module import FinetuneModule
from reelwright.stages.finetune.work import run
from reelwright.stages.fit.init_from import _own_names
from reelwright.stages.fit.loop.progress import TIMINGS
from reelwright.storage.arrays.embeddings import EmbeddingStore
from reelwright.storage.errors import ConfigError, Interrupted, StoreError
from reelwright.storage.results.runs import RunFolder
from reelwright.storage.tables.annotations import Annotation

from .conftest import EMBED, Film, Notes

RESNET = {**EMBED, "encoder": "timm/resnet18"}
SMALL = {"hidden": 16, "embed_dim": 16, "projection_hidden": 16}
OF_MAPS = ("network", "split", "tuned")
MODEL = {"name": "carl", "network": "resnet18", "layers": 1, "width": 32, "heads": 4, "mlp_width": 32, **SMALL}
VIEWS = {
    "frames": "frames",
    "spatial": "embed",
    "model": MODEL,
    "objective": {"name": "scl"},
    "views": {"length": 6},
    "epochs": 2,
    "batch_size": 2,
    "device": "cpu",
    "optimizer": {"lr": 1e-3},
    "augment": {"flip": 0.5, "crop_scale": [0.8, 1.0], "color_jitter": 0, "colors": {}, "grayscale": 0.2, "blur": 0.5},
}


def view_work(film: Film, *, key: str, encoder=RESNET, **config):
    spatial = replace(film.embedding, config=encoder)
    work = film.work("finetune", key, {**VIEWS, **config}, frames=film.frames, spatial=spatial)
    videos = [{**video, "annotation": Annotation().plain()} for video in film.payload["videos"]]
    return replace(work, payload={"classes": [], "background": -1, "videos": videos})


def tuned(film, *, reporter=None, **config):
    work = view_work(film, **config)
    outputs = run(work, reporter or Notes())
    folder = RunFolder(film.store.run(work.key))
    assert outputs["weights"] == folder.weights_digest()
    return folder


def own_state():
    """Of the encoder as the embed node has it, by torchvision's names."""
    return build_encoder("timm/resnet18", outputs=["layer3.map"], seed=0).model.state_dict()


@pytest.mark.slow
def test_layers_behind_the_base_learn_and_the_base_stays_bit_for_bit(film):
    notes = Notes()
    folder = tuned(film, key="split3", reporter=notes)
    assert "4 videos to train on, 2 to validate on" in notes.notes
    state, own = load_file(folder.weights), own_state()
    base = {name: state[f"spatial.model.{name}"] for name in own}
    assert all(torch.equal(base[name], value) for name, value in own.items())  # statistics of its norms too
    tuned_names = [name for name in own if name.startswith("layer4.") and name.endswith("weight")]
    assert tuned_names
    moved = {name: state[f"temporal.backbone.tuned.{name}"] - own[name] for name in tuned_names}
    assert all(0 < change.abs().max() < 0.1 for change in moved.values())
    config = folder.config()
    assert (config["task"], config["output"], config["model"]["options"]["source"]) == (None, "layer3.map", "maps")
    assert [line["epoch"] for line in folder.metrics()] == [1, 2]
    assert all(np.isfinite(line["val_loss"]) for line in folder.metrics())


@pytest.mark.slow
def test_interrupted_run_goes_on_in_the_middle_of_an_epoch_with_the_same_numbers(film):
    whole = tuned(film, key="whole")
    with pytest.raises(Interrupted, match="after update 3"):
        tuned(film, key="cut", reporter=_Terminates())
    cut = tuned(film, key="cut")
    records = [[{**record, **dict.fromkeys(TIMINGS)} for record in each.metrics()] for each in (whole, cut)]
    assert records[0] == records[1]
    one, other = load_file(whole.weights), load_file(cut.weights)
    assert all(torch.equal(one[name], other[name]) for name in one)


class _Terminates(Notes):
    """A signal in the middle of the second epoch."""

    num_done = 0

    def advance(self, amount):
        self.num_done += amount
        if self.num_done >= 12:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.slow
def test_rows_of_the_run_are_those_of_its_model_over_whole_videos(film):
    """embed of frames with the run gives the maps of its base, and embed of these its embeddings."""
    folder = tuned(film, key="embeds", epochs=1)
    ref = InputRef(node="tune", stage="finetune", key="embeds", config=VIEWS, inputs={"frames": (film.frames,)})
    plain = {name: EMBED[name] for name in ("frames", "batch_size", "channels_last", "device", "dtype")}
    of_maps = EmbedConfig(**plain, run="tune", outputs=("layer3.map",)).model_dump(mode="json")
    embed_items(film.work("embed", "maps", of_maps, frames=film.frames, run=ref), Notes())
    maps = InputRef(node="maps", stage="embed", key="maps", config=of_maps, inputs={"run": (ref,)})
    of_rows = {"embeddings": ["maps"], "run": "tune", "device": "cpu", "dtype": "float32"}
    embed_rows(film.work("embed", "rows", of_rows, embeddings=maps, run=ref), Notes())
    found = EmbeddingStore(film.store.embeddings("rows")).rows("d0").output("pooled")
    stored = EmbeddingStore(film.store.embeddings("maps")).rows("d0").output("layer3.map")

    from reelwright.stages.fit.run_models import load_run_model

    model, _ = load_run_model(folder, plugins={})
    with torch.no_grad():
        batch = {"rows": torch.from_numpy(stored)[None], "mask": torch.ones(1, len(stored), dtype=torch.bool)}
        expected = model.eval()(batch)["embedding"][0].numpy()
    assert found.shape == (18, 16)
    assert np.allclose(found, expected, atol=1e-5)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-4)


@pytest.mark.slow
def test_rows_behind_the_last_layers_embed_as_the_maps_do(film):
    """embed of frames with the run gives a row a frame, the maximum behind its own last layers, instead of maps."""
    tuned(film, key="behind", epochs=1)
    ref = InputRef(node="tune", stage="finetune", key="behind", config=VIEWS, inputs={"frames": (film.frames,)})
    plain = {name: EMBED[name] for name in ("frames", "batch_size", "channels_last", "device", "dtype")}
    found = {}
    for outputs in (("layer3.map",), ("pooled",)):
        key, config = f"behind {outputs[0]}", EmbedConfig(**plain, run="tune", outputs=outputs).model_dump(mode="json")
        embed_items(film.work("embed", key, config, frames=film.frames, run=ref), Notes())
        made = InputRef(node="made", stage="embed", key=key, config=config, inputs={"run": (ref,)})
        of_rows = {"embeddings": ["made"], "run": "tune", "device": "cpu", "dtype": "float32"}
        embed_rows(film.work("embed", f"rows {key}", of_rows, embeddings=made, run=ref), Notes())
        found[outputs[0]] = EmbeddingStore(film.store.embeddings(f"rows {key}")).rows("d1").output("pooled")
    assert EmbeddingStore(film.store.embeddings("behind pooled")).rows("d1").output("pooled").shape == (18, 512)
    assert np.allclose(found["pooled"], found["layer3.map"], atol=1e-5)

    embed_items(film.work("embed", "raw", {**RESNET, "frames": "frames"}, frames=film.frames), Notes())
    raw = InputRef(node="raw", stage="embed", key="raw", config=RESNET)
    of_raw = {"embeddings": ["raw"], "run": "tune", "device": "cpu"}
    with pytest.raises((ConfigError, StoreError), match=r"layer3\.map|reads the rows of the run's own encoder"):
        embed_rows(film.work("embed", "wrong", of_raw, embeddings=raw, run=ref), Notes())


def test_names_of_the_public_code_are_known():
    """The base of its ResNet is the encoder, and its last layers, embedder and projection are the model's."""
    encoder = build_encoder("timm/resnet18", outputs=["layer3.map"], seed=0)
    options = {name: value for name, value in MODEL.items() if name != "name"}
    model = build_frame_model("carl", length=6, source="maps", **options)
    module = FinetuneModule(encoder, model, data_config=encoder.data_config, frozen_norm=False, takes_maps=True)
    public = {
        "backbone.0.weight": "spatial.model.conv1.weight",
        "backbone.6.0.conv1.weight": "spatial.model.layer3.0.conv1.weight",
        "res_finetune.0.conv1.weight": "temporal.backbone.tuned.layer4.0.conv1.weight",
        "embed.video_emb.weight": "temporal.embedder.project.weight",
    }
    state = {name: module.state_dict()[own] for name, own in public.items()}
    assert set(_own_names(state, module)) == set(public.values())


OTHERS = {
    "split 2": {"model": {**MODEL, "split": 2}},
    "no split": {"model": {**MODEL, "split": None}, "objective": {"name": "tcc"}},
    "trained base": {"model": {**MODEL, "base": "frozen_norms"}, "spatial_lr_scale": 1.0},
    "contexts": {
        "model": {"name": "conv", "network": "resnet18", "conv_width": 8, "conv_layers": 1, **SMALL},
        "objective": {"name": "tcn"},
        "views": {"length": 4, "context_stride": 3},
        "encoder": {**RESNET, "preprocess": {"size": [64, 64]}},
    },
    "any encoder": {
        "model": {**{name: value for name, value in MODEL.items() if name not in OF_MAPS}, "source": "rows"},
        "encoder": EMBED,
    },
    "tau": {"metric": "kendalls_tau"},
}


@pytest.mark.slow
@pytest.mark.parametrize("settings", OTHERS.values(), ids=OTHERS)
def test_other_ways_to_feed_it(film, settings):
    folder = tuned(film, key=f"way {sorted(settings)} {settings.get('model')}"[:60], epochs=1, **settings)
    state, summary = load_file(folder.weights), folder.summary()
    assert np.isfinite(summary["best"])
    tuned_layers = {name.split(".")[3] for name in state if name.startswith("temporal.backbone.tuned.")}
    wanted = {"split 2": {"layer3", "layer4"}, "trained base": {"layer4"}, "tau": {"layer4"}}
    which = next(name for name, other in OTHERS.items() if other is settings)
    assert tuned_layers == wanted.get(which, set())
    if which != "any encoder":
        changed = not torch.equal(state["spatial.model.conv1.weight"], own_state()["conv1.weight"])
        assert changed == (which == "trained base")
        assert torch.equal(state["spatial.model.bn1.running_mean"], own_state()["bn1.running_mean"])


REFUSED = {
    "neither": ({"model": None, "views": None, "objective": None}, "give either temporal"),
    "both": ({"temporal": "train"}, "give either temporal"),
    "windows": ({"windows_per_epoch": 4}, "windows_per_epoch is of a temporal run"),
    "norms": ({"frozen_norm": False}, "frozen_norm is of a temporal run.*set model.base"),
    "maps": ({"model": {"name": "carl", "source": "maps"}}, "model.source: maps are stored ones"),
    "no views": ({"views": None}, "learns from views of videos"),
    "easy key": (
        {"augment": {"scene": {"curriculum_epochs": 0}}},
        "none is a key; set reverse: 0, easy_key: false",
    ),
    "all frozen": ({"freeze": ["temporal"]}, "spatial and temporal are both frozen"),
}


@pytest.mark.parametrize(("settings", "match"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_go_together_is_refused_before_work(settings, match):
    with pytest.raises(ConfigError, match=match):
        parse_config(FinetuneConfig, {**VIEWS, **settings}, where="tune")


def test_an_encoder_that_is_not_the_models_network_is_refused(film):
    with pytest.raises(ConfigError, match="channels"):
        run(view_work(film, key="other", model={**MODEL, "network": "resnet50"}), Notes())
