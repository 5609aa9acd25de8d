"""Runs of the toy task: what is learned, what is written, and what is refused before it starts."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from reelwright.stages.train.work import run
from reelwright.storage.digests import file_digest
from reelwright.storage.errors import ConfigError, InputError, Interrupted, StoreError
from reelwright.storage.results.runs import RunFolder
from reelwright.storage.tables.annotations import Annotation

OF_TIME = {
    "gru": {},
    "ms_tcn": {"layers": 3, "pool": "last", "dropout": 0.1},
    "transformer": {"layers": 1, "width": 32},
}


def _best(toy, name, options):
    work = toy.train_work(
        key=name,
        epochs=8,
        schedule={"warmup_epochs": 0.5},
        optimizer={"lr": 0.01},
        model={"name": name, **options},
        window={"length": 12, "hop": 2},
    )
    return run(work, toy.reporter)["metrics"]["val_macro_f1"]


@pytest.mark.slow
def test_models_of_time_beat_the_linear_probe(pulse_toy):
    for seed in range(10, 13):
        pulse_toy.pulses(f"d{seed}", "train", seed=seed)
    linear = _best(pulse_toy, "linear", {"pool": "last"})
    found = {name: _best(pulse_toy, name, options) for name, options in OF_TIME.items()}
    assert linear < 0.75
    assert all(value > max(0.85, linear + 0.1) for value in found.values()), (linear, found)


@pytest.mark.parametrize("task", ["video", "last_row", "majority", "per_row", "multi_label"])
@pytest.mark.parametrize("sampling", ["grid", "random"])
def test_every_task_trains(pulse_toy, task, sampling):
    work = pulse_toy.train_work(task=task, window={"length": 12, "hop": 12, "sampling": sampling})
    outputs = run(work, pulse_toy.reporter)
    folder = RunFolder(pulse_toy.store.run("run"))
    metric = "mean_average_precision" if task == "multi_label" else "macro_f1"
    assert outputs["weights"] == file_digest(folder.weights)
    assert 0 <= outputs["metrics"][f"val_{metric}"] <= 1
    assert folder.summary()["best"] == outputs["metrics"][f"val_{metric}"]
    assert folder.config()["task"] == task
    assert pulse_toy.reporter.advanced == pulse_toy.reporter.totals[-1] == 2 * 30


def test_the_run_folder_explains_itself(pulse_toy):
    run(
        pulse_toy.train_work(window={"length": 5, "dilation": 2}, model={"name": "mlp", "hidden": 7}),
        pulse_toy.reporter,
    )
    folder = RunFolder(pulse_toy.store.run("run"))
    config = folder.config()
    assert config["model"] == {
        "name": "mlp", "options": {"hidden": 7}, "input_dim": 6, "num_outputs": 2, "length": 5, "per_row": False,
    }  # fmt: skip
    assert config["window"] == {"length": 5, "hop": 1, "dilation": 2, "to_end": True, "short": "pad"}
    assert (config["stage"], config["key"], config["classes"]) == ("train", "run", ["quiet", "pulse"])
    assert config["inputs"]["embeddings"][0]["key"] == "emb"
    assert [line["epoch"] for line in folder.metrics()] == [1, 2]


def _weights(toy, key="run"):
    return load_file(toy.store.run(key) / "model.safetensors")


def _equal(first, second):
    return all(torch.equal(value, second[name]) for name, value in first.items())


def test_names_order_and_copies_of_videos_change_nothing(pulse_toy):
    run(pulse_toy.train_work(), pulse_toy.reporter)
    copies = [{**entry, "video_id": f"other {entry['digest']}"} for entry in pulse_toy.videos]
    pulse_toy.videos = [*copies, *pulse_toy.videos][::-1]
    run(pulse_toy.train_work(key="again"), pulse_toy.reporter)
    assert _equal(_weights(pulse_toy), _weights(pulse_toy, "again"))


def test_a_mapped_block_gives_the_same_run(pulse_toy):
    run(pulse_toy.train_work(), pulse_toy.reporter)
    run(pulse_toy.train_work(key="mapped", memory_bytes=1), pulse_toy.reporter)
    assert _equal(_weights(pulse_toy), _weights(pulse_toy, "mapped"))
    assert not list((pulse_toy.root / "scratch").iterdir())


def test_an_interrupted_run_goes_on_and_a_complete_one_is_not_trained_again(pulse_toy):
    class Stop(type(pulse_toy.reporter)):
        def advance(self, amount):
            super().advance(amount)
            if self.advanced >= 400:
                os.kill(os.getpid(), signal.SIGTERM)

    run(pulse_toy.train_work(key="whole"), pulse_toy.reporter)
    folder = RunFolder(pulse_toy.store.run("run"))
    with pytest.raises(Interrupted, match="run again to go on"):
        run(pulse_toy.train_work(), Stop())
    assert not folder.is_complete
    run(pulse_toy.train_work(), pulse_toy.reporter)
    assert any("goes on after update" in note for note in pulse_toy.reporter.notes)
    assert _equal(_weights(pulse_toy), _weights(pulse_toy, "whole"))
    rows = folder.metrics()
    run(pulse_toy.train_work(), pulse_toy.reporter)
    assert folder.metrics() == rows


def test_videos_of_all_lengths_are_padded_or_left_out(toy):
    for number, num_rows in enumerate((3, 8, 20)):
        toy.pulses(f"d{number}", "train", num_rows=num_rows, seed=number)
    run(toy.train_work(window={"length": 8}, model={"name": "transformer", "layers": 1, "width": 8}), toy.reporter)
    run(toy.train_work(key="no", window={"length": 8, "pad": False}), toy.reporter)
    said = [note for note in toy.reporter.notes if "windows to train on" in note]
    assert said == ["15 windows to train on, 0 to validate on", "14 windows to train on, 0 to validate on"]
    assert [note for note in toy.reporter.notes if note.startswith("warning")] == [
        (
            "warning: 1 video(s) have fewer rows than the 8 of a window and are left out: name of d0 (3); "
            "window.short: pad or repeat takes them in"
        )
    ]


OFF_THE_GRID = {
    # 120 rows of each of 3 videos to train on and one to validate on, in windows of 12
    "default": ({"hop": 11}, None),
    "not to the end": ({"hop": 11, "to_end": False}, "36 of 480 rows of 4 video(s) are in no window: "),
    "hop above length": ({"hop": 20}, "160 of 480 rows of 4 video(s) are in no window: "),
    "drawn from every start": (
        {"hop": 20, "sampling": "random"},
        "40 of 120 rows of 1 video(s) are in no window: name of d3 (40 of 120); window.hop: 12 or less takes",
    ),
    "clips that stand for their video": ({"hop": 20, "sampling": "dense"}, None),
}


@pytest.mark.parametrize(("window", "message"), OFF_THE_GRID.values(), ids=OFF_THE_GRID)
def test_rows_that_no_window_takes_are_told(pulse_toy, window, message):
    task = {"task": "video"} if window.get("sampling") == "dense" else {}
    run(pulse_toy.train_work(window={"length": 12, **window}, epochs=1, **task), pulse_toy.reporter)
    warned = [note for note in pulse_toy.reporter.notes if "window" in note and note.startswith("warning")]
    assert len(warned) == (message is not None)
    assert all(note.startswith(f"warning: {message}") for note in warned)


def test_a_second_store_of_another_rate_is_learned_from(toy, spans_of):
    """The label is in the second store alone; the first one holds noise."""
    generator = np.random.default_rng(0)
    for number, split in enumerate(["train"] * 4 + ["val"] * 2):
        clips = generator.integers(0, 2, 20)
        toy.write("emb", f"d{number}", generator.normal(0, 1, (60, 3)).astype(np.float32))
        toy.write(
            "clips", f"d{number}", np.stack([clips, 1 - clips], 1).astype(np.float32), spans=spans_of(20, seconds=1.5)
        )
        times = tuple((1.5 * row, int(label)) for row, label in enumerate(clips))
        toy.add(f"d{number}", split, Annotation(times=times))
    work = toy.train_work(
        stores=("emb", "clips"), model={"name": "linear"}, window={"length": 1}, epochs=20, optimizer={"lr": 0.1}
    )
    assert run(work, toy.reporter)["metrics"]["val_macro_f1"] == 1.0


def test_what_is_missing_is_noted(pulse_toy):
    pulse_toy.add("gone", "train", Annotation(label=0), video_id="never embedded")
    work = pulse_toy.train_work()
    run(replace(work, payload={**work.payload, "classes": ["quiet", "pulse", "bang"]}), pulse_toy.reporter)
    notes = "\n".join(pulse_toy.reporter.notes)
    assert "1 of 5 videos have no embeddings and are left out: never embedded" in notes
    assert "warning: no training window has the classes bang" in notes


REFUSED = {
    "no classes": ({}, {"classes": []}, InputError, "train: the videos have no labels; give `labels:`"),
    "no video in the splits": (
        {"train_splits": ["fit"]},
        {},
        InputError,
        "no window to train on. No video is in its splits",
    ),
    "window too long": (
        {"window": {"length": 200, "pad": False}},
        {},
        InputError,
        r"reaches over 200 rows \(length 200, dilation 1\), but the longest video has 120. Shorten window.length",
    ),
    "metric": (
        {"metric": "macro_f2"},
        {},
        ConfigError,
        "'macro_f2' is not known. Did you mean 'macro_f1'.*Known: loss, top1",
    ),
    "task": ({"task": "last_rows"}, {}, ConfigError, "no such task. Did you mean 'last_row'.*Known: video, last_row"),
    "model": ({"model": {"name": "transfomer"}}, {}, ConfigError, "did you mean 'transformer'"),
    "model option": ({"model": {"name": "gru", "layer": 2}}, {}, ConfigError, "did you mean 'layers'"),
    "model and task": (
        {"model": {"name": "mlp"}, "task": "per_row"},
        {},
        ConfigError,
        "model mlp gives no logits per row",
    ),
    "output": ({"output": "tokens"}, {}, StoreError, "output 'tokens' is not stored"),
    "device": ({"device": "cuda:77"}, {}, ConfigError, "device: 'cuda:77', but"),
    "device name": ({"device": "abacus"}, {}, ConfigError, "'abacus' is not known; allowed: auto, cpu"),
    "warm-up": ({"schedule": {"warmup_epochs": 3}}, {}, ConfigError, "there are only 2 epochs"),
    "loss": ({"task": "multi_label", "loss": {"label_smoothing": 0.1}}, {}, ConfigError, "remove them for multi_label"),
    "net changes": (
        {"labels_of_window": "net_change"},
        {},
        ConfigError,
        "net_change is of task multi_label, but task is last_row",
    ),
    "unknown key": ({"epoch": 3}, {}, ConfigError, "epoch: unknown key. Did you mean 'epochs'"),
}


@pytest.mark.parametrize(("config", "payload", "kind", "message"), REFUSED.values(), ids=REFUSED)
def test_refused_before_training(pulse_toy, config, payload, kind, message):
    work = pulse_toy.train_work(**config)
    with pytest.raises(kind, match=message):
        run(replace(work, payload={**work.payload, **payload}), pulse_toy.reporter)
    assert not RunFolder(pulse_toy.store.run("run")).metrics()


def test_no_embeddings_at_all(pulse_toy):
    pulse_toy.videos = [{**entry, "digest": f"x{entry['digest']}"} for entry in pulse_toy.videos]
    with pytest.raises(InputError, match="none of the 4 videos of splits train has embeddings"):
        run(pulse_toy.train_work(), pulse_toy.reporter)


def test_no_labels_where_windows_need_them(pulse_toy):
    pulse_toy.videos = [{**entry, "annotation": Annotation().plain()} for entry in pulse_toy.videos]
    for task in ("last_row", "multi_label"):
        with pytest.raises(InputError, match="None of the 3 videos has a label where a window needs one"):
            run(pulse_toy.train_work(task=task), pulse_toy.reporter)


def test_a_complete_run_survives_a_training_that_cannot_start(pulse_toy):
    run(pulse_toy.train_work(), pulse_toy.reporter)
    with pytest.raises(InputError, match="no window to train on"):
        run(pulse_toy.train_work(train_splits=["fit"]), pulse_toy.reporter)
    assert RunFolder(pulse_toy.store.run("run")).is_complete
