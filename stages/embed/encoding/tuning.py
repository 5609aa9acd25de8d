"""Memory layout and batch size for one encoder on one device, found by measuring once and remembered in the store."""

from __future__ import annotations

import json
import platform
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from reelwright.models.encoders.build import DataConfig, Encoder
from reelwright.stages.embed.encoding.forward import Execution, ForwardPass
from reelwright.stages.embed.encoding.streams import Streams
from reelwright.storage.digests import digest, readable
from reelwright.storage.errors import StoreError
from reelwright.storage.files import write_json

BUDGET_SECONDS = 3.0  # of measuring, warm-up included
ROUNDS = 3
BATCHES = {"cpu": (4, 8, 16), "cuda": (64, 128, 256, 512)}
CLIP_BATCHES = {"cpu": (1, 2, 4), "cuda": (8, 16, 32, 64)}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What was found to be fastest."""

    channels_last: bool
    batch_size: int
    rows_per_second: float


def fixed_batch(encoder: Encoder, device: torch.device) -> int:
    """The batch size where none may be measured."""
    sizes = (CLIP_BATCHES if encoder.kind == "video" else BATCHES)[device.type]
    return sizes[len(sizes) // 2]


def tuned(
    encoder: Encoder, config: DataConfig, wish: Execution, *, folder: Path, name: str, streams: Streams
) -> Choice:
    """The remembered choice for ``encoder`` under ``wish``, or one measured now and remembered in ``folder``."""
    path = folder / f"{_device_name(wish.device, streams)}-{_identity(encoder, config, wish, name)}.json"
    known = remembered(path)
    if known is not None:
        return known
    choice, measured = measure(encoder, config, wish, streams)
    write_json(path, {"encoder": name, "choice": vars(choice), "rows_per_second": measured})
    return choice


def remembered(path: Path) -> Choice | None:
    """The choice in a file; None where there is none, or it is damaged: it is only a cache."""
    try:
        with readable(path):
            return Choice(**json.loads(path.read_text(encoding="utf-8"))["choice"])
    except (FileNotFoundError, StoreError):
        return None


def measure(encoder: Encoder, config: DataConfig, wish: Execution, streams: Streams) -> tuple[Choice, dict[str, float]]:
    """Time every layout and batch size in turns, in all ``streams`` at once, small ones first, while the budget lasts.

    Turns, and the best of each, because other work on the machine comes and goes. Where memory does not suffice for
    the smallest size, what did fit is timed. Raises StageError when memory does not suffice for a single row.
    """
    wish = replace(wish, compile=False)  # compiling every candidate would take minutes
    deadline = time.perf_counter() + BUDGET_SECONDS
    sizes = (CLIP_BATCHES if encoder.kind == "video" else BATCHES)[wish.device.type]
    best: dict[tuple[bool, int], float] = {}
    for _ in range(ROUNDS):
        for size in sizes:
            for channels_last in (True, False):
                candidate = replace(wish, channels_last=channels_last, batch_size=size)
                _try(encoder, config, candidate, streams, best, deadline)
    (layout, size), speed = max(best.items(), key=lambda entry: entry[1])
    measured = {f"channels_last={key[0]} batch_size={key[1]}": round(value, 1) for key, value in best.items()}
    return Choice(channels_last=layout, batch_size=size, rows_per_second=round(speed, 1)), measured


def _try(
    encoder: Encoder,
    config: DataConfig,
    candidate: Execution,
    streams: Streams,
    best: dict[tuple[bool, int], float],
    deadline: float,
) -> None:
    """Time one candidate, after a pass that is not counted. Beyond the deadline only the very first is tried."""
    if best and time.perf_counter() > deadline:
        return
    forward = ForwardPass(encoder, config, candidate, streams=streams)
    clip = (config.clip_length,) if encoder.kind == "video" else ()
    frames = np.zeros((candidate.batch_size, *clip, *config.size, 3), dtype=np.uint8)
    seconds = streams.seconds(partial(forward.submit, frames))
    if forward.batch_size < candidate.batch_size:  # it does not fit into memory, and the pass went on with less
        if best:
            return
        frames = frames[: forward.batch_size]
        seconds = streams.seconds(partial(forward.submit, frames))
    if time.perf_counter() + seconds * streams.num < deadline:
        seconds = streams.seconds(partial(forward.submit, frames))
    name = (candidate.channels_last, forward.batch_size)
    best[name] = max(best.get(name, 0.0), min(len(frames), forward.batch_size) / seconds)


def _device_name(device: torch.device, streams: Streams) -> str:
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"cpu-{platform.machine()}-{streams.num}x{streams.threads}threads"
    return "".join(letter if letter.isalnum() else "-" for letter in name)


def _identity(encoder: Encoder, config: DataConfig, wish: Execution, name: str) -> str:
    readable = "".join(letter if letter.isalnum() or letter in "-._" else "_" for letter in name)
    facts = [name, list(encoder.outputs), list(config.size), config.clip_length, wish.precision, wish.compile]
    return f"{readable}-{digest(facts)[:8]}"
