"""Gradient checkpointing: blocks keep only their inputs and are computed again in the backward pass.

Batch norms see each batch once: what the second time does to their statistics is undone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def recompute_blocks(module: nn.Module) -> int:
    """Have the blocks inside ``module`` computed again instead of kept; how many places were changed.

    timm's models, and those that know their blocks, do it themselves (`set_grad_checkpointing`); elsewhere every entry
    of a ModuleList is a block (Chen et al. 2016). Dropout draws the same numbers again, so the gradients stay as they
    are.
    """
    of_timm: Any = getattr(module, "set_grad_checkpointing", None)
    if callable(of_timm):
        of_timm(True)
        return 1
    changed = 0
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            for block in child:
                recompute(block)
                changed += 1
        else:
            changed += recompute_blocks(child)
    return changed


def recompute(block: nn.Module) -> None:
    """Have ``block`` computed again instead of kept."""
    forward: Callable[..., Any] = block.forward

    def run(*inputs: Any, **options: Any) -> Any:
        if not block.training:
            return forward(*inputs, **options)
        contexts = lambda: (nullcontext(), _statistics_kept(block))  # noqa: E731 - of the first time, of the second
        return checkpoint(forward, *inputs, use_reentrant=False, context_fn=contexts, **options)

    block.forward = run


@contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    norms = [norm for norm in block.modules() if isinstance(norm, _BatchNorm)]
    before = [(buffer, buffer.clone()) for norm in norms for buffer in norm.buffers()]
    try:
        yield
    finally:  # it is left by an exception as soon as all that is needed was computed
        for buffer, value in before:
            buffer.copy_(value)
