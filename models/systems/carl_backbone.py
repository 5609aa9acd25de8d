"""A ResNet in two parts, as CARL splits it: a base that is shared or stored, and the last layers, which are tuned.

    frames -> [stem, layer1, ..., layer `split`] -> maps, which can be stored -> [the layers behind it] -> map
                        base                                                        tuned

Chen et al. 2022, section 3 (frame-level video encoder). Shape letters: N frames, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from reelwright.models.blocks.weights import load_weights
from reelwright.models.contracts import Part
from reelwright.models.systems.carl_options import FrameModelOptions

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
