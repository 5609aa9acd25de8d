"""Networks that see clips of frames: a model that sees them itself, and encoders of clips, from windows of frames."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from reelwright.stages.base.plugins import find_plugin
from reelwright.stages.base.work import InputRef
from reelwright.stages.decode.geometry import apply
from reelwright.stages.embed.encoding.preprocess import geometry_of
from reelwright.stages.finetune.networks import frames_seen, load_network
from reelwright.stages.finetune.work import run
from reelwright.stages.fit.loop.progress import TIMINGS
from reelwright.stages.predict.work import run_items as predict_items
from reelwright.storage.arrays.frames import FrameStore
from reelwright.storage.arrays.window_outputs import WindowOutputStore
from reelwright.storage.errors import Interrupted
from reelwright.storage.results.runs import RunFolder
from reelwright.storage.results.scores import read_scores

from .conftest import Notes

NET = """
import torch
from torch import nn
from reelwright.models.contracts import ClipModel
from reelwright.models.encoders.base import DataConfig


class Net(ClipModel):
    data_config = DataConfig((16, 16), 18, "bilinear", True, "center", (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))

    def __init__(self, sizes, *, width: int = 4):
        super().__init__()
        self.heads, self.per_row = sizes.heads, sizes.per_row
        self.body = nn.Sequential(nn.Conv3d(3, width, 3, padding=1), nn.BatchNorm3d(width), nn.ReLU())
        self.head = nn.Linear(width, sizes.num_outputs)

    def forward(self, batch):
        mask = batch["mask"][:, None, :, None, None]
        x = self.body(batch["frames"].transpose(1, 2) * mask) * mask
        pooled = x.mean(dim=(3, 4)).transpose(1, 2) if self.per_row else x.mean(dim=(2, 3, 4))
        logits = self.head(pooled)
        space = x.mean(dim=1).sigmoid()
        if not self.heads:
            return {"logits": logits, "attention.space": space}
        parts = torch.split(logits, list(self.heads.values()), dim=-1)
        return {f"logits.{name}": part for name, part in zip(self.heads, parts)}
"""
WINDOW = {"length": 4, "hop": 5}
WHOLE = {
    "frames": "frames",
    "model": {"name": "net.py:Net", "width": 3},
    "window": WINDOW,
    "epochs": 2,
    "device": "cpu",
    "optimizer": {"lr": 0.01},
}
KEEP = {"keep": ["attention"], "device": "cpu", "frames": "frames", "run": "tune"}


@pytest.fixture(scope="module")
def plugins(film):
    (film.root / "net.py").write_text(NET, encoding="utf-8")
    return {"models:net.py:Net": find_plugin("models", "net.py:Net", folder=film.root).plain()}


@pytest.fixture
def tune(film, plugins):
    """Train a network that sees clips; its folder."""

    def call(*, key, reporter=None, payload=None, **config):
        work = film.work("finetune", key, {**WHOLE, **config}, frames=film.frames)
        work = replace(work, plugins=plugins, payload=payload or film.payload)
        run(work, reporter or Notes())
        return RunFolder(film.store.run(key))

    return call


def predicted(film, plugins, *, of, key="scores", **config):
    """Predict over the frames of all videos; what was said."""
    reporter = Notes()
    tuned = InputRef(node="tune", stage="finetune", key=of, inputs={"frames": (film.frames,)})
    work = film.work("predict", key, {**KEEP, **config}, run=tuned, frames=film.frames)
    predict_items(replace(work, plugins=plugins), reporter)
    return reporter


def plain_outputs(film, plugins, *, of, digest, starts, length):
    """The network's outputs for windows that begin at ``starts``, one after the other."""
    network = load_network(InputRef(node="tune", stage="finetune", key=of), store=film.store, plugins=plugins)
    seen = frames_seen(RunFolder(film.store.run(of)).config())
    frames = apply(FrameStore(film.store.frames("frames")).rows(digest).read(0, 18), geometry_of(seen))
    x = (torch.from_numpy(frames).float() / 255 - torch.tensor(seen.mean)) / torch.tensor(seen.std)
    clips = [x.permute(0, 3, 1, 2)[None, start : start + length] for start in starts]
    with torch.inference_mode():
        return [network({"frames": clip, "mask": torch.ones(1, length, dtype=torch.bool)}) for clip in clips]


class _Terminates(Notes):
    """Gets a SIGTERM while the third update is reported."""

    calls = 0

    def advance(self, amount):
        self.calls += 1
        if self.calls == 3:
            os.kill(os.getpid(), signal.SIGTERM)


def test_predictions_are_those_of_a_plain_loop_over_the_model(film, plugins, tune):
    folder = tune(key="plain")
    assert folder.config()["sees"]["size"] == [16, 16]
    assert {name.split(".")[0] for name in load_file(folder.weights)} == {"model"}
    reporter = predicted(film, plugins, of="plain", frame_batch_size=9)
    assert {row.status for row in reporter.rows} == {"ok"}
    found = read_scores(film.store.predictions("scores"), "d4")
    assert found.start_row.tolist() == list(range(15))
    wanted = plain_outputs(film, plugins, of="plain", digest="d4", starts=range(15), length=4)
    scores = torch.cat([outputs["logits"].softmax(-1) for outputs in wanted])
    np.testing.assert_allclose(found.scores, scores.numpy(), atol=1e-5)
    kept = WindowOutputStore(film.store.attention("scores")).rows("d4").output("attention.space")
    space = torch.cat([outputs["attention.space"] for outputs in wanted])
    np.testing.assert_allclose(kept, space.numpy(), atol=1e-3)


def test_it_goes_on_exactly_where_it_was_interrupted(film, tune):
    settings = {"augment": {"rand_augment": "rand-m7-n4-mstd0.5-inc1"}, "mix": {}, "ema": {}, "batch_size": 5}
    whole = tune(key="exact", **settings)
    with pytest.raises(Interrupted, match="after update 3"):
        tune(key="exact cut", reporter=_Terminates(), **settings)
    cut = tune(key="exact cut", **settings)
    records = [[{**record, **dict.fromkeys(TIMINGS)} for record in each.metrics()] for each in (whole, cut)]
    assert records[0] == records[1]
    first, second = load_file(whole.weights), load_file(cut.weights)
    assert all(torch.equal(first[name], second[name]) for name in first)
