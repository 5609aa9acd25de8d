"""Fine-tuning over a small filmed world: starts from both parts, freezes, resumes, and its encoder can be used."""

import os
import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from reelwright.models.encoders.build import build_encoder
from reelwright.stages.base.work import InputRef
from reelwright.stages.embed.config import EmbedConfig
from reelwright.stages.embed.work import run_items as embed_items
from reelwright.stages.finetune.module import FinetuneModule, freeze
from reelwright.stages.finetune.work import run
from reelwright.stages.fit.loop.progress import TIMINGS
from reelwright.stages.predict.work import run_items as predict_items
from reelwright.storage.arrays.embeddings import EmbeddingStore
from reelwright.storage.errors import ConfigError, Interrupted
from reelwright.storage.results.runs import RunFolder
from tests.models.calling import Net

from .conftest import EMBED, Notes

EVERYTHING = {
    "rand_augment": "rand-m7-n4-mstd0.5-inc1",
    "crop_scale": [0.2, 1.0],
    "crop_aspect": [0.75, 1.3333],
    "blur": 0.5,
    "erasing": {"probability": 0.5},
    "scene": {"curriculum_epochs": 1},
}
STILL = {"flip": 0, "crop_scale": None, "color_jitter": 0}


def parts(folder, part):
    return {name: value for name, value in load_file(folder.weights).items() if name.startswith(f"{part}.")}


def start_state(film, part):
    if part == "temporal":
        return {
            f"temporal.{name}": value
            for name, value in load_file(film.store.run("train") / "model.safetensors").items()
        }
    state = build_encoder("timm/test_resnet", seed=0).model.state_dict()
    return {f"spatial.model.{name}": value for name, value in state.items()}


def learned(state, other):
    return {name for name in state if not torch.equal(state[name], other[name])}


@pytest.mark.slow
def test_windows_are_those_of_the_temporal_run(film):
    """Windows of 6 rows from 0 5 10 of 18, and from 12 on where the run has windows to the end."""
    trained = RunFolder(film.store.run("train")).config()
    assert trained["window"] == {"length": 6, "hop": 3, "dilation": 1, "to_end": True, "short": "pad"}
    windows = {
        "to the end": {**trained["window"], "hop": 5},
        "not to the end": {**trained["window"], "hop": 5, "to_end": False},
    }
    notes = {}
    for key, window in windows.items():
        shutil.copytree(film.store.run("train"), film.store.run(key))
        RunFolder(film.store.run(key)).write_config({**trained, "window": window})
        work = film.tune_work(key=f"tuned {key}", epochs=1)
        work.inputs["temporal"] = (replace(film.temporal, key=key),)
        reporter = Notes()
        run(work, reporter)
        notes[key] = [note for note in reporter.notes if "to train on" in note or "warning" in note]
    assert notes["to the end"] == ["16 windows to train on, 8 to validate on"]
    assert notes["not to the end"] == [
        "12 windows to train on, 6 to validate on",
        (
            "warning: 12 of 108 rows of 6 video(s) are in no window: 0.mp4 (2 of 18), 1.mp4 (2 of 18), 2.mp4 (2 of 18)"
            " and 3 more; window.to_end: true takes them in"
        ),
    ]


@pytest.mark.slow
def test_it_starts_where_both_parts_ended(film):
    folder = film.tune(key="start")
    first, train = folder.metrics()[0], RunFolder(film.store.run("train"))
    best = next(record for record in train.metrics() if record["epoch"] == train.summary()["best_epoch"])
    assert first["epoch"] == 0
    assert first["val_loss"] == pytest.approx(best["val_loss"], abs=1e-4)


@pytest.mark.slow
def test_both_parts_learn_and_the_best_is_never_worse_than_the_start(film):
    folder = film.tune(key="learn", epochs=3, spatial_lr_scale=1.0, optimizer={"lr": 3e-3})
    records, summary = folder.metrics(), folder.summary()
    assert [record["epoch"] for record in records] == [0, 1, 2, 3]
    assert records[-1]["train_loss"] < records[1]["train_loss"]
    assert summary["best"] == max(record["val_macro_f1"] for record in records)
    for part in ("spatial", "temporal"):
        assert learned(parts(folder, part), start_state(film, part))


@pytest.mark.slow
def test_a_run_that_only_gets_worse_keeps_its_start(film):
    folder = film.tune(key="worse", epochs=1, optimizer={"lr": 30.0, "name": "sgd", "clip_norm": 1.0}, metric="loss")
    assert folder.summary()["best_epoch"] == 0
    for part in ("spatial", "temporal"):
        assert not learned(parts(folder, part), start_state(film, part))


@pytest.mark.parametrize(
    ("settings", "still"),
    [
        pytest.param({"freeze": ["spatial"]}, "spatial", id="freeze"),
        pytest.param({"temporal_lr_scale": 0}, "temporal", id="scale-0", marks=pytest.mark.slow),
    ],
)
def test_a_frozen_part_stays_bit_for_bit(film, settings, still):
    folder = film.tune(key=f"frozen {still}", epochs=1, metric="loss", optimizer={"lr": 1e-3}, **settings)
    assert not learned(parts(folder, still), start_state(film, still))
    moving = "temporal" if still == "spatial" else "spatial"
    last = load_file(next(folder.last.glob("weights-*.safetensors")))
    assert learned({name: value for name, value in last.items() if name.startswith(moving)}, start_state(film, moving))


@pytest.mark.parametrize("frozen_norm", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_statistics_of_batch_norms(film, frozen_norm):
    folder = film.tune(key=f"norm {frozen_norm}", epochs=1, frozen_norm=frozen_norm)
    last = load_file(next(folder.last.glob("weights-*.safetensors")))
    start = start_state(film, "spatial")
    means = {name for name in start if name.endswith("running_mean")}
    assert means
    assert bool(means & learned({name: last[name] for name in means}, start)) is not frozen_norm


class _Terminates(Notes):
    """Gets a SIGTERM, as from a scheduler, while the third update is reported."""

    calls = 0

    def advance(self, amount):
        self.calls += 1
        if self.calls == 3:
            os.kill(os.getpid(), signal.SIGTERM)


def test_interrupted_run_goes_on_with_the_same_numbers(film):
    settings = {"epochs": 2, "optimizer": {"lr": 1e-3}, "augment": EVERYTHING, "mix": {}}
    whole = film.tune(key="whole", **settings)
    with pytest.raises(Interrupted, match="after update 3"):
        film.tune(key="cut", reporter=_Terminates(), **settings)
    cut = film.tune(key="cut", **settings)
    records = [[{**record, **dict.fromkeys(TIMINGS)} for record in run.metrics()] for run in (whole, cut)]
    assert records[0] == records[1]
    assert not learned(load_file(whole.weights), load_file(cut.weights))


@pytest.mark.slow
def test_repeats_come_side_by_side_and_lengthen_the_epoch(film):
    once = film.tune(key="once", epochs=1, windows_per_epoch=6)
    twice = film.tune(key="twice", epochs=1, windows_per_epoch=6, repeats=2)
    assert [run.metrics()[-1]["update"] for run in (once, twice)] == [2, 3]


@pytest.mark.slow
def test_frames_read_from_the_store_are_those_held_in_memory(film):
    held = film.tune(key="held", epochs=1)
    read = film.tune(key="read", epochs=1, memory_bytes=1)
    assert not learned(load_file(held.weights), load_file(read.weights))


@pytest.mark.slow
def test_the_tuned_encoder_makes_a_new_generation(film):
    film.tune(key="generation", epochs=1, metric="loss", spatial_lr_scale=1.0, optimizer={"lr": 3e-3})
    tuned = InputRef(node="tune", stage="finetune", key="generation")
    plain = {
        name: value
        for name, value in EMBED.items()
        if name in ("frames", "batch_size", "channels_last", "device", "dtype")
    }
    settings = EmbedConfig(**plain, run="tune").model_dump(mode="json")  # all of them, as a pipeline passes them on
    embed_items(film.work("embed", "again", settings, frames=film.frames, run=tuned), Notes())
    first, second = (EmbeddingStore(film.store.embeddings(key)) for key in ("embed", "again"))
    assert first.spec["preprocessing"] == second.spec["preprocessing"]
    assert first.spec["weights_digest"] != second.spec["weights_digest"]
    one, other = (store.rows("d0").output("pooled") for store in (first, second))
    assert one.shape == other.shape
    assert not np.allclose(one, other, atol=1e-4)


@pytest.mark.slow
def test_predict_over_frames_takes_the_run(film):
    film.tune(key="for predict", epochs=1)
    tuned = InputRef(node="tune", stage="finetune", key="for predict", inputs={"frames": (film.frames,)})
    config = {"run": "tune", "frames": "frames", "device": "cpu"}
    reporter = Notes()
    predict_items(film.work("predict", "scores", config, run=tuned, frames=film.frames), reporter)
    assert {row.status for row in reporter.rows} == {"ok"}


def test_frames_that_are_not_stored_are_refused_before_any_work(film):
    streamed = InputRef(node="frames", stage="decode", key="frames", config={"materialize": False})
    with pytest.raises(ConfigError, match=r"node 'frames' has materialize: false.*Set materialize: true"):
        film.tune(key="streamed", frames=streamed)
    assert not film.store.run("streamed").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"freeze": ["spatial.nothing.*"]}, r"'spatial.nothing.\*' fits no parameter"),
        ({"freeze": ["spatial", "temporal"]}, "both frozen"),
        ({"spatial_lr_scale": 0, "freeze": ["temporal"]}, "both frozen"),
        ({"freeze": ["*"]}, "nothing is left to learn"),
        ({"augment": {"flipp": 1}}, "Did you mean 'flip'"),
        ({"augment": {"scene": {"reverse": 0.5}}, "epochs": 6}, "task per_row of 'train' depends on the order of rows"),
        ({"augment": {"scene": {}}}, r"copies appear after curriculum_epochs \(5\), and there are 2 epochs"),
        (
            {"augment": {"scene": {}}, "epochs": 6, "batch_size": 3, "processes": 2},
            "but a process has 1; raise batch_size",
        ),
    ],
    ids=["pattern", "both", "both-ways", "all", "typo", "backwards", "copies", "alone"],
)
def test_settings_that_cannot_work_are_refused(film, settings, message):
    with pytest.raises(ConfigError, match=message):
        film.tune(key="refused", **settings)


def test_patterns_freeze_what_they_fit(film):
    encoder = build_encoder("timm/test_resnet", seed=0)
    module = FinetuneModule(encoder, Net(torch.nn.Linear(2, 2)), data_config=encoder.data_config, frozen_norm=True)
    freeze(module, ["spatial.model.layer1.*", "temporal"], where="tune")
    frozen = {name for name, parameter in module.named_parameters() if not parameter.requires_grad}
    assert frozen == {
        name for name, _ in module.named_parameters() if name.startswith(("spatial.model.layer1.", "temporal."))
    }
    module.train()
    assert not module.temporal.training
