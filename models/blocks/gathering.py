"""Sums and gathers over all processes that train together, with gradient.

A loss of the gathered batch is the same number in every process. Each process gets, for its own rows, the sum of the
gradients of all; the mean that DDP takes then makes it the gradient of one process with the whole batch.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def sum_of_all(values: Tensor) -> Tensor:
    """The sum over all processes; so its gradient is the sum of theirs."""
    summed: Tensor = _SumOfAll.apply(values)
    return summed


def gather_rows(values: Tensor, *, is_counted: bool = True) -> Tensor:
    """The rows (B, ...) of all processes, first to last, of which each may have another number.

    Those of a process that is not counted (a stand-in for an empty share) are left out. Every process must call it.
    """
    own = values if is_counted else values[:0]
    rank, size = dist.get_rank(), dist.get_world_size()
    counts = torch.zeros(size, dtype=torch.int64, device=values.device)
    counts[rank] = len(own)
    dist.all_reduce(counts)
    numbers = counts.tolist()
    before, behind = sum(numbers[:rank]), sum(numbers[rank + 1 :])
    rest = own.shape[1:]
    return sum_of_all(torch.cat([own.new_zeros(before, *rest), own, own.new_zeros(behind, *rest)]))


class _SumOfAll(torch.autograd.Function):
    """See sum_of_all."""

    @staticmethod
    def forward(_context: Any, values: Tensor) -> Tensor:
        summed = values.clone()
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(_context: Any, gradient: Tensor) -> Tensor:
        summed = gradient.contiguous().clone()
        dist.all_reduce(summed)
        return summed
