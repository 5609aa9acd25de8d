"""Start a module from another one's weights: take what fits, resize positions, leave heads that differ, tell it all.

Shape letters: N positions, D features, H rows, W columns of a grid of positions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from reelwright.models.encoders.positions import resize_grid

_LISTED = 4

POSITIONS = ("*pos_embed*", "*positions_TW", "*positional_embedding*", "*_time_pos", "*_space_pos")
# A module whose tables lie otherwise has a method `resized_positions(values, shape)`, which resizes them. One whose
# classes are not the outputs of a linear layer alone has `class_layers`, names of the layers that are anew with other
# classes, first the one whose outputs the classes are.


@dataclass(frozen=True)
class InitReport:
    """What became of every entry, by name."""

    matched: tuple[str, ...] = ()  # taken as they are
    resized: tuple[str, ...] = ()  # "name (from) -> (to)"
    new: tuple[str, ...] = ()  # of the module only: they keep their initial values
    replaced: tuple[str, ...] = ()  # heads that the source has too, but that start anew
    unused: tuple[str, ...] = ()  # of the source only

    def line(self) -> str:
        """One line for the log."""
        parts = [f"{len(self.matched)} matched"]
        for kind in ("resized", "replaced", "new", "unused"):
            names = getattr(self, kind)
            if names:
                more = ", ..." if len(names) > _LISTED else ""
                label = "heads replaced" if kind == "replaced" else kind
                parts.append(f"{len(names)} {label} ({', '.join(names[:_LISTED])}{more})")
        return ", ".join(parts)

    def plain(self) -> dict[str, Any]:
        """For a file: kind -> names."""
        return {kind: list(names) for kind, names in asdict(self).items()}


def start_from(module: nn.Module, state: Mapping[str, Tensor], *, replace_heads: bool, keep_heads: bool) -> InitReport:
    """Copy what of `state` fits into `module` by name, and say what became of the rest.

    Position embeddings of another length are interpolated. A head of another shape, and with `replace_heads` every head
    (the last linear layer, and `class_layers`), keeps its initial values; with `keep_heads` it has to fit. `module.` in
    front of all names (torch's data parallel) is ignored. Raises ValueError, and leaves `module` as it was, when
    nothing fits or any other shape differs.
    """
    state = _without_wrapper(state)
    own = module.state_dict()
    shared = [name for name in own if name in state]
    of_classes = _class_layers(module, own)
    heads = _head_names(module) | of_classes.keys()

    def is_other(name: str) -> bool:
        first = of_classes.get(name)
        if first is None:
            return _is_other_head(own, state, name, heads)
        return first in state and own[first].shape[:1] != state[first].shape[:1]

    replaced = [name for name in shared if name in heads and (replace_heads or is_other(name))]
    resizing = {
        name: _resizing(module, name)
        for name in shared
        if name not in replaced and own[name].shape != state[name].shape
    }
    resized = [name for name, resize in resizing.items() if resize is not None]
    differing = [name for name in shared if name not in (*replaced, *resized) and own[name].shape != state[name].shape]
    if keep_heads and replaced:
        differing, replaced = [*differing, *replaced], []
    _refuse(own, state, [name for name in shared if name not in heads or heads >= set(own)], differing)
    matched = [name for name in shared if name not in (*replaced, *resized)]
    values = {name: state[name] for name in matched}
    values |= {name: resize(state[name], own[name].shape) for name, resize in resizing.items() if resize is not None}
    module.load_state_dict(values, strict=False)
    return InitReport(
        matched=tuple(matched),
        resized=tuple(f"{name} {tuple(state[name].shape)} -> {tuple(own[name].shape)}" for name in resized),
        new=tuple(name for name in own if name not in state and not name.endswith("num_batches_tracked")),
        replaced=tuple(replaced),
        unused=tuple(name for name in state if name not in own),
    )


def resize_positions(values: Tensor, shape: torch.Size, *, grid: tuple[int, int] | None = None) -> Tensor:
    """Position embeddings interpolated to `shape`: along time for (N, D), from a square grid to `grid` for (1, N, D).

    Bicubic without aligned corners on grids, as BEiT and VideoMAE do; leading class positions, which make the number no
    square, are kept. Without `grid` (H, W) the new one is square too. Raises ValueError when the features differ or the
    positions are no grid.
    """
    if values.shape[-1] != shape[-1] or values.ndim != len(shape):
        message = f"positions of shape {tuple(values.shape)} cannot be resized to {tuple(shape)}: the features differ."
        raise ValueError(message)
    if values.ndim == 2:
        moved = functional.interpolate(values.T[None].float(), size=shape[0], mode="linear", align_corners=False)
        return moved[0].T.to(values.dtype)
    extra, old_side = grid_of(values.shape[1])
    new_extra, new_side = grid_of(shape[1])
    if grid is None:
        grid = (new_side, new_side)
    else:
        new_extra = shape[1] - grid[0] * grid[1]
    if extra < 0 or extra != new_extra:
        raise ValueError(
            f"positions of shape {tuple(values.shape)} cannot be resized to {tuple(shape)}: they are no square grids "
            "with equally many class positions."
        )
    moved = resize_grid(values[:, extra:], (old_side, old_side), grid)
    return torch.cat([values[:, :extra], moved], dim=1)


def _without_wrapper(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    wrapped = bool(state) and all(name.startswith("module.") for name in state)
    return {name.removeprefix("module."): value for name, value in state.items()} if wrapped else state


def _head_names(module: nn.Module) -> set[str]:
    """Parameters of linear layers named as a head, those of the last linear layer in any case; adapters are none."""
    linear = [
        (name, part)
        for name, part in module.named_modules()
        if isinstance(part, nn.Linear) and not fnmatchcase(name, "*_adapter.*")
    ]
    names = {name for name, _ in linear[-1:]}
    names |= {
        name for name, _ in linear if any(fnmatchcase(f"{name}.", pattern) for pattern in ("*head*.", "*classifier."))
    }
    return {f"{name}.{kind}" for name in names for kind in ("weight", "bias")}


def _class_layers(module: nn.Module, own: Iterable[str]) -> dict[str, str]:
    """Name of each entry of the layers that modules declare -> the weight whose outputs are the classes."""
    found: dict[str, str] = {}
    for prefix, part in module.named_modules():
        layers = [f"{prefix}.{layer}" if prefix else layer for layer in getattr(part, "class_layers", ())]
        found |= {name: f"{layers[0]}.weight" for name in own for layer in layers if name.startswith(f"{layer}.")}
    return found


def _is_other_head(own: Mapping[str, Tensor], state: Mapping[str, Tensor], name: str, heads: set[str]) -> bool:
    """Whether the layer of ``name`` has another number of outputs: then weight and bias go together."""
    layer = name.rpartition(".")[0]
    pair = [
        entry for entry in (f"{layer}.weight", f"{layer}.bias") if entry in heads and entry in own and entry in state
    ]
    inputs_equal = all(own[entry].shape[1:] == state[entry].shape[1:] for entry in pair)
    return inputs_equal and any(own[entry].shape != state[entry].shape for entry in pair)


def _resizing(module: nn.Module, name: str) -> Callable[[Tensor, torch.Size], Tensor] | None:
    """What resizes the positions that a parameter holds; None where it holds none."""
    owner: Any = module.get_submodule(name.rpartition(".")[0])
    own: Any = getattr(owner, "resized_positions", None)
    if own is not None and name.endswith(("_pos", "pos_embed")):
        return cast("Callable[[Tensor, torch.Size], Tensor]", own)
    if not any(fnmatchcase(name, pattern) for pattern in POSITIONS):
        return None
    grid = getattr(getattr(owner, "patch_embed", None), "grid_size", None)  # of timm's transformers
    return partial(resize_positions, grid=grid) if name.endswith("pos_embed") else resize_positions


def grid_of(count: int) -> tuple[int, int]:
    """Class positions (0, 1 or 2) in front, and the side of the square that the rest makes."""
    for extra in (0, 1, 2):
        side = math.isqrt(count - extra)
        if side * side == count - extra:
            return extra, side
    return -1, 0


def _refuse(own: Mapping[str, Tensor], state: Mapping[str, Tensor], shared: list[str], differing: list[str]) -> None:
    if not shared:  # but heads, whose names all models share
        raise ValueError(
            f"none of its {len(state)} tensors (such as {', '.join(list(state)[:_LISTED])}) is one of the model's "
            f"{len(own)} (such as {', '.join(list(own)[:_LISTED])}): these are the weights of another model."
        )
    if differing:
        named = [f"{name} (model {tuple(own[name].shape)}, source {tuple(state[name].shape)})" for name in differing]
        raise ValueError(
            f"{len(differing)} tensors have another shape: {', '.join(named[:_LISTED])}. Give the model settings it "
            "was trained with."
        )
