"""Results that are the same bits wherever they are made and whatever is made beside them, as `deterministic` asks.

Sums of floating-point numbers depend on how many threads add them up, on the kernel that a measurement chose, and on
what else is in a batch. The last is for the stages to see to; the others end here.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch


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
