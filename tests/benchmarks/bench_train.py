"""Training: windows/s of our loop against the plain loop on tensors already in memory, same model, in one run.

The plain loop is what a user would write: all windows in one tensor (N, T, D), a permutation, index, forward, backward,
clip, step. Ours reads from a block of embeddings, checks that losses are finite, keeps metrics and writes checkpoints.
"""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch

from reelwright.models.temporal.build import build_temporal
from reelwright.stages.base.devices import pick_device
from reelwright.stages.base.work import SilentReporter
from reelwright.stages.datasets.feature_bank import FeatureBank
from reelwright.stages.datasets.sampling.draws import EpochSampler
from reelwright.stages.datasets.sampling.windows import WindowShape, grid_windows
from reelwright.stages.datasets.tasks.labels import LabelSpace
from reelwright.stages.datasets.tasks.task import build_task
from reelwright.stages.fit.config import LossSettings
from reelwright.stages.fit.loop.trainer import Rates, Trainer, TrainerSettings
from reelwright.stages.fit.optim.build import build_optimizer, parameter_groups
from reelwright.stages.fit.optim.config import OptimizerSettings
from reelwright.stages.train.window_batches import WindowBatches
from reelwright.storage.arrays.spans import Spans
from reelwright.storage.results.runs import RunFolder
from tests.benchmarks.harness import Figures, Options, Row, Turns

NUM_VIDEOS, ROWS, DIM, NUM_CLASSES, BATCH_SIZE, AIM = 20, 400, 384, 6, 64, 0.9
SHAPE = WindowShape(length=32, hop=4)
MODELS = {
    "linear": {"pool": "last"},
    "gru": {"width": 128},
    "ms_tcn": {"layers": 6},
    "transformer": {"layers": 2, "width": 128},
}
EPOCHS = {"linear": 20}  # a round; 1 of the slower ones


def run(options: Options) -> list[Row]:
    """Rows of the table."""
    device = pick_device("auto")
    block = _block(2 if options.quick else NUM_VIDEOS).on(device)
    windows = grid_windows(block.num_rows, SHAPE)
    targets = np.random.default_rng(1).integers(0, NUM_CLASSES, len(windows))
    batches = WindowBatches(
        block=block, windows=windows, targets=targets, shape=SHAPE, batch_size=BATCH_SIZE, draws=EpochSampler(seed=0)
    )
    rows, mask = block.gather(windows, SHAPE)
    tensors = (rows.to(device), mask.to(device), torch.from_numpy(targets).to(device))
    turns = Turns(options.repeats)
    for name in MODELS:
        turns.add(f"{name} plain", partial(_plain_rate, name, *tensors))
        turns.add(f"{name} ours", partial(_our_rate, name, batches, device=device))
    found = turns.measure()
    return [row for name in MODELS for row in _rows(name, found)]


def _rows(name: str, found: dict[str, Figures]) -> list[Row]:
    plain, ours = found[f"{name} plain"], found[f"{name} ours"]
    what, unit = f"{name}, plain loop", "windows/s"
    return [
        Row(what=what, unit=unit, figures=plain),
        Row(what=f"{name}, Trainer", unit=unit, figures=ours, reference="plain loop", against=plain, aim=AIM),
    ]


def _plain_rate(name: str, x: torch.Tensor, mask: torch.Tensor, y: torch.Tensor) -> float:
    """Windows a second of the loop that a user would write."""
    model, epochs = _model(name, x.device), EPOCHS.get(name, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05, fused=True)
    model.train()
    _wait(x.device)
    started = time.perf_counter()
    for _ in range(epochs):
        for picked in torch.randperm(len(x), device=x.device).split(BATCH_SIZE):
            optimizer.zero_grad()
            logits = model({"rows": x[picked], "mask": mask[picked]})["logits"]
            loss = torch.nn.functional.cross_entropy(logits, y[picked])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    _wait(x.device)
    return epochs * len(x) / (time.perf_counter() - started)


def _our_rate(name: str, batches: WindowBatches, *, device: torch.device) -> float:
    """Windows a second of `Trainer.fit`, everything it does included."""
    model, chosen = _model(name, device), OptimizerSettings()
    task = build_task("last_row", LabelSpace(classes=tuple(map(str, range(NUM_CLASSES)))))
    settings = TrainerSettings(key="bench", epochs=EPOCHS.get(name, 1))
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model,
            optimizer=build_optimizer(parameter_groups(model, chosen), chosen),
            rates=Rates(lr=lambda _update: 1.0),
            objective=task.objective(LossSettings(), counts=np.ones(NUM_CLASSES, np.int64), device=device),
            settings=settings,
            folder=RunFolder(Path(folder)),
            reporter=SilentReporter(),
        )
        _wait(device)
        started = time.perf_counter()
        trainer.fit(batches)
        _wait(device)
        return settings.epochs * len(batches.windows) / (time.perf_counter() - started)


def _model(name: str, device: torch.device) -> torch.nn.Module:
    torch.manual_seed(0)
    sizes = {"input_dim": DIM, "num_outputs": NUM_CLASSES, "length": SHAPE.length, "per_row": False}
    return build_temporal(name, **sizes, **MODELS[name]).to(device)


def _block(num_videos: int) -> FeatureBank:
    """Rows as an embed node stores them, float16."""
    rows = np.random.default_rng(0).normal(size=(num_videos * ROWS, DIM)).astype(np.float16)
    frames = np.arange(ROWS, dtype=np.int64)
    spans = Spans(frames * 0.5, frames * 0.5 + 0.5, frames, frames + 1)
    offsets = np.arange(num_videos + 1, dtype=np.int64) * ROWS
    return FeatureBank(torch.from_numpy(rows), offsets, (spans,) * num_videos, tuple(map(str, range(num_videos))))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
