"""What CAST adds to a block of its experts: adapters, and bottleneck cross-attention between the experts (B-CAST).

Lee et al. 2023 (CAST: Cross-Attention in Space and Time for Video Action Recognition), section 3, and its public code.
Shape letters: B clips, T frames, P prefix tokens (class, register), N places, D features, E features inside the
bottleneck, h heads, L tokens of a window, M windows.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import torch
from timm.layers import Mlp
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import stochastic_depth

from reelwright.models.blocks.init_from import resize_positions
from reelwright.models.clip_options import CastOptions
from reelwright.models.encoders.positions import resize_grid
from reelwright.models.encoders.videomae import initialise
from reelwright.models.systems.cast.experts import EXPERTS, Expert

_NORM_EPS = 1e-6
_MLP_SCALE = 0.5  # on the adapter beside the MLP
_ASKING = {"both": EXPERTS, "t2s": ("space",), "s2t": ("time",)}  # by direction, who is added to


class Adapter(Mlp):  # type: ignore[misc]  # timm has no types
    """fc2(GELU(fc1 x)), 0 at first; who uses it adds x."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__(width, hidden)
        initialise(self)
        nn.init.zeros_(self.fc2.weight)


class CrossAttention(nn.Module):
    """Tokens of one expert ask those of the other in the same window."""

    def __init__(self, width: int, *, heads: int, window: str, grid: tuple[int, int], positions: bool = True) -> None:
        """`window` is time, space or space_time, `grid` (T,N); ValueError where `heads` do not divide the width E."""
        super().__init__()
        if width % heads:
            raise ValueError(f"{heads} heads do not divide the {width} features of the bottleneck.")
        self.heads, self.window = heads, window
        frames, places = grid
        self.frames = frames
        length = {"time": frames, "space": places, "space_time": frames * places}[window]
        if positions:
            for name in ("query_pos", "key_pos"):
                table = torch.randn(length, width) * (width // heads) ** -0.5
                self.register_parameter(name, nn.Parameter(table))
        else:
            self.query_pos = self.key_pos = None
        self.q_bias, self.kv_bias = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.zeros(2 * width))
        self.q, self.kv = nn.Linear(width, width, bias=False), nn.Linear(width, 2 * width, bias=False)
        self.proj = nn.Linear(width, width)
        initialise(self)

    def no_weight_decay(self) -> set[str]:
        """Names of positions."""
        return {"query_pos", "key_pos"}

    def resized_positions(self, values_LE: Tensor, shape: torch.Size) -> Tensor:
        """Positions of a window of another length: along time linearly, on its square grids of places bicubically.

        Of space_time the number of frames must be that of here. Raises ValueError for what cannot be resized so.
        """
        if self.window == "time" and values_LE.shape[1] == shape[1]:
            return resize_positions(values_LE, shape)
        frames = self.frames if self.window == "space_time" else 1
        sides = [math.isqrt(length // frames) for length in (len(values_LE), shape[0])]
        if values_LE.shape[1] != shape[1] or [frames * side**2 for side in sides] != [len(values_LE), shape[0]]:
            raise ValueError(
                f"positions of shape {tuple(values_LE.shape)} cannot be resized to {tuple(shape)}: they must have "
                f"equally many features, and {f'{frames} frames of ' if frames > 1 else ''}square grids of places."
            )
        return resize_grid(values_LE[None], (sides[0], sides[0]), (sides[1], sides[1]))[0]

    def forward(self, asking_BTNE: Tensor, asked_BTNE: Tensor) -> Tensor:
        """(B,T,N,E) of both experts -> what those that ask have seen (B,T,N,E)."""
        asking, asked = self._windows(asking_BTNE), self._windows(asked_BTNE)
        if self.query_pos is not None and self.key_pos is not None:
            asking, asked = asking + self.query_pos, asked + self.key_pos
        q = (
            functional.linear(asking, self.q.weight, self.q_bias)
            .reshape(*asking.shape[:2], self.heads, -1)
            .transpose(1, 2)
        )
        kv = functional.linear(asked, self.kv.weight, self.kv_bias).reshape(*asked.shape[:2], 2, self.heads, -1)
        k, v = kv.permute(2, 0, 3, 1, 4).unbind(0)
        seen_MhLE = functional.scaled_dot_product_attention(q, k, v)
        return self._back(self.proj(seen_MhLE.transpose(1, 2).flatten(2)), asking_BTNE)

    def _windows(self, x_BTNE: Tensor) -> Tensor:
        if self.window == "time":
            return x_BTNE.transpose(1, 2).flatten(0, 1)
        return x_BTNE.flatten(0, 1) if self.window == "space" else x_BTNE.flatten(1, 2)

    def _back(self, x_MLE: Tensor, like_BTNE: Tensor) -> Tensor:
        batch, frames, places, _ = like_BTNE.shape
        if self.window == "time":
            return x_MLE.reshape(batch, places, frames, -1).transpose(1, 2)
        return x_MLE.reshape(batch, frames, places, -1)


class Exchange(nn.Module):
    """B-CAST: both experts' tokens, narrowed and normalised, ask each other at the same time and are widened again.

    Prefix tokens are not asked and do not ask: theirs pass on as they are, and are widened too.
    """

    def __init__(
        self,
        width: int,
        *,
        bottleneck: float,
        heads: int,
        windows: Mapping[str, str],
        grid: tuple[int, int],
        positions: bool = True,
        eps: float = _NORM_EPS,
    ) -> None:
        """`windows`: space (the spatial expert asks), time, or both -> the window that is seen. `grid` is (T,N)."""
        super().__init__()
        narrow = int(width * bottleneck)
        if narrow < 1:
            raise ValueError(f"bottleneck {bottleneck} of {width} features leaves none.")
        names = ("space", "time")
        self.down = nn.ModuleDict({name: nn.Linear(width, narrow) for name in names})
        self.norm = nn.ModuleDict({name: nn.LayerNorm(narrow, eps=eps) for name in names})
        self.cross = nn.ModuleDict(
            {
                name: CrossAttention(narrow, heads=heads, window=window, grid=grid, positions=positions)
                for name, window in windows.items()
            }
        )
        self.up = nn.ModuleDict({name: nn.Linear(narrow, width) for name in windows})
        initialise(self.down)
        initialise(self.up)
        for name in self.up:
            nn.init.zeros_(self.up.get_parameter(f"{name}.weight"))

    def unseen(self, seen: Collection[str]) -> list[nn.Module]:
        """What changes nothing of the streams of ``seen``."""
        asking = [name for name in self.up if name not in seen]
        return (
            [self] if len(asking) == len(self.up) else [part[name] for part in (self.cross, self.up) for name in asking]
        )

    def forward(self, streams: Mapping[str, Tensor], prefixes: Mapping[str, int]) -> dict[str, Tensor]:
        """Streams (B,T,P+N,D) by expert, and P of each -> what is added to those that ask."""
        narrow = {name: self.norm[name](self.down[name](stream)) for name, stream in streams.items()}
        places = {name: x[:, :, prefixes[name] :] for name, x in narrow.items()}
        found = {}
        for name, cross in self.cross.items():
            seen = cross(places[name], places["time" if name == "space" else "space"])
            whole = torch.cat([narrow[name][:, :, : prefixes[name]], seen], dim=2)
            found[name] = self.up[name](functional.gelu(whole))
        return found


class Lateral(nn.Module):
    """In place of B-CAST: a linear layer, 0 at first, of the other expert's token at the same place and time."""

    def __init__(self, width: int, *, names: tuple[str, ...]) -> None:
        """`names` of the experts that something is added to."""
        super().__init__()
        self.up = nn.ModuleDict({name: nn.Linear(width, width) for name in names})
        for parameter in self.up.parameters():
            nn.init.zeros_(parameter)

    def unseen(self, seen: Collection[str]) -> list[nn.Module]:
        """As of `Exchange`."""
        return [layer for name, layer in self.up.items() if name not in seen]

    def forward(self, streams: Mapping[str, Tensor], prefixes: Mapping[str, int]) -> dict[str, Tensor]:
        """As of `Exchange`; nothing is added to prefix tokens."""
        found = {}
        for name, layer in self.up.items():
            other = "time" if name == "space" else "space"
            added = layer(streams[other][:, :, prefixes[other] :])
            found[name] = functional.pad(added, (0, 0, prefixes[name], 0))
        return found


def dropped(x_B: Tensor, rate: float, *, training: bool) -> Tensor:
    """`x_B` with whole clips set to 0 at `rate`, the others scaled up (stochastic depth)."""
    result: Tensor = stochastic_depth(x_B, rate, mode="row", training=training)
    return result


class CastBlock(nn.Module):
    """What is added to one block of both experts."""

    def __init__(self, experts: Mapping[str, Expert], options: CastOptions, *, exchanges: bool, rate: float) -> None:
        """`rate` is that of stochastic depth."""
        super().__init__()
        space, hidden = experts["space"], int(experts["space"].width * options.adapter_ratio)
        self.rate = rate
        kinds = ("attention", "mlp") if options.adapters else ()
        self.adapters = nn.ModuleDict(
            {f"{name}_{kind}": Adapter(space.width, hidden) for kind in kinds for name in EXPERTS}
        )
        asking = _ASKING[options.direction]
        self.exchange: Exchange | Lateral | None = None
        if exchanges and options.exchange == "lateral":
            self.exchange = Lateral(space.width, names=asking)
        elif exchanges:
            windows = {"space": options.t2s_window, "time": options.s2t_window}
            self.exchange = Exchange(
                space.width,
                bottleneck=options.bottleneck,
                heads=space.num_heads,
                windows={name: windows[name] for name in asking},
                grid=(space.grid[0], space.grid[1] * space.grid[2]),
                positions=options.positions,
            )

    def forward(self, experts: Mapping[str, Expert], index: int, streams: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Streams that enter block `index` of the experts -> those that leave it."""
        found = dict(streams)
        for name, expert in experts.items():
            seen = expert.attended(index, found[name])
            found[name] = found[name] + (seen + self._adapted(f"{name}_attention", seen) if self.adapters else seen)
        if self.exchange is not None:
            frames = {name: expert.frames(found[name]) for name, expert in experts.items()}
            added = self.exchange(frames, {name: expert.num_prefix for name, expert in experts.items()})
            for name, value in added.items():
                found[name] = found[name] + experts[name].stream(dropped(value, self.rate, training=self.training))
        for name, expert in experts.items():
            normed = expert.normed(index, found[name])
            change = expert.transformed(index, normed)
            if self.adapters:
                beside = expert.frames(_MLP_SCALE * self._adapted(f"{name}_mlp", normed))
                change = change + expert.stream(dropped(beside, self.rate, training=self.training))
            found[name] = found[name] + change
        return found

    def half_of(self, names: Collection[str], kind: str) -> list[nn.Module]:
        """The adapters of these experts that are of its attention or its MLP (`kind`)."""
        return [self.adapters[f"{name}_{kind}"] for name in names if f"{name}_{kind}" in self.adapters]

    def _adapted(self, name: str, x: Tensor) -> Tensor:
        result: Tensor = self.adapters[name](x)
        return result
