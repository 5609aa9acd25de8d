"""The encoder of a run whose model learnt the last layers of a ResNet behind its map: what these give is a row.

    frame -> encoder of the run -> map of layer `split` -> layers of the model -> maximum over positions: `pooled`

So a row a frame is stored, which the model then embeds (embed of rows), and not a map of hundreds of kilobytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from reelwright.models.blocks.weights import load_weights
from reelwright.models.encoders.base import Encoder
from reelwright.models.systems.carl_embedders import SplitResnet
from reelwright.models.systems.carl_options import FRAME_MODEL_OPTIONS, FrameModelOptions
from reelwright.stages.embed.encoding.weight_files import read_weights
from reelwright.storage.results.runs import RunFolder

POOLED = "pooled"
_PREFIX = "temporal.backbone."  # of the layers in a finetune run


@dataclass(frozen=True)
class LastLayers:
    """What a run has behind the map of its encoder."""

    folder: Path
    options: FrameModelOptions
    map_output: str  # of the encoder, that the layers see

    @classmethod
    def of(cls, folder: Path, outputs: Sequence[str]) -> LastLayers | None:
        """Those that ``outputs`` are of; None where the run has none, or only the encoder's own are asked for."""
        values = RunFolder(folder).config()
        model = values.get("model")
        if POOLED not in outputs or model is None or model["options"].get("source") != "maps":
            return None
        if model["name"] == "conv":  # whose convolutions see maps of several frames
            return None
        return cls(folder, FRAME_MODEL_OPTIONS[model["name"]](**model["options"]), str(values["output"]))

    def base_outputs(self, outputs: Sequence[str]) -> tuple[str, ...]:
        """What the encoder is asked for where ``outputs`` are wanted."""
        return tuple(dict.fromkeys((self.map_output, *(name for name in outputs if name != POOLED))))

    def behind(self, base: Encoder, outputs: Sequence[str]) -> Encoder:
        """The encoder with the layers, in eval mode. Raises ValueError for weights that do not fit."""
        layers = SplitResnet(self.options)
        state = read_weights(self.folder / "model.safetensors")
        load_weights(layers, {name.removeprefix(_PREFIX): state[name] for name in state if name.startswith(_PREFIX)})
        return _LastLayersEncoder(base, layers, map_output=self.map_output, outputs=tuple(outputs)).eval()


class _LastLayersEncoder(Encoder):
    kind = "image"

    def __init__(self, base: Encoder, layers: SplitResnet, *, map_output: str, outputs: tuple[str, ...]) -> None:
        super().__init__()
        self.model = nn.ModuleDict({"base": base, "layers": layers})
        self.data_config, self.outputs, self._map_output = base.data_config, outputs, map_output
        self.is_reentrant = base.is_reentrant

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """See Encoder; pooled (B,D) is the maximum over positions behind the last layer."""
        assert isinstance(self.model, nn.ModuleDict)
        found = self.model["base"](x)
        pooled = self.model["layers"](found[self._map_output]).amax(dim=(2, 3))
        return {name: pooled if name == POOLED else found[name] for name in self.outputs}
