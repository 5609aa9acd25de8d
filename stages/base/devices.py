"""The device that a setting names, and results that are the same bits on it whatever is made beside them.

Sums of floating-point numbers depend on how many threads add them up, on the kernel that a measurement chose, and on
what else is in a batch. The last is for the stages to see to; the others end here.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch

from reelwright.storage.errors import ConfigError


def pick_device(name: str, *, num_processes: int = 1) -> torch.device:
    """Auto is the first GPU, else the CPU. Raises ConfigError for one that is not there, or not for each process."""
    if name == "auto":
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    else:
        try:
            device = torch.device(name)
        except RuntimeError as error:
            raise ConfigError(f"device: {name!r} is not known; allowed: auto, cpu, cuda, cuda:1.") from error
    found = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= found:
        raise ConfigError(f"device: {name!r}, but this machine has {found} GPU(s). Use auto or cpu.")
    if device.type == "cuda" and num_processes > 1 and (device.index is not None or num_processes > found):
        raise ConfigError(
            f"processes: {num_processes} on device: {name!r}, but each takes a GPU of its own and {found} are here. "
            "Use device: auto with as many processes as GPUs, or device: cpu."
        )
    return device


@contextlib.contextmanager
def deterministic_results(is_wanted: bool) -> Iterator[None]:
    """While the block runs: one thread on the CPU, and on a GPU kernels that repeat themselves (where there are such).

    Machines of another kind (instruction set, GPU, version of torch) still give other last bits.
    """
    if not is_wanted:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
    threads, is_picked = torch.get_num_threads(), torch.backends.cudnn.benchmark
    is_strict = torch.are_deterministic_algorithms_enabled()
    is_lenient = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(is_strict, warn_only=is_lenient)
        torch.backends.cudnn.benchmark = is_picked
