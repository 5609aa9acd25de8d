"""Memory layout and batch size for one encoder on one device, found by measuring once and remembered in the store."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from reelwright.models.encoders import DataConfig, Encoder
from reelwright.stages.embed.forward import Execution, ForwardPass
from reelwright.storage.digests import digest
from reelwright.storage.errors import StageError
from reelwright.storage.files import write_json

BUDGET_SECONDS = 3.0  # of measuring, warm-up included
BATCHES = {"cpu": (8, 16, 32), "cuda": (64, 128, 256, 512)}
CLIP_BATCHES = {"cpu": (1, 2, 4), "cuda": (8, 16, 32, 64)}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What was found to be fastest."""

    channels_last: bool
    batch_size: int
    rows_per_second: float


def tuned(encoder: Encoder, config: DataConfig, wish: Execution, *, folder: Path, name: str) -> Choice:
    """The remembered choice for ``encoder`` under ``wish``, or one measured now and remembered in ``folder``."""
    path = folder / f"{_device_name(wish.device)}-{_identity(encoder, config, wish, name)}.json"
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        return Choice(**found["choice"])
    choice, measured = measure(encoder, config, wish)
    write_json(path, {"encoder": name, "choice": vars(choice), "rows_per_second": measured})
    return choice


def measure(encoder: Encoder, config: DataConfig, wish: Execution) -> tuple[Choice, dict[str, float]]:
    """Time both layouts at the smallest batch, then larger batches in the better one, until the budget is spent."""
    deadline = time.perf_counter() + BUDGET_SECONDS
    sizes = (CLIP_BATCHES if encoder.kind == "video" else BATCHES)[wish.device.type]
    found: dict[tuple[bool, int], float] = {}
    _try_all(encoder, config, wish, ((layout, sizes[0]) for layout in (True, False)), found, deadline)
    best_layout = max(found, key=lambda key: found[key])[0]
    _try_all(encoder, config, wish, ((best_layout, size) for size in sizes[1:]), found, deadline)
    (layout, size), speed = max(found.items(), key=lambda entry: entry[1])
    measured = {f"channels_last={key[0]} batch_size={key[1]}": round(value, 1) for key, value in found.items()}
    return Choice(channels_last=layout, batch_size=size, rows_per_second=round(speed, 1)), measured


def _try_all(
    encoder: Encoder,
    config: DataConfig,
    wish: Execution,
    candidates: Iterable[tuple[bool, int]],
    found: dict[tuple[bool, int], float],
    deadline: float,
) -> None:
    for layout, size in candidates:
        if found and time.perf_counter() > deadline:
            return
        try:
            speed = _rows_per_second(encoder, config, replace(wish, channels_last=layout, batch_size=size), deadline)
        except StageError:
            return
        found[layout, size] = speed


def _rows_per_second(encoder: Encoder, config: DataConfig, execution: Execution, deadline: float) -> float:
    forward = ForwardPass(encoder, config, execution)
    clip = (config.clip_length,) if encoder.kind == "video" else ()
    frames = np.zeros((execution.batch_size, *clip, *config.size, 3), dtype=np.uint8)
    warm_seconds = _timed(forward, frames)
    if forward.batch_size < execution.batch_size:
        raise StageError(f"batch size {execution.batch_size} does not fit into memory")
    # A slow encoder: the warm-up is all that there is time for.
    if time.perf_counter() + warm_seconds > deadline:
        return execution.batch_size / warm_seconds
    return execution.batch_size / min(_timed(forward, frames) for _ in range(2))


def _timed(forward: ForwardPass, frames: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> float:
    start = time.perf_counter()
    for part in forward.submit(frames):
        part.result()
    return time.perf_counter() - start


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"cpu-{platform.machine()}-{torch.get_num_threads()}threads"
    return "".join(letter if letter.isalnum() else "-" for letter in name)


def _identity(encoder: Encoder, config: DataConfig, wish: Execution, name: str) -> str:
    readable = "".join(letter if letter.isalnum() or letter in "-._" else "_" for letter in name)
    facts = [name, list(encoder.outputs), list(config.size), config.clip_length, wish.precision, wish.compile]
    return f"{readable}-{digest(facts)[:8]}"
