"""Mixing in training: what targets become, losses that add up, exact resume, and runs that learn with it."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from reelwright.models.blocks.mixing import Mix, MixDistribution
from reelwright.stages.datasets.tasks.labels import LabelSpace
from reelwright.stages.datasets.tasks.task import build_task
from reelwright.stages.fit.config import LearningSettings, LossSettings, MixingSettings
from reelwright.stages.fit.loop.batches import Batch, Origin
from reelwright.stages.fit.mixing import build_mixing, mix_frames, mix_windows
from reelwright.stages.fit.processes.world import World
from reelwright.stages.train.config import TrainConfig
from reelwright.stages.train.work import run
from reelwright.storage.errors import ConfigError, Interrupted
from reelwright.storage.results.runs import RunFolder

CPU = torch.device("cpu")
COUNTS = np.array([6, 3, 3])
LABELS = LabelSpace(classes=("a", "b", "c"))
TASKS = ("video", "last_row", "majority", "per_row", "multi_label")


def _config(**settings):
    return TrainConfig(embeddings=("e",), **{"mix": {}, **settings})


def _mixing(task="majority", *, mix_inputs=mix_windows, num_extents=1, world=None, **settings):
    return build_mixing(
        _config(**settings),
        mix_inputs,
        num_extents=num_extents,
        task=build_task(task, LABELS),
        world=world or World(),
    )


def _batch(task, *, size=4, length=6, epoch=0, first=0, unknown=False):
    generator = torch.Generator().manual_seed(3)
    rows = torch.randn(size, length, 5, generator=generator)
    mask = torch.ones(size, length, dtype=torch.bool)
    if task == "multi_label":
        targets = torch.randint(0, 2, (size, 3), generator=generator).float()
    else:
        targets = torch.randint(0, 3, (size, length) if task == "per_row" else (size,), generator=generator)
    if unknown:
        targets[0, :2] = -1
    return Batch({"rows": rows, "mask": mask}, targets, origin=Origin(epoch, np.arange(first, first + size)))


def test_the_settings_are_those_of_the_models_layer():
    assert MixDistribution(**MixingSettings().model_dump()) == MixDistribution()
    assert _mixing(mix=None) is None


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("per_row", [[1, 1, 0, 0, 1, 1], [1, 1, 1, 1, 1, 1]]),
        ("last_row", [1, 1]),
        ("majority", [4 / 6, 1]),
        ("video", [4 / 6, 1]),
        ("multi_label", [4 / 6, 1]),
    ],
)
def test_what_a_target_keeps_of_a_window_that_was_cut(task, expected):
    """Rows 2 and 3 of window 0 come from window 1, in which nothing is replaced."""
    mix = Mix(np.ones(2), np.array([[2], [0]]), np.array([[4], [0]]))
    rows, mask = torch.arange(12.0).reshape(2, 6, 1), torch.ones(2, 6, dtype=torch.bool)
    mixed, share = mix_windows(rows, mask, mix, build_task(task, LABELS))
    assert mixed[0, :, 0].tolist() == [0, 1, 8, 9, 4, 5]
    np.testing.assert_allclose(share.numpy(), expected, rtol=1e-6)


def test_the_last_row_is_the_last_real_one():
    mix = Mix(np.ones(2), np.array([[2], [2]]), np.array([[4], [4]]))
    mask = torch.tensor([[True] * 4 + [False] * 2] * 2)
    _, share = mix_windows(torch.zeros(2, 6, 1), mask, mix, build_task("last_row", LABELS))
    assert share.tolist() == [0, 0]  # its last row is another window's, and so is its label


@pytest.mark.parametrize(
    ("task", "loss"),
    [
        (task, loss)
        for task in TASKS
        for loss in ({}, {"label_smoothing": 0.1}, {"class_weights": "balanced"})
        if task != "multi_label" or not loss
    ],
    ids=str,
)
def test_nothing_mixed_has_the_loss_of_plain_targets(task, loss):
    """With probability 0 only the form of the targets changes."""
    batch = _batch(task, unknown=task == "per_row")
    prepared = _mixing(task, mix={"probability": 0}, loss=loss)(batch)
    how = {"counts": COUNTS, "device": CPU}
    objective = build_task(task, LABELS).objective(LossSettings(**loss), **how)
    logits = torch.randn(*batch.targets.shape[: 2 if task == "per_row" else 1], 3)
    assert torch.equal(prepared.inputs["rows"], batch.inputs["rows"])
    losses = [float(objective({"logits": logits}, each.entries).total) for each in (prepared, batch)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    weights = [objective.weight(each.entries) for each in (prepared, batch)]
    assert (weights[0] is None) == (weights[1] is None) == (task != "per_row" and "class_weights" not in loss)
    if weights[0] is not None:
        assert float(weights[0]) == pytest.approx(float(weights[1]), rel=1e-5)


def test_the_loss_is_the_mean_of_both_losses_by_the_share():
    batch = _batch("majority")
    prepared = _mixing(mix={"cutmix_alpha": 0})(batch)
    mixed, rows = prepared.inputs["rows"], batch.inputs["rows"]
    share = float(((mixed - rows.flip(0)) / (rows - rows.flip(0))).median())
    assert 0 < share < 1
    assert torch.allclose(mixed, share * rows + (1 - share) * rows.flip(0), atol=1e-5)
    assert prepared.inputs["mask"] is batch.inputs["mask"]
    logits = torch.randn(4, 3)
    loss = build_task("majority", LABELS).objective(LossSettings(), counts=COUNTS, device=CPU).loss
    expected = share * loss(logits, batch.targets) + (1 - share) * loss(logits, batch.targets.flip(0))
    assert float(loss(logits, prepared.targets)) == pytest.approx(float(expected), rel=1e-4)


def test_draws_follow_from_seed_epoch_and_place_alone():
    def mixed(*, seed=0, **place):
        return _mixing(seed=seed)(_batch("majority", **place)).inputs["rows"]

    assert torch.equal(mixed(), mixed())
    others = [mixed(seed=1), mixed(epoch=1), mixed(first=4)]
    assert not any(torch.equal(mixed(), other) for other in others)


def test_clips_are_mixed_alike_in_all_frames():
    mixing = _mixing("per_row", mix_inputs=mix_frames, num_extents=2, mix={"mixup_alpha": 0})
    frames = torch.rand(4, 1, 3, 8, 8).expand(-1, 6, -1, -1, -1)
    batch = _batch("per_row")
    prepared = mixing(Batch({"frames": frames, "mask": batch.inputs["mask"]}, batch.targets, origin=batch.origin))
    assert not torch.equal(prepared.inputs["frames"], frames)
    assert torch.equal(prepared.inputs["frames"], prepared.inputs["frames"][:, :1].expand_as(frames))
    assert prepared.targets.shape == (4, 6, 3)
    assert prepared.targets.sum(-1).flatten().tolist() == pytest.approx([1.0] * 24)


REFUSED = {
    "one window": ({"batch_size": 1}, "mix needs batches of at least 2 windows"),
    "a window of a row": ({"window": {"length": 1}}, r"window.length is 1; set mix.cutmix_alpha: 0"),
    "nothing": ({"mix": {"mixup_alpha": 0, "cutmix_alpha": 0}}, "nothing would be mixed; set mix: null"),
    "range": ({"mix": {"cutmix_minmax": [0.8, 0.2]}}, "0 <= smallest < largest <= 1 is needed"),
    "mode": ({"mix": {"mode": "pairs"}}, "mix.mode"),
    "smoothing": ({"task": "multi_label", "loss": {"label_smoothing": 0.1}}, "remove them for multi_label"),
}


@pytest.mark.parametrize(("settings", "message"), REFUSED.values(), ids=REFUSED)
def test_what_means_nothing_is_refused(pulse_toy, settings, message):
    with pytest.raises(ConfigError, match=message):
        run(pulse_toy.train_work(**{"mix": {}, **settings}), pulse_toy.reporter)


def test_processes_without_two_windows_are_refused():
    with pytest.raises(ConfigError, match=r"batch_size is 4, shared by 3 processes.*at least 6"):
        _mixing(batch_size=4, world=World(rank=0, size=3))
    assert isinstance(_config(window={"length": 1}, mix={"cutmix_alpha": 0}), LearningSettings)


@pytest.mark.parametrize("task", TASKS)
def test_every_task_trains_mixed(pulse_toy, task):
    work = pulse_toy.train_work(task=task, window={"length": 12, "hop": 12}, mix={"mode": "elem"}, epochs=1)
    assert np.isfinite(run(work, pulse_toy.reporter)["metrics"]["train_loss"])


def test_a_mixed_run_learns(pulse_toy):
    work = pulse_toy.train_work(
        mix={"mixup_alpha": 0.2, "cutmix_alpha": 0},
        epochs=6,
        optimizer={"lr": 0.01},
        window={"length": 12, "hop": 2},
        schedule={"warmup_epochs": 0.5},
    )
    assert run(work, pulse_toy.reporter)["metrics"]["val_macro_f1"] > 0.85


def _lines(toy, key):
    return [(line["train_loss"], line["gradient_norm"]) for line in RunFolder(toy.store.run(key)).metrics()]


def test_accumulated_mixing_is_interrupted_and_goes_on_with_the_same_numbers(pulse_toy):
    class Stop(type(pulse_toy.reporter)):
        def advance(self, amount):
            super().advance(amount)
            if self.advanced >= 400:
                os.kill(os.getpid(), signal.SIGTERM)

    settings = {"mix": {"mode": "pair"}, "optimizer": {"accumulate": 2}, "loss": {"class_weights": "balanced"}}
    run(pulse_toy.train_work(key="whole", **settings), pulse_toy.reporter)
    with pytest.raises(Interrupted, match="run again to go on"):
        run(pulse_toy.train_work(key="cut", **settings), Stop())
    run(pulse_toy.train_work(key="cut", **settings), pulse_toy.reporter)
    whole, cut = (load_file(pulse_toy.store.run(key) / "model.safetensors") for key in ("whole", "cut"))
    assert all(torch.equal(value, cut[name]) for name, value in whole.items())
    assert _lines(pulse_toy, "whole") == _lines(pulse_toy, "cut")
