"""Batch normalisation over the batches of all processes together, on any device.

torch's SyncBatchNorm works on GPUs only; this one needs nothing but an all-reduce, so that two CPU processes give what
one gives. A process without items of its own takes part with a weight of 0 (`is_counted`).

Shape letters: N items, C channels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from reelwright.models.blocks.gathering import sum_of_all


class SyncedBatchNorm(_BatchNorm):
    """A batch norm whose mean and variance, in train mode, are those of the whole batch (Ioffe and Szegedy 2015)."""

    is_counted: bool = True  # False: the input is a stand-in; it is normalised, but counts for nothing

    def forward(self, x_NC: Tensor) -> Tensor:
        """`x_NC` (N, C, ...) -> the same shape."""
        if not self.training and self.running_mean is not None:
            return functional.batch_norm(
                x_NC,
                self.running_mean,
                self.running_var,
                self.weight,
                self.bias,
                False,
                0.0,
                self.eps,
            )
        count, mean_C, var_C = self._moments(x_NC)
        self._remember(count, mean_C.detach(), var_C.detach())
        shape = (1, -1) + (1,) * (x_NC.ndim - 2)
        out = (x_NC.float() - mean_C.view(shape)) * torch.rsqrt(var_C.view(shape) + self.eps)
        if self.weight is not None:
            out = out * self.weight.view(shape) + self.bias.view(shape)
        return out.to(x_NC.dtype)

    def _moments(self, x_NC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Count, mean (C,) and biased variance (C,) over all processes; two all-reduces, as the mean comes first."""
        axes = [axis for axis in range(x_NC.ndim) if axis != 1]
        weight = float(self.is_counted)
        x = x_NC.float()
        own = torch.full((1,), weight * x.numel() / x.shape[1], device=x.device)
        summed = sum_of_all(torch.cat([x.sum(axes) * weight, own]))
        count = summed[-1].detach()
        mean_C = summed[:-1] / count
        shape = (1, -1) + (1,) * (x.ndim - 2)
        var_C = sum_of_all(((x - mean_C.view(shape)) ** 2).sum(axes) * weight) / count
        return count, mean_C, var_C

    @torch.no_grad()
    def _remember(self, count: Tensor, mean_C: Tensor, var_C: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        rate = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean_C, rate)
        self.running_var.lerp_(var_C * count / (count - 1).clamp(min=1), rate)

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 - torch's name
        assert input.ndim >= 2


def convert_batch_norms(module: nn.Module) -> int:
    """Make every batch norm inside ``module`` a SyncedBatchNorm, in place and with the same parameters; how many."""
    norms = [
        part for part in module.modules() if isinstance(part, _BatchNorm) and not isinstance(part, SyncedBatchNorm)
    ]
    for norm in norms:
        _adopt(norm)
    return len(norms)


def count_batches(module: nn.Module, *, is_counted: bool) -> None:
    """Whether the next forward pass of this process counts in the statistics."""
    for part in module.modules():
        if isinstance(part, SyncedBatchNorm):
            part.is_counted = is_counted


def _adopt(norm: _BatchNorm) -> None:
    """Change the class, so that parameters, their names and all attributes stay."""
    base = type(norm)
    has_activation = hasattr(norm, "drop") and hasattr(norm, "act")  # timm's BatchNormAct2d
    body = {"forward": _with_activation} if has_activation else {}
    norm.__class__ = type(f"Synced{base.__name__}", (SyncedBatchNorm, base), body)


def _with_activation(self: Any, x_NC: Tensor) -> Tensor:
    activated: Tensor = self.act(self.drop(SyncedBatchNorm.forward(self, x_NC)))
    return activated
