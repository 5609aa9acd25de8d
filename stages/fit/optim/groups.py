"""Parameter groups: which parameters learn, how fast, and how much they are decayed, by name and by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from reelwright.models.blocks.layer_ids import layer_scales, undecayed_names
from reelwright.models.contracts import VideoModel, model_layers
from reelwright.stages.fit.optim.config import GroupSettings, OptimizerSettings
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
