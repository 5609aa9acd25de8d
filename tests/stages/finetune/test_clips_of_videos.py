"""A network that sees clips of frames, trained on CAST's clips of whole videos with two heads; views and crops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import softmax

from reelwright.stages.base.plugins import find_plugin
from reelwright.stages.base.work import InputRef
from reelwright.stages.datasets.sampling.dense import repeated_views
from reelwright.stages.decode.geometry import Geometry, apply
from reelwright.stages.finetune.module import load_network
from reelwright.stages.finetune.work import run as finetune
from reelwright.stages.predict.work import publish, run_items
from reelwright.storage.arrays.frames import FrameStore
from reelwright.storage.results.predictions import PredictionSet, scores_matrix
from reelwright.storage.results.runs import RunFolder
from reelwright.storage.tables.annotations import Annotation

from .conftest import Notes

NET = """
import torch
from torch import nn
from reelwright.models.contracts import ClipModel
from reelwright.models.encoders.base import DataConfig


class Net(ClipModel):
    data_config = DataConfig((16, 16), 16, "bilinear", False, "center", (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))

    def __init__(self, sizes):
        super().__init__()
        self.heads = sizes.heads
        self.body = nn.Conv3d(3, 4, 3, padding=1)
        self.head = nn.Linear(4, sizes.num_outputs)

    def forward(self, batch):
        assert batch["mask"].all()
        x = self.body(batch["frames"].transpose(1, 2)).relu().mean(dim=(2, 3, 4))
        return {f"logits.{n}": part for n, part in zip(self.heads, self.head(x).split(list(self.heads.values()), -1))}
"""
CONFIG = {
    "frames": "frames",
    "model": {"name": "net.py:Net"},
    "task": "heads",
    "window": {"length": 4, "dilation": 5, "sampling": "stretched"},
    "augment": {"rand_augment": "rand-m7-n4-mstd0.5-inc1", "crop_scale": [0.08, 1], "erasing": {}},
    "mix": {"probability": 0.9},
    "loss": {"label_smoothing": 0.1},
    "repeats": 2,
    "epochs": 1,
    "device": "cpu",
}


@pytest.mark.slow
def test_views_and_crops_of_two_heads_are_merged(film):
    """18 frames are fewer than the 20 of a span: clips repeat the last frame, and no frame is padded."""
    (film.root / "net.py").write_text(NET, encoding="utf-8")
    plugins = {"models:net.py:Net": find_plugin("models", "net.py:Net", folder=film.root).plain()}
    videos = [
        {**video, "annotation": Annotation(labels=(number % 2, 2 + number // 2 % 2)).plain()}
        for number, video in enumerate(film.payload["videos"])
    ]
    names = {"classes": ["verb: a", "verb: b", "noun: c", "noun: d"], "heads": [["verb", 2], ["noun", 2]]}
    payload = {**film.payload, **names, "videos": videos}
    work = replace(film.work("finetune", "cast", CONFIG, frames=film.frames), plugins=plugins, payload=payload)
    finetune(work, Notes())
    (record,) = RunFolder(film.store.run("cast")).metrics()
    assert {"val_action_top1", "val_verb_top1", "val_noun_top1"} <= record.keys()

    run = InputRef(node="tune", stage="finetune", key="cast", inputs={"frames": (film.frames,)})
    config = {"run": "tune", "frames": "frames", "crops": 3, "device": "cpu"}
    config["window"] = {"views": 2, "length": 3}  # of a grid of four frames
    predict = replace(
        film.work("predict", "cast scores", config, run=run, frames=film.frames), plugins=plugins, payload=payload
    )
    run_items(predict, Notes())
    publish(predict, film.store.root / "cast published")
    found = PredictionSet(film.store.root / "cast published")
    network = load_network(run, store=film.store, plugins=plugins)
    frames = FrameStore(film.store.frames("frames")).rows("d4").read(0, 18)
    seen = apply(frames, Geometry(resize=16, interpolation="bilinear", antialias=False))
    assert seen.shape[1:3] == (16, 21)
    x = (torch.from_numpy(seen).float() / 255 - torch.tensor((0.5, 0.4, 0.3))) / torch.tensor((0.2, 0.3, 0.4))
    wanted = []
    for view in repeated_views(18, length=3, step=5, num_views=2)[0].tolist():
        for left in (0, 2, 5):  # int(crop * 5 / 2)
            clip = x[view][:, :, left : left + 16].permute(0, 3, 1, 2)[None]
            with torch.inference_mode():
                logits = network({"frames": clip, "mask": torch.ones(1, 3, dtype=torch.bool)})["logits"].numpy()
            wanted.append(np.concatenate([softmax(logits[0, :2], axis=-1), softmax(logits[0, 2:], axis=-1)]))
    (place,) = [at for at, name in enumerate(found.videos()["video_id"].to_pylist()) if name == "4.mp4"]
    np.testing.assert_allclose(scores_matrix(found.videos())[place], np.mean(wanted, axis=0), atol=1e-5)
    assert found.videos()["num_windows"].to_pylist() == [2] * 6
