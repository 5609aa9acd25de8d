"""Optimizer and learning rates: parameter groups by name, and the rate of every update."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from reelwright.models.schedules import build_schedule
from reelwright.stages.train.config import OptimizerSettings, ScheduleSettings
from reelwright.storage.errors import ConfigError

Schedule = Callable[[int], float]  # update 0, 1, ... -> factor on the learning rate


def parameter_groups(
    module: nn.Module, settings: OptimizerSettings, *, multipliers: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """Groups of trainable parameters that share learning rate and decay, in the order of the module.

    ``multipliers`` (start of a parameter's name -> factor on the learning rate) take the first start that fits. Biases
    and 1-D parameters (norms) are not decayed.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            fits = (factor for start, factor in (multipliers or {}).items() if name.startswith(start))
            decay = settings.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((next(fits, 1.0), decay), []).append(parameter)
    return [
        {"params": params, "lr": settings.lr * factor, "initial_lr": settings.lr * factor, "weight_decay": decay}
        for (factor, decay), params in groups.items()
    ]


def build_optimizer(groups: list[dict[str, Any]], settings: OptimizerSettings) -> torch.optim.Optimizer:
    """AdamW or SGD over parameter groups."""
    return _OPTIMIZERS[settings.name](groups, settings)


def build_lr_schedule(settings: ScheduleSettings, *, epochs: int, updates_per_epoch: int) -> Schedule:
    """The factor on the learning rate at each update. Raises ConfigError when the warm-up outlasts the training."""
    if settings.warmup_epochs > epochs:
        raise ConfigError(
            f"schedule.warmup_epochs is {settings.warmup_epochs:g}, but there are only {epochs} epochs; shorten it."
        )
    period = max(1, round(settings.period_epochs * updates_per_epoch))
    options: dict[str, dict[str, Any]] = {
        "constant": {},
        "cosine": {"min_ratio": settings.min_factor},
        "cosine_restarts": {"T_0": period, "T_mult": settings.period_factor, "min_ratio": settings.min_factor},
        "step": {"size": period, "gamma": settings.gamma},
    }
    return build_schedule(
        settings.name,
        total_steps=epochs * updates_per_epoch,
        warmup_steps=round(settings.warmup_epochs * updates_per_epoch),
        warmup_start=settings.warmup_start,
        **options[settings.name],
    )


def _adamw(groups: list[dict[str, Any]], settings: OptimizerSettings) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=settings.lr, weight_decay=settings.weight_decay, fused=True)


def _sgd(groups: list[dict[str, Any]], settings: OptimizerSettings) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay)


_OPTIMIZERS: dict[str, Callable[[list[dict[str, Any]], OptimizerSettings], torch.optim.Optimizer]] = {
    "adamw": _adamw,
    "sgd": _sgd,
}
