"""Which layer a parameter belongs to, counted from the input, for learning rates that fall towards the input."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from torch import nn

_BEHIND = 1 << 30  # sorted behind every numbered block
_NUMBERED = re.compile(r"(?<=\.)(\d+)\.")  # blocks.3.
_RECURRENT = re.compile(r"_l(\d+)(?:_reverse)?$")  # weight_ih_l1


def layer_ids(module: nn.Module) -> dict[str, int]:
    """The layer of every parameter by name: 0 at the input, one more a block, the highest at the output.

    timm's models say it themselves (`group_matcher`, block by block). Others: what stands before the longest row of
    numbered blocks is layer 0, each block a layer of its own, the rest the last one; without numbered blocks every
    child is a layer.
    """
    of_timm: Any = getattr(module, "group_matcher", None)
    if callable(of_timm):
        from timm.models import group_parameters  # here, since it takes seconds and most models are none of timm's

        found: Mapping[str, int] = group_parameters(module, of_timm(coarse=False), reverse=True)
        return _counted(dict(found))
    return _counted(_by_blocks([name for name, _ in module.named_parameters()]))


def layer_scales(num_layers: int, decay: float) -> list[float]:
    """Factors on the learning rate of layers 0 to `num_layers` - 1: 1 at the last, times `decay` for each before.

    Clark et al. 2020 (ELECTRA), and Bao et al. 2022 (BEiT), section 3.1.
    """
    return [decay ** (num_layers - 1 - layer) for layer in range(num_layers)]


def undecayed_names(module: nn.Module) -> set[str]:
    """Parameters that models of timm want free of weight decay: position and class embeddings."""
    found = set()
    for prefix, part in module.named_modules():
        if callable(getattr(part, "no_weight_decay", None)):
            found |= {f"{prefix}.{name}" if prefix else str(name) for name in part.no_weight_decay()}
    return found


def _by_blocks(names: list[str]) -> dict[str, int]:
    places = {name: _numbered_places(name) for name in names}
    numbers: dict[str, list[int]] = defaultdict(list)
    for found in places.values():
        for container, number in found.items():
            numbers[container].append(number)
    # the blocks are the longest row that holds at least half of the parameters
    rows = {container: len(set(held)) for container, held in numbers.items() if 2 * len(held) >= len(names)}
    blocks = max(rows, key=lambda container: rows[container], default=None)
    if blocks is None or rows[blocks] == 1:
        children = list(dict.fromkeys(name.split(".")[0] for name in names))
        return {name: children.index(name.split(".")[0]) for name in names}
    ids: dict[str, int] = {}
    for name, found in places.items():
        behind = _BEHIND if any(ids.values()) else 0  # behind the first block, or before it
        ids[name] = 1 + found[blocks] if blocks in found else behind
    return ids


def _numbered_places(name: str) -> dict[str, int]:
    """Every row of blocks that a parameter lies in, with its number there: `a.0.b.2.weight` -> {a.: 0, a.0.b.: 2}."""
    found = {name[: match.start()]: int(match[1]) for match in _NUMBERED.finditer(name)}
    recurrent = _RECURRENT.search(name)
    return found | ({name.rpartition(".")[0]: int(recurrent[1])} if recurrent else {})


def _counted(ids: Mapping[str, int]) -> dict[str, int]:
    """The same order with layers 0, 1, 2, ... and no gaps."""
    order = {layer: number for number, layer in enumerate(sorted(set(ids.values())))}
    return {name: order[layer] for name, layer in ids.items()}
