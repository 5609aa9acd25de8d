"""Runs of the toy task: what is learned, what is written, and what is refused before it starts."""

from __future__ import annotations

import pytest

from reelwright.stages.train.work import run
from reelwright.storage.runs import RunFolder

OF_TIME = {
    "gru": {},
    "tcn": {"layers": 3, "pool": "last", "dropout": 0.1},
    "transformer": {"layers": 1, "width": 32},
}


def _best(toy, name, options):
    work = toy.train_work(
        key=name,
        epochs=8,
        schedule={"warmup_epochs": 0.5},
        optimizer={"lr": 0.01},
        model={"name": name, **options},
        window={"length": 12, "stride": 2},
    )
    return run(work, toy.reporter)["metrics"]["val_macro_f1"]


def test_models_of_time_beat_the_linear_probe(pulse_toy):
    linear = _best(pulse_toy, "linear", {"pool": "last"})
    found = {name: _best(pulse_toy, name, options) for name, options in OF_TIME.items()}
    assert linear < 0.75
    assert all(value > max(0.85, linear + 0.1) for value in found.values()), (linear, found)
