"""The parts of CARL's frame models: the ResNet, split in two, and the embedder behind it.

    frames -> [stem, layer1, ..., layer `split`] -> maps, which can be stored -> [the layers behind it] -> map
                        base, shared or stored                                      tuned

Embedders: transformer, convolutions with contexts, or each step by itself. Chen et al. 2022, section 3 (frame-level
video encoder); sizes as in the public code. All take only steps that are real, so that padding is seen by no batch norm
either.

Shape letters: B batch, T steps of a window, N real steps of the batch, S contexts of a step, D features, C channels,
H height, W width (of maps, or features inside the transformer in x_BTW), E embedding size.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional

from reelwright.models.blocks.weights import load_weights
from reelwright.models.contracts import Part, is_unpadded, put_rows, real_rows
from reelwright.models.systems.carl_options import CarlOptions, ConvOptions, FrameModelOptions

_STEM = ("conv1", "bn1")
_LAST = 4  # layers of a ResNet


class SplitResnet(nn.Module):
    """`base` and `tuned` of a ResNet; either can be absent, and its entries are named as torchvision and timm do."""

    def __init__(self, options: FrameModelOptions, *, is_tuned: bool = True) -> None:
        """With source maps there is no base; without `is_tuned`, or with split null, nothing behind it."""
        super().__init__()
        import torchvision  # here, since it takes a second and stored rows need none of it

        whole = getattr(torchvision.models, options.network)(weights=None)
        split = options.split or _LAST
        base = [*_STEM, *(f"layer{number}" for number in range(1, split + 1))] if options.source == "frames" else []
        tuned = [f"layer{number}" for number in range(split + 1, _LAST + 1)] if is_tuned else []
        self.base = nn.ModuleDict({name: getattr(whole, name) for name in base})
        self.tuned = nn.ModuleDict({name: getattr(whole, name) for name in tuned})
        self.states = {"base": options.base, "tuned": options.tuned}
        self._frames_per_call = options.frames_per_call
        for name, state in self.states.items():
            self.get_submodule(name).requires_grad_(state != "frozen")

    def parts(self) -> dict[str, Part]:
        """The parts that are there; each stem or layer of the ResNet is a layer."""
        found = {}
        for part, state in self.states.items():
            modules = self.get_submodule(part)
            layers = {name: _number(name) for name, _ in modules.named_parameters()}
            first = min(layers.values(), default=0)
            if layers:
                counted = {name: layer - first for name, layer in layers.items()}
                found[part] = Part(state=state, layers=counted)  # type: ignore[arg-type]  # options have checked it
        return found

    def load_resnet(self, state: Mapping[str, Tensor]) -> None:
        """Weights of the whole ResNet in the layout of torchvision and timm; what is not in the model is left out.

        Raises ValueError when an entry of the model is missing or has another shape.
        """
        for modules in (self.base, self.tuned):
            assert isinstance(modules, nn.ModuleDict)
            wanted = {name: value for name, value in state.items() if name.split(".")[0] in modules}
            if len(modules):
                load_weights(modules, wanted)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Normalised frames (N,3,H,W), or without a base maps (N,C,H,W) of layer `split` -> the last map (N,C,H,W)."""
        return self._tune(self._base(x_NCHW))

    def _base(self, x_NCHW: Tensor) -> Tensor:
        parameters = list(self.base.parameters())
        if not parameters or any(parameter.requires_grad for parameter in parameters):
            return self._run_base(x_NCHW)
        # Frozen: without gradient, norms with their own statistics whatever the mode, so that calls can be small.
        self.base.eval()
        with torch.no_grad():
            return torch.cat([self._run_base(part) for part in torch.split(x_NCHW, self._frames_per_call)])

    def _run_base(self, x_NCHW: Tensor) -> Tensor:
        assert isinstance(self.base, nn.ModuleDict)
        for name, layer in self.base.items():
            x_NCHW = layer(x_NCHW)
            if name == "bn1":
                x_NCHW = functional.max_pool2d(functional.relu(x_NCHW), kernel_size=3, stride=2, padding=1)
        return x_NCHW

    def _tune(self, x_NCHW: Tensor) -> Tensor:
        assert isinstance(self.tuned, nn.ModuleDict)
        for layer in self.tuned.values():
            x_NCHW = layer(x_NCHW)
        return x_NCHW


def _number(name: str) -> int:
    """0 of the stem, k of layer k."""
    head = name.partition(".")[0]
    return 0 if head in _STEM else int(head.removeprefix("layer"))


def sine_positions(positions_BT: Tensor, width: int) -> Tensor:
    """(B,T,width) float64 of positions in steps: sines in the even columns, cosines in the odd ones.

    The rate of column c is 10000**(-c/width). Vaswani et al. 2017, section 3.5, has one rate for each pair of columns;
    CARL's public code, like this, one for each column.
    """
    column = torch.arange(width, device=positions_BT.device, dtype=torch.float64)
    angle_BTW = positions_BT.to(torch.float64)[..., None] / 10000.0 ** (column / width)
    return torch.where(column % 2 == 0, angle_BTW.sin(), angle_BTW.cos())


def stretched_positions(mask_BT: Tensor, length: int) -> Tensor:
    """(B,T) float64 positions of windows in a model that is trained on windows of `length` steps.

    A window of `length` steps has 0, 1, ..., length - 1, wherever its real steps are. In windows of another length the
    first real step is at 0 and the last at length - 1, so that padding behind or before them changes nothing:

        length 3, mask 1 1 1 1 1 -> 0 0.5 1 1.5 2        mask 0 1 1 1 0 0 -> . 0 1 2 . .
    """
    place_T = torch.arange(mask_BT.shape[1], device=mask_BT.device, dtype=torch.float64)
    if len(place_T) == length:
        return place_T.expand(len(mask_BT), -1)
    first_B1 = torch.where(mask_BT, place_T, torch.inf).amin(dim=1, keepdim=True)
    last_B1 = torch.where(mask_BT, place_T, -torch.inf).amax(dim=1, keepdim=True)
    steps_B1 = (last_B1 - first_B1).clamp(min=1)
    positions_BT = (place_T - first_B1) * (length - 1) / steps_B1
    return torch.where(mask_BT, positions_BT, 0.0)


class EncoderLayer(nn.Module):
    """x + dropout(attention(norm(x))), then x + dropout(mlp(norm(x))); no dropout inside either. Xavier-uniform."""

    def __init__(self, width: int, *, heads: int, mlp_width: int, dropout: float) -> None:
        """`width` is a multiple of `heads`."""
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.mlp = nn.Sequential(nn.Linear(width, mlp_width), nn.ReLU(), nn.Linear(mlp_width, width))
        self.dropout = nn.Dropout(dropout)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, x_BTW: Tensor, seen_B11T: Tensor | None) -> Tensor:
        """`seen_B11T` (bool) is True at the steps that all others see, at least one in each window; None: all."""
        x_BTW = x_BTW + self.dropout(self._attend(self.norm_attention(x_BTW), seen_B11T))
        out_BTW: Tensor = x_BTW + self.dropout(self.mlp(self.norm_mlp(x_BTW)))
        return out_BTW

    def _attend(self, x_BTW: Tensor, seen_B11T: Tensor | None) -> Tensor:
        query, key, value = (
            layer(x_BTW).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=seen_B11T)
        out_BTW: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out_BTW


class TransformerEmbedder(nn.Module):
    """Fully connected layers with batch norms, linear, sine positions, encoder layers without a last norm, linear."""

    def __init__(self, options: CarlOptions, *, input_dim: int, length: int) -> None:
        """`input_dim` is D, `length` the steps of the windows that it is trained on."""
        super().__init__()
        self.length, self.width = length, options.width
        self.fc = _fully_connected(options, input_dim, has_norms=True)
        self.project = nn.Linear(options.hidden, options.width)
        self.dropout = nn.Dropout(options.dropout)
        self.layers = nn.ModuleList(
            EncoderLayer(options.width, heads=options.heads, mlp_width=options.mlp_width, dropout=options.dropout)
            for _ in range(options.layers)
        )
        if options.equal_layers:
            self.layers = nn.ModuleList(deepcopy(self.layers[0]) for _ in self.layers)
        self.embed = nn.Linear(options.width, options.embed_dim)

    def forward(self, x_ND: Tensor, mask_BT: Tensor, positions_BT: Tensor | None) -> Tensor:
        """Real steps (N,D), in the order of `mask_BT` -> (N,E). `positions_BT` None: see stretched_positions."""
        rows_NW = self.project(self.fc(x_ND))
        if positions_BT is None:
            positions_BT = stretched_positions(mask_BT, self.length)
        x_BTW = put_rows(rows_NW, mask_BT)
        x_BTW = self.dropout(x_BTW + sine_positions(positions_BT, self.width).to(x_BTW.dtype))
        seen_BT = mask_BT | ~mask_BT.any(dim=1, keepdim=True)  # attention over nothing is NaN
        seen_B11T = None if is_unpadded(mask_BT) else seen_BT[:, None, None]
        for layer in self.layers:
            x_BTW = layer(x_BTW, seen_B11T)
        out_NE: Tensor = self.embed(real_rows(x_BTW, mask_BT))
        return out_NE


class ConvEmbedder(nn.Module):
    """3-D convolutions over a step's contexts (padded in time, not in space), global maximum, fully connected."""

    def __init__(self, options: ConvOptions, *, channels: int) -> None:
        """`channels` is C of the maps."""
        super().__init__()
        layers: list[nn.Module] = []
        for number in range(options.conv_layers):
            given = options.conv_width if number else channels
            layers += [
                nn.Conv3d(given, options.conv_width, kernel_size=3, padding=(1, 0, 0)),
                nn.BatchNorm3d(options.conv_width),
                nn.ReLU(),
            ]
        self.conv = nn.Sequential(*layers)
        self.shrinks_by = 2 * options.conv_layers
        self.fc = _fully_connected(options, options.conv_width, has_norms=False)
        self.embed = nn.Linear(options.hidden, options.embed_dim)

    def forward(self, x_NSCHW: Tensor) -> Tensor:
        """Maps (N,S,C,H,W) -> (N,E). Raises ValueError for maps that the convolutions leave nothing of."""
        if min(x_NSCHW.shape[-2:]) <= self.shrinks_by:
            size = " x ".join(map(str, x_NSCHW.shape[-2:]))
            raise ValueError(
                f"maps of {size} are too small: the convolutions take {self.shrinks_by} off height and width. Use "
                "larger pictures, an earlier layer, or fewer conv_layers."
            )
        maps_NCSHW = self.conv(x_NSCHW.transpose(1, 2))
        out_NE: Tensor = self.embed(self.fc(maps_NCSHW.flatten(2).amax(dim=2)))
        return out_NE


class VanillaEmbedder(nn.Module):
    """Fully connected layers without batch norms on each step."""

    def __init__(self, options: FrameModelOptions, *, input_dim: int) -> None:
        """`input_dim` is D."""
        super().__init__()
        self.fc = _fully_connected(options, input_dim, has_norms=False)
        self.embed = nn.Linear(options.hidden, options.embed_dim)

    def forward(self, x_ND: Tensor) -> Tensor:
        """(N,D) -> (N,E)."""
        out_NE: Tensor = self.embed(self.fc(x_ND))
        return out_NE


def _fully_connected(options: FrameModelOptions, input_dim: int, *, has_norms: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for number in range(options.hidden_layers):
        layers += [
            nn.Dropout(options.dropout),
            nn.Linear(options.hidden if number else input_dim, options.hidden),
            *([nn.BatchNorm1d(options.hidden)] if has_norms else []),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)
