"""Predictions of toy runs: windows, rows and videos, by hand-made models and by trained ones."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
from dataclasses import replace

from reelwright.stages.predict.work import publish, run_items
from reelwright.stages.train.work import run
from reelwright.storage.annotations import Annotation
from reelwright.storage.errors import ConfigError, StageError, StoreError
from reelwright.storage.items import ItemLedger
from reelwright.storage.predictions import PredictionSet, scores_matrix
from reelwright.storage.scores import read_scores


def _trained(toy, **config):
    run(toy.train_work(**{"epochs": 1, "model": {"name": "linear"}, **config}), toy.reporter)


def _published(toy, work, node_key="published"):
    folder = toy.store.predictions(node_key)
    publish(work, folder)
    return PredictionSet(folder)


def test_windows_of_a_trained_run_are_published_in_the_manifests_order(pulse_toy):
    run(pulse_toy.train_work(epochs=8, optimizer={"lr": 0.01}, schedule={"warmup_epochs": 0.5}), pulse_toy.reporter)
    work = pulse_toy.predict_work()
    run_items(work, pulse_toy.reporter)
    found = _published(pulse_toy, work)
    windows = found.windows().to_pandas()
    assert list(windows.video_id.unique()) == [entry["video_id"] for entry in pulse_toy.videos]
    test = windows[windows.split == "test"]
    assert len(test) == 120 - 12 + 1
    assert (test.label == test.target).mean() > 0.85
    assert test.iloc[0][["start_row", "stop_row", "start_seconds", "stop_seconds", "time_seconds"]].tolist() == [
        0, 12, 0.0, 6.0, 5.5,
    ]
    assert (found.info.key, found.info.run, found.info.task) == ("published", "run", "last_row")
    rows = found.rows().to_pandas()
    assert rows[rows.split == "test"].row.tolist() == list(range(11, 120))
    assert pq.ParquetFile(found.folder / "windows.parquet").num_row_groups == 9
