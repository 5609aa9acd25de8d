"""A running mean of a module's weights (Polyak averaging), which can take the module's place for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn


class ModelEma:
    """Exponential moving average of parameters and float buffers; other buffers are copied.

    Tarvainen and Valpola 2017, section 2. With `warmup` the decay is at most (1 + updates) / (10 + updates), so that
    the first, bad weights are soon forgotten.
    """

    def __init__(self, module: nn.Module, *, decay: float, warmup: bool) -> None:
        """Starts at the module's own weights."""
        self.decay, self.warmup, self.num_updates = decay, warmup, 0
        self.state = {name: value.detach().clone() for name, value in module.state_dict().items()}

    def decay_at(self, update: int) -> float:
        """Share of the mean that update 1, 2, ... keeps."""
        return min(self.decay, (1 + update) / (10 + update)) if self.warmup else self.decay

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take in the module's weights after an update."""
        self.num_updates += 1
        weight = 1.0 - self.decay_at(self.num_updates)
        means, values = [], []
        for name, value in module.state_dict().items():
            mean = self.state[name]
            if mean.is_floating_point():
                means.append(mean)
                values.append(value.detach())
            else:
                mean.copy_(value)
        torch._foreach_lerp_(means, values, weight)

    @contextlib.contextmanager
    def in_place_of(self, module: nn.Module) -> Iterator[None]:
        """While the block runs the module has the mean's weights; afterwards its own again, bit for bit."""
        own = module.state_dict()
        kept = {name: value.detach().clone() for name, value in own.items()}
        _copy(self.state, own)
        try:
            yield
        finally:
            _copy(kept, own)

    def load(self, state: Mapping[str, Tensor], *, num_updates: int) -> None:
        """Go on with a mean that was kept. Raises KeyError or RuntimeError for one of another module."""
        _copy({name: state[name] for name in self.state}, self.state)
        self.num_updates = num_updates


@torch.no_grad()
def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    for name, value in target.items():
        value.copy_(source[name])
