"""Training on views: views/s of our loop against the plain loop on tensors already in memory, same model, in one run.

The plain loop is what a user would write: a list of tensors, two random ascending choices of rows of each video,
forward, sequence contrast, backward, clip, step. Ours draws views with their guaranteed overlap and masks, reads from
the block of embeddings, checks that losses are finite, keeps metrics and writes checkpoints.
"""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from reelwright.models.losses.sequence_contrastive import SequenceContrast, sequence_contrastive_loss
from reelwright.models.systems.carl import FrameModel, build_frame_model
from reelwright.stages.base.devices import pick_device
from reelwright.stages.base.work import SilentReporter
from reelwright.stages.datasets.feature_bank import FeatureBank
from reelwright.stages.datasets.sampling.settings import ViewSettings
from reelwright.stages.datasets.sampling.two_views import ViewSampler
from reelwright.stages.fit.loop.trainer import Rates, Trainer, TrainerSettings
from reelwright.stages.fit.optim.build import build_optimizer, parameter_groups
from reelwright.stages.fit.optim.config import OptimizerSettings
from reelwright.stages.objectives.sequence import SequenceContrastive
from reelwright.stages.train.view_batches import ViewBatches
from reelwright.storage.arrays.spans import Spans
from reelwright.storage.results.runs import RunFolder
from tests.benchmarks.harness import Figures, Options, Row, Turns

NUM_VIDEOS, ROWS, DIM, BATCH_SIZE, AIM = 32, 400, 384, 4, 0.9
LENGTHS = (80, 240)


def run(options: Options) -> list[Row]:
    """Rows of the table."""
    device = pick_device("auto")
    block = _block(4 if options.quick else NUM_VIDEOS).on(device)
    turns = Turns(options.repeats)
    for length in LENGTHS:
        turns.add(f"{length} plain", partial(_plain_rate, block, length=length))
        turns.add(f"{length} ours", partial(_our_rate, block, length=length))
    found = turns.measure()
    return [row for length in LENGTHS for row in _rows(length, found)]


def _rows(length: int, found: dict[str, Figures]) -> list[Row]:
    plain, ours, unit = found[f"{length} plain"], found[f"{length} ours"], "steps/s"
    what = f"carl, views of {length} rows"
    return [
        Row(what=f"{what}, plain loop", unit=unit, figures=plain),
        Row(what=f"{what}, Trainer", unit=unit, figures=ours, reference="plain loop", against=plain, aim=AIM),
    ]


def _plain_rate(block: FeatureBank, *, length: int) -> float:
    """Steps a second of the loop that a user would write."""
    device = block.rows.device
    model, how = _model(length, device), SequenceContrast()
    videos = [block.rows[a:b].float() for a, b in zip(block.offsets[:-1], block.offsets[1:], strict=True)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=1e-5, fused=True)
    model.train()
    mask = torch.ones(2 * BATCH_SIZE, length, dtype=torch.bool, device=device)
    order = torch.randperm(len(videos)).split(BATCH_SIZE)
    _wait(device)
    started = time.perf_counter()
    for part in order:
        places = torch.stack([_places(length, device) for _ in range(2 * len(part))])
        rows = torch.stack([videos[int(part[n // 2])][places[n]] for n in range(len(places))])
        optimizer.zero_grad()
        projected = model({"rows": rows, "mask": mask[: len(rows)]})["aux.projected"]
        pairs = [value.reshape(-1, 2, *value.shape[1:]) for value in (projected, places, mask[: len(rows)])]
        loss = sequence_contrastive_loss(*pairs, how=how)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        loss.item()
    _wait(device)
    return len(order) / (time.perf_counter() - started)


def _places(length: int, device: torch.device) -> Tensor:
    return torch.randperm(ROWS, device=device)[:length].sort().values


def _our_rate(block: FeatureBank, *, length: int) -> float:
    """Steps a second of `Trainer.fit`, everything it does included."""
    device = block.rows.device
    model, chosen = _model(length, device), OptimizerSettings(lr=1e-4, weight_decay=1e-5, clip_norm=10.0)
    sampler = ViewSampler(strategy="time_augment", views=ViewSettings(length=length))
    batches = ViewBatches(block=block, sampler=sampler, batch_size=BATCH_SIZE)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model,
            optimizer=build_optimizer(parameter_groups(model, chosen), chosen),
            rates=Rates(lr=lambda _update: 1.0),
            objective=SequenceContrastive(SequenceContrast()),
            settings=TrainerSettings(key="bench", epochs=1, clip_norm=chosen.clip_norm),
            folder=RunFolder(Path(folder)),
            reporter=SilentReporter(),
        )
        _wait(device)
        started = time.perf_counter()
        trainer.fit(batches)
        _wait(device)
        return batches.num_batches / (time.perf_counter() - started)


def _model(length: int, device: torch.device) -> FrameModel:
    torch.manual_seed(0)
    return build_frame_model("carl", length=length, input_dim=DIM, layers=2).to(device)


def _block(num_videos: int) -> FeatureBank:
    """Rows as an embed node stores them, float16."""
    rows = np.random.default_rng(0).normal(size=(num_videos * ROWS, DIM)).astype(np.float16)
    frames = np.arange(ROWS, dtype=np.int64)
    spans = Spans(frames * 0.1, frames * 0.1 + 0.1, frames, frames + 1)
    offsets = np.arange(num_videos + 1, dtype=np.int64) * ROWS
    return FeatureBank(torch.from_numpy(rows), offsets, (spans,) * num_videos, tuple(map(str, range(num_videos))))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
