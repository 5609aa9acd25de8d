"""Windows/s of our training loop against the plain loop on tensors already in memory, same model, in one run.

python tests/benchmarks/bench_train.py [--rounds 5] [--device cpu]

The plain loop is what a user would write: all windows in one tensor (N, T, D), a permutation, index, forward, backward,
clip, step. Ours reads from a block of embeddings, checks that losses are finite, keeps metrics and writes checkpoints.
The two take turns, so that other load on the machine hits both alike.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from reelwright.models.temporal import build_temporal
from reelwright.stages.train.batches import Sampling, WindowBatches
from reelwright.stages.train.block import Block
from reelwright.stages.train.config import LossSettings, OptimizerSettings
from reelwright.stages.train.objectives import build_loss
from reelwright.stages.train.optimizers import build_optimizer, parameter_groups
from reelwright.stages.train.trainer import Trainer, TrainerSettings
from reelwright.stages.train.windows import WindowShape, grid_windows
from reelwright.stages.work import SilentReporter
from reelwright.storage.annotations import Spans
from reelwright.storage.runs import RunFolder

NUM_VIDEOS, ROWS, DIM, NUM_CLASSES, BATCH_SIZE = 20, 400, 384, 6, 64
SHAPE = WindowShape(length=32, stride=4)
MODELS = {
    "linear": {"pool": "last"},
    "gru": {"width": 128},
    "tcn": {"layers": 6},
    "transformer": {"layers": 2, "width": 128},
}
EPOCHS = {"linear": 20}  # a round; 1 of the slower ones


def main() -> None:
    """Measure every model and print a table, then a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float16", "float32"), default="float16", help="of the stored rows")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    block = _block(arguments.dtype).on(device)
    windows = grid_windows(block.num_rows, SHAPE)
    targets = np.random.default_rng(1).integers(0, NUM_CLASSES, len(windows))
    batches = WindowBatches(
        block=block, windows=windows, targets=targets, shape=SHAPE, batch_size=BATCH_SIZE, sampling=Sampling(seed=0)
    )
    plain = (block.gather(windows, SHAPE)[0].to(device), torch.from_numpy(targets).to(device))
    print(
        f"{len(windows)} windows of {SHAPE.length} x {DIM}, {arguments.dtype}, batch {BATCH_SIZE}, {device}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, {platform.processor() or platform.machine()}, "
        f"{dt.datetime.now(tz=dt.UTC):%Y-%m-%d}"
    )
    print(f"{'model':<12} {'plain windows/s':>16} {'ours windows/s':>16} {'ratio':>7}  spread of the ratio")
    results = {name: _measure(name, batches, plain, device=device, rounds=arguments.rounds) for name in MODELS}
    print(json.dumps({"benchmark": "train", **results}))


def _measure(name: str, batches: WindowBatches, plain: tuple, *, device: torch.device, rounds: int) -> dict[str, float]:
    epochs = EPOCHS.get(name, 1)

    def both() -> tuple[float, float]:
        bare = _plain_loop(_model(name, device), *plain, epochs=epochs)
        return bare, _our_loop(_model(name, device), batches, epochs=epochs)

    both()  # warm-up
    pairs = [both() for _ in range(rounds)]
    ratios = [ours / bare for bare, ours in pairs]
    bare, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(ratios)
    print(f"{name:<12} {bare:>16.0f} {ours:>16.0f} {ratio:>7.3f}  {min(ratios):.3f} to {max(ratios):.3f}", flush=True)
    return {"plain": round(bare), "ours": round(ours), "ratio": round(ratio, 3)}


def _plain_loop(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, *, epochs: int) -> float:
    """Windows a second of the loop that a user would write."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05, fused=True)
    mask = torch.ones(BATCH_SIZE, SHAPE.length, dtype=torch.bool, device=x.device)
    model.train()
    _wait(x.device)
    started = time.perf_counter()
    for _ in range(epochs):
        for picked in torch.randperm(len(x), device=x.device).split(BATCH_SIZE):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(x[picked], mask[: len(picked)]), y[picked])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    _wait(x.device)
    return epochs * len(x) / (time.perf_counter() - started)


def _our_loop(model: torch.nn.Module, batches: WindowBatches, *, epochs: int) -> float:
    """Windows a second of `Trainer.fit`, everything it does included."""
    chosen, device = OptimizerSettings(), next(model.parameters()).device
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model,
            optimizer=build_optimizer(parameter_groups(model, chosen), chosen),
            schedule=lambda _update: 1.0,
            loss=build_loss("last_row", LossSettings(), counts=np.ones(NUM_CLASSES, np.int64), device=device),
            settings=TrainerSettings(key="bench", epochs=epochs),
            folder=RunFolder(Path(folder)),
            reporter=SilentReporter(),
        )
        _wait(device)
        started = time.perf_counter()
        trainer.fit(batches)
        _wait(device)
        return epochs * len(batches.windows) / (time.perf_counter() - started)


def _model(name: str, device: torch.device) -> torch.nn.Module:
    torch.manual_seed(0)
    sizes = {"input_dim": DIM, "num_outputs": NUM_CLASSES, "length": SHAPE.length, "per_row": False}
    return build_temporal(name, **sizes, **MODELS[name]).to(device)


def _block(dtype: str) -> Block:
    rows = np.random.default_rng(0).normal(size=(NUM_VIDEOS * ROWS, DIM)).astype(dtype)
    frames = np.arange(ROWS, dtype=np.int64)
    spans = Spans(frames * 0.5, frames * 0.5 + 0.5, frames, frames + 1)
    offsets = np.arange(NUM_VIDEOS + 1, dtype=np.int64) * ROWS
    return Block(torch.from_numpy(rows), offsets, (spans,) * NUM_VIDEOS, tuple(map(str, range(NUM_VIDEOS))))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
