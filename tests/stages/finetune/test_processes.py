"""Fine-tuning in two processes, batch norms that learn their statistics included, is fine-tuning in one."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from reelwright.stages.finetune.work import run as finetune
from reelwright.stages.train.work import run as train
from reelwright.storage.results.runs import RunFolder

from .conftest import TRAIN, Notes

STILL = {"flip": 0, "crop_scale": None, "color_jitter": 0}


# Ranks (mAP, accuracies) jump where rounding turns the order of two scores round: what is continuous is compared.
CONTINUOUS = ("train_loss", "gradient_norm", "lr", "val_loss")


def assert_equal_runs(one: RunFolder, two: RunFolder, *, rel: float):
    """Losses of all epochs, and the weights at the end."""
    lines = [
        [{name: line[name] for name in CONTINUOUS if name in line} for line in run.metrics()] for run in (one, two)
    ]
    for a, b in zip(*lines, strict=True):
        assert b == pytest.approx(a, rel=rel, abs=1e-4)
    first, second = load_file(one.weights), load_file(two.weights)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, rtol=1e-2, atol=1e-3, msg=lambda said, name=name: name + said)


@pytest.fixture(scope="module")
def dry_run(film):
    """A temporal run without dropout, whose random numbers are not the same in two processes."""
    settings = {**TRAIN, "model": {"name": "gru", "dropout": 0.0}, "epochs": 1, "device": "cpu"}
    train(film.work("train", "dry", settings, embeddings=film.embedding), Notes())
    return replace(film.temporal, key="dry", config=settings)


def _tune(film, temporal, key, **settings):
    work = film.tune_work(key=key, **settings)
    finetune(replace(work, inputs={**work.inputs, "temporal": (temporal,)}), Notes())
    return RunFolder(film.store.run(key))


@pytest.mark.usefixtures("forked_training")
@pytest.mark.slow
@pytest.mark.parametrize("frozen_norm", [True, False])
def test_two_processes_fine_tune_as_one(film, dry_run, frozen_norm):
    settings = {
        "augment": STILL,
        "frozen_norm": frozen_norm,
        "batch_size": 3,
        "metric": "loss",
        "spatial_lr_scale": 1.0,
        # without the scale of Adam, which makes an update of float noise where a gradient is 0
        "optimizer": {"name": "momentum", "lr": 0.01, "layer_decay": 0.8},
    }
    one, two = (_tune(film, dry_run, f"{number} {frozen_norm}", processes=number, **settings) for number in (1, 2))
    assert_equal_runs(one, two, rel=2e-3)


@pytest.mark.slow
def test_blocks_computed_again_give_the_same_run(film):
    settings = {"epochs": 1, "augment": STILL, "metric": "loss", "optimizer": {"lr": 1e-3}}
    plain = film.tune(key="kept", **settings)
    again = film.tune(key="again", gradient_checkpointing=True, channels_last=True, **settings)
    assert_equal_runs(plain, again, rel=1e-3)
