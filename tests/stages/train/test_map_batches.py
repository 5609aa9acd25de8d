"""Views of stored maps and rows, one of several augmented ones drawn for each; runs whose last ResNet layer learns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import zarr
from safetensors.torch import load_file

from reelwright.models.encoders.build import build_encoder
from reelwright.stages.base.work import InputRef, VideoItem
from reelwright.stages.datasets.sampling.settings import ViewSettings
from reelwright.stages.datasets.sampling.two_views import ViewSampler
from reelwright.stages.embed_rows.work import run_items as embed_rows
from reelwright.stages.train.config import TrainConfig
from reelwright.stages.train.view_batches import MapBatches
from reelwright.stages.train.work import run
from reelwright.storage.arrays.embeddings import EmbeddingStore
from reelwright.storage.errors import ConfigError, StoreError
from reelwright.storage.results.runs import RunFolder
from reelwright.storage.tables.annotations import Annotation

SMALL = {"layers": 1, "width": 16, "heads": 2, "mlp_width": 16, "hidden": 16, "embed_dim": 8, "projection_hidden": 8}
EMBED = {"frames": "frames", "encoder": "timm/resnet18", "weights": "none", "seed": 4, "outputs": ["layer3.map"]}
NUM_VIEWS, LENGTHS = 3, (9, 6, 5, 7)


def maps(num_rows, *, seed, shape=(256, 1, 1), num_views=NUM_VIEWS):
    rng = np.random.default_rng(seed)
    lead = (num_rows,) if num_views is None else (num_rows, num_views)
    return np.abs(rng.normal(size=(*lead, *shape))).astype(np.float16)


@pytest.fixture
def mapped(toy):
    """Three videos to train on, one to validate on; three views of every frame."""
    for number, num_rows in enumerate(LENGTHS):
        toy.write("emb", f"d{number}", maps(num_rows, seed=number), name="layer3.map")
        toy.add(f"d{number}", "train" if number < 3 else "val", Annotation())
    return toy


def map_work(toy, *, model=None, embed=None, **more):
    work = toy.train_work(
        output="layer3.map",
        objective={"name": "scl"},
        views={"length": 4},
        batch_size=2,
        optimizer={"lr": 1e-2, **more.pop("optimizer", {})},
        model={"name": "carl", "source": "maps", "network": "resnet18", **SMALL, **(model or {})},
        **more,
    )
    del work.config["window"]
    work.payload["classes"] = []
    inputs = {"embeddings": tuple(replace(ref, config=embed or EMBED) for ref in work.inputs["embeddings"])}
    return replace(work, inputs=inputs)


def numbered(toy, *, num_views, row=(1, 1, 1)):
    """Maps of one channel and place, or rows of one feature, whose value is 100 * video + 10 * row + view."""
    for video, num_rows in enumerate(LENGTHS):
        views = np.arange(1 if num_views is None else num_views)
        values = 100.0 * video + 10 * np.arange(num_rows)[:, None] + views
        values = values[:, 0] if num_views is None else values
        values = values.reshape(*values.shape, *row).astype(np.float32)
        toy.write("numbers", f"d{video}", values, name="layer3.map")
    store = EmbeddingStore(toy.store.embeddings("numbers"))
    sampler = ViewSampler(strategy="time_augment", views=ViewSettings(length=4), seed=3)
    opened = [store.rows(f"d{video}") for video in range(len(LENGTHS))]
    common = {"sampler": sampler, "batch_size": 2, "rows": opened, "output": "layer3.map", "row_axes": len(row)}
    return lambda **more: MapBatches(videos=(2, 0, 1), **common, **more)


@pytest.mark.parametrize("row", [(1, 1, 1), (1,)], ids=["maps", "rows"])
def test_each_view_is_of_one_stored_view_and_which_is_drawn(toy, row):
    make = numbered(toy, num_views=NUM_VIEWS, row=row)
    seen = []
    for epoch in range(8):
        for batch in make(draws=True).epoch(epoch):
            value = batch.inputs["rows"].flatten(2)[:, :, 0]
            assert batch.inputs["rows"].shape[2:] == row
            stored = value % 10
            assert (stored == stored[:, :1]).all()
            assert (value // 10 % 10 == batch.inputs["row_numbers"]).all()
            assert [LENGTHS[int(video)] for video in value[:, 0] // 100] == batch.inputs["num_rows"].tolist()
            seen += stored[:, 0].tolist()
    counts = np.bincount(np.array(seen, int), minlength=NUM_VIEWS)
    assert counts.sum() == 8 * 3 * 2
    assert (counts > 8).all()
    again = [batch.inputs["rows"] for batch in make(draws=True).epoch(3, first=1)]
    assert torch.equal(again[0], [batch.inputs["rows"] for batch in make(draws=True).epoch(3)][1])


@pytest.mark.parametrize("num_views", [None, NUM_VIEWS])
def test_without_drawing_it_is_the_frame_as_it_is(toy, num_views):
    source = numbered(toy, num_views=num_views)()
    for batch in source.epoch(0):
        value = batch.inputs["rows"][:, :, 0, 0, 0]
        assert (value % 10 == 0).all()
        assert (value // 10 % 10 == batch.inputs["row_numbers"]).all()
    whole = source.whole(1, most=3)
    assert whole["rows"][0, :, 0, 0, 0].tolist() == [0, 40, 80]
    assert whole["mask"].all()


def test_rows_are_taken_in_any_order(mapped):
    rows = EmbeddingStore(mapped.store.embeddings("emb")).rows("d0")
    whole, wanted = rows.output("layer3.map"), [5, 0, 5, 8]
    assert np.array_equal(rows.take("layer3.map", wanted), whole[wanted])
    assert np.array_equal(rows.take("layer3.map", wanted, view=2), whole[wanted, 2])


def weights(toy, key="run"):
    return load_file(toy.store.run(key) / "model.safetensors")


@pytest.mark.slow
def test_the_last_layer_starts_from_the_encoder_that_made_the_maps_and_learns(mapped):
    encoder = build_encoder("timm/resnet18", outputs=("layer3.map",), seed=4)
    stored = {name: value for name, value in encoder.model.state_dict().items() if name.startswith("layer4.")}
    run(map_work(mapped, key="learned"), mapped.reporter)
    run(map_work(mapped, model={"tuned": "frozen"}, key="frozen"), mapped.reporter)
    run(map_work(mapped, model={"tuned": "frozen_norms"}, key="norms"), mapped.reporter)
    learned, frozen, norms = (weights(mapped, key) for key in ("learned", "frozen", "norms"))
    assert sum(name.startswith("backbone.") for name in frozen) == len(stored)
    for name, value in stored.items():
        assert torch.equal(frozen[f"backbone.tuned.{name}"], value)
        is_statistic = "running" in name or "num_batches" in name
        assert torch.equal(norms[f"backbone.tuned.{name}"], value) == is_statistic
    assert not torch.equal(learned["backbone.tuned.layer4.0.conv1.weight"], stored["layer4.0.conv1.weight"])
    assert not torch.equal(learned["backbone.tuned.layer4.0.bn1.running_mean"], stored["layer4.0.bn1.running_mean"])
    config = RunFolder(mapped.store.run("learned")).config()
    assert (config["model"]["input_dim"], config["output"]) == (256, "layer3.map")


def test_only_batch_norms_learn_where_groups_say_so(mapped):
    groups = [
        {"match": "backbone.tuned.*.bn*"},
        {"match": "backbone.tuned.*.downsample.1.*"},
        {"match": "backbone.*", "frozen": True},
    ]
    run(map_work(mapped, optimizer={"groups": groups}), mapped.reporter)
    encoder = build_encoder("timm/resnet18", outputs=("layer3.map",), seed=4).model.state_dict()
    found = weights(mapped)
    assert torch.equal(found["backbone.tuned.layer4.0.conv1.weight"], encoder["layer4.0.conv1.weight"])
    assert not torch.equal(found["backbone.tuned.layer4.0.bn1.weight"], encoder["layer4.0.bn1.weight"])


def test_maps_of_another_network_are_refused(mapped):
    with pytest.raises(ConfigError, match=r"model.network is resnet18, but the maps of emb are of timm/resnet50"):
        run(map_work(mapped, embed={**EMBED, "encoder": "timm/resnet50"}), mapped.reporter)
    with pytest.raises(ConfigError, match=r"the stored maps have 256 channels, those of layer 3 of resnet50 1024"):
        run(map_work(mapped, model={"network": "resnet50"}), mapped.reporter)


def test_an_output_that_is_not_stored_is_named(mapped):
    work = map_work(mapped, model={"split": 2})
    work.config["output"] = "layer2.map"
    with pytest.raises(StoreError, match=r"no map 'layer2.map' is stored.*Stored: layer3.map"):
        run(work, mapped.reporter)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"output": "pooled"}, r"source: maps \(of carl, split 3\) reads maps of layer 3 .* set output: layer3.map"),
        ({"output": "layer3.map", "embeddings": ["a", "b"]}, "layer 3 of one embed node"),
        ({"output": "layer3.map", "model": {"name": "conv", "split": 2}}, r"conv, split 2.* set output: layer2.map"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, match):
    good = {"embeddings": ["e"], "model": {"name": "carl", "source": "maps"}, "objective": {"name": "scl"}, "views": {}}
    with pytest.raises(ValueError, match=match):
        TrainConfig(**{**good, **settings})


def test_convolutions_over_stored_maps_see_contexts(toy):
    for number, num_rows in enumerate(LENGTHS):
        toy.write(
            "emb", f"d{number}", maps(num_rows, seed=number, shape=(256, 5, 5), num_views=None), name="layer3.map"
        )
        toy.add(f"d{number}", "train" if number < 3 else "val", Annotation())
    model = {
        "name": "conv",
        "network": "resnet18",
        "conv_width": 8,
        "hidden": 8,
        "embed_dim": 4,
        "projection_hidden": 4,
    }
    work = map_work(toy)
    work.config["model"], work.config["metric"] = model, "loss"
    assert np.isfinite(run(work, toy.reporter)["metrics"]["val_loss"])
    assert not any(name.startswith("backbone.") for name in weights(toy))


@pytest.fixture
def viewed(toy):
    """Three videos to train on, one to validate on; three views of every row, the first of them stored alone too."""
    for number, num_rows in enumerate(LENGTHS):
        rows = maps(num_rows, seed=number, shape=(6,))
        toy.write("emb", f"d{number}", rows)
        toy.write("plain", f"d{number}", rows[:, 0])
        toy.add(f"d{number}", "train" if number < 3 else "val", Annotation())
    zarr.open_group(toy.store.embeddings("emb"), mode="r+").attrs["views"] = NUM_VIEWS
    return toy


def row_work(toy, key, *, stores=("emb",), **more):
    work = map_work(toy, key=key, model={"source": "rows"}, stores=stores, **more)
    work.config["output"] = "pooled"
    del work.config["model"]["network"]  # of maps
    return work


def test_rows_of_several_views_are_learned_from_and_embedded_as_the_frame_is(viewed):
    found = {}
    for key, stored in (("run", "emb"), ("other", "plain")):
        line = run(row_work(viewed, key, stores=(stored,)), viewed.reporter)["metrics"]
        assert np.isfinite([line["train_loss"], line["val_loss"]]).all()
        found[key] = line["train_loss"]
    assert found["run"] != found["other"]  # other views were drawn
    assert RunFolder(viewed.store.run("run")).config()["model"]["input_dim"] == 6
    rows = {}
    for stored in ("emb", "plain"):
        ref = InputRef(node="train", stage="train", key="run")
        inputs = {"run": (ref,), "embeddings": (InputRef(node="emb", stage="embed", key=stored),)}
        config = {"embeddings": ["emb"], "run": "train", "device": "cpu", "dtype": "float32"}
        item = VideoItem(digest="d0", path="", video_id="d0")
        work = row_work(viewed, f"rows of {stored}")
        work = replace(work, node="rows", stage="embed", config=config, inputs=inputs, items=(item,))
        embed_rows(work, viewed.reporter)
        rows[stored] = EmbeddingStore(viewed.store.embeddings(work.key)).rows("d0").output("pooled")
    assert rows["emb"].shape == (LENGTHS[0], SMALL["embed_dim"])
    assert np.array_equal(rows["emb"], rows["plain"])


def test_rows_of_several_views_that_cannot_be_learned_from_are_refused(viewed):
    with pytest.raises(StoreError, match=r"only vectors \(D,\) of one embed node are taken .*, not 2 embed nodes"):
        run(row_work(viewed, "two", stores=("emb", "plain")), viewed.reporter)
    windows = viewed.train_work(key="windows")
    with pytest.raises(StoreError, match=r"are 3 views each, of which no average is taken"):
        run(windows, viewed.reporter)
    for number, num_rows in enumerate(LENGTHS):
        viewed.write("tokens", f"d{number}", maps(num_rows, seed=number, shape=(2, 6)))
    zarr.open_group(viewed.store.embeddings("tokens"), mode="r+").attrs["views"] = NUM_VIEWS
    with pytest.raises(StoreError, match=r"not output 'pooled' with rows of \(2, 6\). Name one node"):
        run(row_work(viewed, "tokens", stores=("tokens",)), viewed.reporter)
