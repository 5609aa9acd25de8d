"""Gradient checkpointing: blocks keep only their inputs and are computed again in the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint


def recompute_blocks(module: nn.Module) -> int:
    """Have the blocks inside ``module`` computed again instead of kept; how many places were changed.

    timm's models do it themselves (`set_grad_checkpointing`); elsewhere every entry of a ModuleList is a block (Chen et
    al. 2016). Dropout draws the same numbers again, so the gradients stay as they are.
    """
    of_timm: Any = getattr(module, "set_grad_checkpointing", None)
    if callable(of_timm):
        of_timm(True)
        return 1
    changed = 0
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            for block in child:
                block.forward = _recomputed(block.forward, block)
                changed += 1
        else:
            changed += recompute_blocks(child)
    return changed


def _recomputed(forward: Callable[..., Any], block: nn.Module) -> Callable[..., Any]:
    def run(*inputs: Any, **options: Any) -> Any:
        if not block.training:
            return forward(*inputs, **options)
        return checkpoint(forward, *inputs, use_reentrant=False, **options)

    return run
