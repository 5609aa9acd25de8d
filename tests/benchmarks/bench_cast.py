"""CAST's last blocks on stored tokens: updates/s against the same network on frames, beside the bound in operations.

Both are the bare network, its loss and an update on clips (or tokens) in memory: what reading costs is no part of it.
The bound is the ratio of operations of an update, forward and backward, as torch counts them; the frozen blocks before
the last ones are run forward alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from reelwright.models.clip_options import CastOptions
from reelwright.models.systems.cast.model import Cast, build_cast
from reelwright.stages.base.devices import pick_device
from tests.benchmarks.harness import Options, Row, Turns

CLASSES, CPU_BATCH, GPU_BATCH, UPDATES = 97, 1, 8, 2
TOPS = (1, 3)
SMALL = {  # on a CPU
    "space_args": {"embed_dim": 384, "num_heads": 6, "img_size": 112},
    "time": "videomae/vit_small_patch16_224",
    "time_args": {"img_size": 112, "clip_length": 8},
}


def run(options: Options) -> list[Row]:
    """Rows of the table."""
    device = pick_device("auto")
    is_gpu = device.type == "cuda"
    sizes = {} if is_gpu else SMALL
    length, size = (16, 224) if is_gpu else (8, 112)
    batch = GPU_BATCH if is_gpu else CPU_BATCH
    rows, turns, notes = [], Turns(options.repeats), {}
    for top in TOPS:
        for source in ("frames", "tokens"):
            name = f"top {top}, {source}"
            model = _model(CastOptions(**sizes, top=top, source=source), length=length, device=device)
            inputs = _inputs(model, batch=batch, length=length, size=size, device=device)
            step = partial(_update, model, inputs)
            notes[name] = _operations(step)
            turns.add(name, partial(_rate, step, device=device))
    found = turns.measure()
    for top in TOPS:
        whole, last = f"top {top}, frames", f"top {top}, tokens"
        bound = notes[whole] / notes[last]
        rows.append(Row(what=whole, unit="updates/s", figures=found[whole], note=f"{notes[whole] / 1e9:.1f} GFLOP"))
        rows.append(
            Row(
                what=last,
                unit="updates/s",
                figures=found[last],
                reference=whole,
                against=found[whole],
                note=f"{notes[last] / 1e9:.1f} GFLOP: bound of the ratio {bound:.2f}",
            )
        )
    return rows


def _model(options: CastOptions, *, length: int, device: torch.device) -> Cast:
    torch.manual_seed(0)
    model = build_cast(length=length, sizes=[("", CLASSES)], options=options).to(device)
    for name, part in model.parts.items():
        model.get_submodule(name).requires_grad_(requires_grad=part.state == "trained")
    model.train()
    return model


def _inputs(model: Cast, *, batch: int, length: int, size: int, device: torch.device) -> dict[str, Tensor]:
    if model.options.source == "frames":
        frames = torch.rand(batch, length, 3, size, size, device=device)
        return {"frames": frames, "mask": torch.ones(batch, length, dtype=torch.bool, device=device)}
    count = model.space.num_tokens + model.time.num_tokens
    tokens = torch.randn(batch, 1, count, model.space.width, device=device)
    return {"rows": tokens, "mask": torch.ones(batch, 1, dtype=torch.bool, device=device)}


def _update(model: Cast, inputs: dict[str, Tensor]) -> None:
    logits = model(inputs)["logits"]
    functional.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64, device=logits.device)).backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.sub_(1e-4 * parameter.grad)
                parameter.grad = None


def _operations(step: Callable[[], None]) -> float:
    with FlopCounterMode(display=False) as counter:
        step()
    return float(counter.get_total_flops())


def _rate(step: Callable[[], None], *, device: torch.device) -> float:
    started = time.perf_counter()
    for _ in range(UPDATES):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return UPDATES / (time.perf_counter() - started)
