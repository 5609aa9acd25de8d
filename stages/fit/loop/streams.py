"""Random numbers of training (dropout, augmentation): a stream for every process, kept in checkpoints."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from reelwright.stages.fit.processes.world import World

Stream = tuple[Tensor, Tensor | None]  # torch's state on the CPU and on the GPU

_DISTANCE = 1_000_003  # between the seeds of two processes


@contextlib.contextmanager
def seeded(seed: int, device: torch.device, world: World) -> Iterator[None]:
    """Torch's global random state from the seed while the block runs; as it was afterwards.

    A single process, and the first of several, start at the seed itself.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed + _DISTANCE * world.rank)
        yield


def own_stream(device: torch.device) -> Stream:
    """Where the random numbers of this process stand."""
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def take_stream(streams: Sequence[Stream], device: torch.device, world: World, *, seed: int) -> bool:
    """Go on where this process stood; with another number of processes, a new stream from ``seed``, and False."""
    if len(streams) != world.size:
        torch.manual_seed(seed + _DISTANCE * (world.rank + world.size))
        return False
    on_cpu, on_gpu = streams[world.rank]
    torch.set_rng_state(on_cpu)
    if on_gpu is not None and device.type == "cuda":
        torch.cuda.set_rng_state(on_gpu, device)
    return True
