"""From what both experts say of a clip to logits: composed heads, each of one expert, or a single one of both.

Shape letters: B clips, D features, K classes of all heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from reelwright.models.clip_options import CastOptions
from reelwright.models.encoders.videomae import initialise
from reelwright.models.option_checks import check_unused
from reelwright.models.systems.cast.blocks import Adapter

SINGLE = "classes"  # name of the only head
_USUAL = {"verb": "time", "noun": "space"}


class CastHead(nn.Module):
    """Last norms of both experts, and linear layers."""

    def __init__(
        self, norms: Mapping[str, nn.Module], width: int, *, sizes: Sequence[tuple[str, int]], options: CastOptions
    ) -> None:
        """`norms` of space and time; `sizes`: name and number of classes of each head, a single one of any name.

        Raises ValueError for heads of which `options.heads_from` does not say who answers.
        """
        super().__init__()
        self.space_norm, self.time_norm = norms["space"], norms["time"]
        self.fusion = options.fusion
        named = dict(sizes) if len(sizes) > 1 else {SINGLE: sizes[0][1]}
        self.reads = _readers(named, options)
        is_single = len(named) == 1
        if is_single and self.fusion == "own":
            hidden = int(width * options.adapter_ratio)
            self.space_adapter, self.time_adapter = Adapter(width, hidden), Adapter(width, hidden)
        elif not options.adapters:
            check_unused(options, ["adapter_ratio"], because="adapters: false and several heads")
        self.dropout = nn.Dropout(options.head_dropout)
        seen = 2 * width if self.fusion == "concat" else width
        self.heads = nn.ModuleDict({name: nn.Linear(seen, size) for name, size in named.items()})
        initialise(self.heads)
        for parameter in self.heads.parameters():
            parameter.data.mul_(options.init_scale)

    def forward(self, space_BD: Tensor, time_BD: Tensor) -> dict[str, Tensor]:
        """`logits` (B,K), and of several heads also `logits.NAME`; they lie side by side in `logits`."""
        vectors = {"space": self.space_norm(space_BD), "time": self.time_norm(time_BD)}
        if self.fusion == "add":
            vectors["both"] = vectors["space"] + vectors["time"]
        elif self.fusion == "concat":
            vectors["both"] = torch.cat([vectors["space"], vectors["time"]], dim=-1)
        elif SINGLE in self.reads:
            vectors["both"] = self.space_adapter(vectors["space"]) + self.time_adapter(vectors["time"])
        logits = {name: head(self.dropout(vectors[self.reads[name]])) for name, head in self.heads.items()}
        if SINGLE in logits:
            return {"logits": logits[SINGLE]}
        found = {f"logits.{name}": value for name, value in logits.items()}
        return {"logits": torch.cat(list(logits.values()), dim=-1), **found}


def _readers(names: Mapping[str, int], options: CastOptions) -> dict[str, str]:
    """Name of a head -> space, time or both. Raises ValueError as `CastHead`."""
    unknown = [name for name in options.heads_from if name not in names or SINGLE in names]
    if unknown:
        raise ValueError(f"heads_from names {', '.join(unknown)}, but the heads are {', '.join(names)}.")
    if options.fusion != "own" or SINGLE in names:
        return dict.fromkeys(names, "both")
    readers = {**_USUAL, **options.heads_from}
    unsaid = [name for name in names if name not in readers]
    if unsaid:
        raise ValueError(
            f"heads {', '.join(unsaid)} are answered by neither expert; say which in heads_from: "
            f"{{{unsaid[0]}: space}} (or time), or set fusion: add or concat."
        )
    return {name: readers[name] for name in names}
