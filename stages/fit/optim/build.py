"""Optimizer and its rates: parameter groups by name and layer, timm's factory, the scaling rule, a rate an update."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from timm.optim import create_optimizer_v2, get_optimizer_class
from torch import nn

from reelwright.models.blocks.layer_ids import layer_scales, undecayed_names
from reelwright.models.blocks.schedules import Warmup, build_schedule
from reelwright.models.contracts import VideoModel, model_layers
from reelwright.stages.fit.optim.config import GroupSettings, OptimizerSettings, ScheduleSettings
from reelwright.stages.fit.optim.names import LOOKAHEAD
from reelwright.storage.errors import ConfigError, nearest

UNDECAYED = ("*pos_embed*", "*positions_TW", "*cls_token*", "*cls_W")  # position and class embeddings


def fits(name: str, pattern: str) -> bool:
    """Whether a parameter's name fits a pattern, or lies in the module of that name."""
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


def freeze_groups(module: VideoModel, groups: Sequence[GroupSettings], *, where: str) -> None:
    """Freeze the parts that the model declares frozen, and what the settings freeze.

    Raises ConfigError for a pattern that fits nothing, or when nothing is left.
    """
    named = dict(module.named_parameters())
    for position, group in enumerate(groups):
        if not any(fits(name, group.match) for name in named):
            raise ConfigError(
                f"{where}: optimizer.groups[{position}].match: {group.match!r} fits no parameter."
                f"{nearest(group.match, named)} There are {', '.join(list(named)[:3])}, ...; patterns are as of file "
                "names, such as *.head.*"
            )
    for prefix, part in module.parts.items():
        if part.state == "frozen":
            module.get_submodule(prefix).requires_grad_(requires_grad=False)
    for name, parameter in named.items():
        found = _first_fit(name, groups)
        if found is not None and (found.frozen or found.lr_scale == 0):
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in named.values()):
        raise ConfigError(f"{where}: optimizer.groups freeze every parameter; nothing is left to learn.")


def parameter_groups(
    module: VideoModel,
    settings: OptimizerSettings,
    *,
    lr: float | None = None,
    multipliers: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """Groups of trainable parameters that share learning rate and decay, in the order of the module.

    A rate is ``lr`` (None: that of the settings) times the layer's scale, the group's, and that of ``multipliers``
    (start of a parameter's name -> factor; the first that fits). Biases, 1-D parameters (norms), position and class
    embeddings are not decayed, unless a group says so.
    """
    scales, spared, base = _layer_factors(module, settings.layer_decay), undecayed_names(module), lr or settings.lr
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        starts = (factor for start, factor in (multipliers or {}).items() if name.startswith(start))
        factor = next(starts, 1.0) * scales.get(name, 1.0)
        decay = 0.0 if name in spared or _is_undecayed(name, parameter) else settings.weight_decay
        group = _first_fit(name, settings.groups)
        if group is not None:
            factor *= group.lr_scale
            decay = decay if group.weight_decay is None else group.weight_decay
        groups.setdefault((factor, decay), []).append(parameter)
    return [
        {
            "params": params,
            "lr": base * factor,
            "initial_lr": base * factor,
            "weight_decay": decay,
            "initial_weight_decay": decay,
        }
        for (factor, decay), params in groups.items()
    ]


def _first_fit(name: str, groups: Sequence[GroupSettings]) -> GroupSettings | None:
    return next((group for group in groups if fits(name, group.match)), None)


def _is_undecayed(name: str, parameter: nn.Parameter) -> bool:
    is_vector = parameter.ndim <= 1 or name.endswith("bias")
    return is_vector or any(fnmatchcase(name, pattern) for pattern in UNDECAYED)


def _layer_factors(module: VideoModel, decay: float | None) -> dict[str, float]:
    if decay is None or decay >= 1:
        return {}
    ids = model_layers(module)
    scales = layer_scales(max(ids.values()) + 1, decay)
    return {name: scales[layer] for name, layer in ids.items()}


__all__ = ["Schedule", "build_decay_schedule", "build_lr_schedule", "build_optimizer", "parameter_groups", "scaled_lr"]

Schedule = Callable[[int], float]  # update 0, 1, ... -> factor on the learning rate

FUSED_DEVICES = ("cpu", "cuda")  # where torch has fused steps


def scaled_lr(settings: OptimizerSettings, *, batch_size: int, unit: str = "windows") -> tuple[float, str]:
    """The learning rate by the linear scaling rule (Goyal et al. 2017, section 2.1), and a line for the log.

    ``batch_size`` counts ``unit``.
    """
    total = batch_size * settings.accumulate
    if settings.lr_base_batch is None:
        return settings.lr, f"learning rate {settings.lr:g}; {total} {unit} an update"
    lr = settings.lr * total / settings.lr_base_batch
    return lr, f"learning rate {settings.lr:g} x {total} / {settings.lr_base_batch} = {lr:g}; {total} {unit} an update"


def build_optimizer(
    groups: list[dict[str, Any]], settings: OptimizerSettings, *, note: Callable[[str], None] = lambda _: None
) -> torch.optim.Optimizer:
    """The optimizer over parameter groups, in its fused form where torch has one and the settings do not forbid it.

    ``note`` hears where a fused form was asked for, or torch seemed to have one, and there is none. Raises
    ConfigError for values or options it refuses, and where a package is missing.
    """
    options: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in settings.options().items()
    }

    def made(**speed: bool) -> torch.optim.Optimizer:
        optimizer: torch.optim.Optimizer = create_optimizer_v2(
            groups,
            opt=settings.name,
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            momentum=settings.momentum,
            **options,
            **speed,
        )
        return optimizer

    try:
        lacks = "" if settings.fused is False else _why_not_fused(groups, settings.name)
        if settings.fused is not False and not lacks:
            try:
                return made(fused=True)
            except RuntimeError as error:  # an older torch, or parameters it has no kernel for
                note(f"optimizer {settings.name}: torch has no fused step here ({error}); the plain step is used")
        elif settings.fused and lacks:
            note(f"optimizer.fused: {lacks}; the plain step is used")
        return made()
    except (ValueError, TypeError, AssertionError, ImportError, IndexError) as error:
        raise ConfigError(
            f"optimizer: {settings.name} with {settings.options() or 'no options'} cannot be made: {error}. "
            "Look at its options; fused... needs NVIDIA's apex, bnb... needs bitsandbytes."
        ) from error


def build_lr_schedule(settings: ScheduleSettings, *, epochs: int, updates_per_epoch: int) -> Schedule:
    """The factor on the learning rate at each update. Raises ConfigError when the warm-up outlasts the training."""
    steps_per_epoch = 1 if settings.per == "epoch" else updates_per_epoch

    def steps(in_epochs: float, in_updates: int | None) -> int:
        return round(in_epochs * steps_per_epoch) if in_updates is None else in_updates

    total = steps(settings.decay_epochs or epochs, None)
    warmup = steps(settings.warmup_epochs, settings.warmup_updates)
    if settings.warmup_epochs > epochs or warmup > total:
        given = (
            f"warmup_epochs is {settings.warmup_epochs:g}, but there are only {epochs} epochs"
            if settings.warmup_updates is None
            else f"warmup_updates is {warmup}, but there are only {total} updates"
        )
        raise ConfigError(f"schedule.{given}; shorten it.")
    rising = Warmup(
        steps=warmup,
        start=settings.warmup_start,
        is_inclusive=settings.warmup_inclusive,
        overlaps=settings.warmup_overlaps,
        lag=settings.lag,
    )
    period = max(1, steps(settings.period_epochs, settings.period_updates))
    first = 0 if settings.warmup_overlaps else warmup
    milestones = tuple(steps(epoch, None) - first for epoch in settings.milestones_epochs)
    gamma = {} if settings.gamma is None else {"gamma": settings.gamma}
    low = {"min_ratio": settings.min_factor}
    options: dict[str, dict[str, Any]] = {
        "constant": {},
        "cosine": low,
        "cosine_restarts": {"T_0": period, "T_mult": settings.period_factor, **low},
        "step": {"size": period, **gamma},
        "multi_step": {"milestones": milestones, **gamma},
        "cyclic": {"size": period, **gamma, **low},
        "polynomial": {"power": settings.power, **low},
    }
    schedule = build_schedule(settings.name, total_steps=total, warmup=rising, **options[settings.name])
    if settings.per == "update":
        return schedule
    return lambda update: schedule(update // updates_per_epoch)


def build_decay_schedule(
    optimizer: OptimizerSettings, schedule: ScheduleSettings, *, epochs: int, updates_per_epoch: int
) -> Schedule | None:
    """The factor on the weight decay at each update: half a cosine over all of them; None where it is constant."""
    if optimizer.weight_decay_end is None:
        return None
    ratio = optimizer.weight_decay_end / optimizer.weight_decay
    if schedule.per == "epoch":
        by_epoch = build_schedule("cosine", total_steps=epochs, min_ratio=ratio)
        return lambda update: by_epoch(update // updates_per_epoch)
    return build_schedule("cosine", total_steps=epochs * updates_per_epoch, min_ratio=ratio)


def set_rates(optimizer: torch.optim.Optimizer, lr_factor: float, decay_factor: float | None) -> None:
    """Give every group its learning rate and, unless it is constant, its weight decay."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * lr_factor
        if decay_factor is not None:
            group["weight_decay"] = group["initial_weight_decay"] * decay_factor


def _why_not_fused(groups: list[dict[str, Any]], name: str) -> str:
    """Why there is no fused step; "" where there should be one."""
    kind = get_optimizer_class(name.removeprefix(LOOKAHEAD), bind_defaults=False)
    if "fused" not in inspect.signature(kind).parameters or kind is torch.optim.Adagrad:
        return f"{name} has none in torch"
    devices = {parameter.device.type for group in groups for parameter in group["params"]} - set(FUSED_DEVICES)
    return f"torch has none for {', '.join(sorted(devices))}" if devices else ""
