"""Fine-tuning on clips of whole videos with several heads, and what predict makes of it over frames."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from reelwright.stages.base.work import InputRef
from reelwright.stages.finetune.config import FinetuneConfig
from reelwright.stages.finetune.work import run as finetune
from reelwright.stages.predict.work import publish, run_items
from reelwright.stages.train.config import TrainConfig
from reelwright.stages.train.work import run as train
from reelwright.storage.errors import ConfigError
from reelwright.storage.results.predictions import PredictionSet, scores_matrix
from reelwright.storage.results.runs import RunFolder
from reelwright.storage.tables.annotations import Annotation

from .conftest import TRAIN, Notes

SETTINGS = {**TRAIN, "task": "heads", "window": {"length": 6, "sampling": "segments"}, "epochs": 1, "device": "cpu"}


@pytest.mark.slow
def test_segments_and_heads_go_all_the_way(film):
    videos = [
        {**video, "annotation": Annotation(labels=(number % 2, 2 + number // 2 % 2)).plain()}
        for number, video in enumerate(film.payload["videos"])
    ]
    payload = {
        **film.payload,
        "videos": videos,
        "classes": ["verb: a", "verb: b", "noun: c", "noun: d"],
        "heads": [["verb", 2], ["noun", 2]],
    }
    train(replace(film.work("train", "headed", SETTINGS, embeddings=film.embedding), payload=payload), Notes())
    start = InputRef(
        node="train", stage="train", key="headed", config=SETTINGS, inputs={"embeddings": (film.embedding,)}
    )
    work = film.tune_work(key="headed tune", epochs=2, mix={}, repeats=2, batch_size=4)
    work = replace(work, payload=payload, inputs={**work.inputs, "temporal": (start,)})
    smoothed = {"label_smoothing": 0.1}  # the heads are those of the temporal run, with its own
    with pytest.raises(ConfigError, match=r"loss.label_smoothing is 0.1, but heads keep .* of 'train' \(0.0, 0.0\)"):
        finetune(replace(work, config={**work.config, "loss": smoothed}), Notes())
    config = FinetuneConfig(**{**work.config, "loss": smoothed})
    with pytest.raises(ConfigError, match=r"loss.label_smoothing is 0.1, but heads keep"):
        config.check_inputs({"temporal": [TrainConfig(**SETTINGS)]})
    config.check_inputs({"temporal": [TrainConfig(**{**SETTINGS, "loss": smoothed})]})
    found = finetune(work, Notes())
    records = RunFolder(film.store.run("headed tune")).metrics()
    assert [record["update"] for record in records] == [0, 2, 4]  # 4 videos, each twice, in batches of 4
    assert {"val_action_top1", "val_verb_top1", "val_loss"} <= records[0].keys()
    assert found["metrics"]["epoch"] in {0, 1, 2}
    run = InputRef(node="tune", stage="finetune", key="headed tune", config=dict(work.config), inputs=work.inputs)
    config = {"run": "tune", "frames": "frames", "window": {"views": 3}, "device": "cpu"}
    predict = film.work("predict", "headed scores", config, run=run, frames=film.frames)
    predict = replace(predict, payload=payload)
    run_items(predict, Notes())
    publish(predict, film.store.root / "headed published")
    windows = PredictionSet(film.store.root / "headed published").windows()
    assert windows.num_rows == 3 * 6
    np.testing.assert_allclose(scores_matrix(windows).sum(1), 2, rtol=1e-5)
