"""Video encoders of torchvision, and X3D: build by name, read the preset, give any output in one forward pass.

Each family is run stage by stage with the model's own modules, so that every layer's map can be had from one pass.
Shape letters: B batch, C channels, T time, H height, W width, N positions (tokens), D features, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torchvision.models
from torch import Tensor, nn
from torchvision.models import video as torchvision_video

from reelwright.models.encoders.base import (
    DataConfig,
    Encoder,
    EncoderRequest,
    refuse_form,
    resolve_layer,
    sized_options,
)
from reelwright.models.encoders.outputs import INPUT, OutputName, parse_outputs
from reelwright.models.encoders.x3d import X3D, X3D_SIZES, x3d_data_config

DEFAULT_CLIP_LENGTH = 16  # frames; the presets name no clip length, only the least that does not fail


@dataclass
class Features:
    """What one pass leaves: the last map and tokens, the pooled vector before the classifier, and the layers' maps."""

    map: Tensor
    # BCTHW
    pooled: Tensor
    # BD
    tokens: Tensor | None = None
    # BND; None: the positions of the map.
    layer_maps: dict[int, Tensor] = field(default_factory=dict)
    layer_tokens: dict[int, Tensor] = field(default_factory=dict)
    # Only where a layer has tokens that are not positions of its map (a class token).
    entering: Tensor | None = None
    # BND of a transformer whose tokens stay: what enters block 0.


@dataclass(frozen=True)
class Family:
    """How one family of torchvision video models is taken apart."""

    layers: Callable[[Any], Sequence[nn.Module]]
    run: Callable[[Any, Tensor, set[int]], Features]
    logits: Callable[[Any, Features], Tensor]
    head: str
    # Name of the classifier module, replaced by the identity when no logits are asked for.
    has_block_inputs: bool = False
    # Whether its layers are blocks of a transformer that keep the tokens (`Features.entering`).


def _run_resnet(model: Any, x: Tensor, wanted: set[int]) -> Features:
    x, maps = _run_sequence(_resnet_layers(model), x, wanted)
    return Features(x, model.avgpool(x).flatten(1), layer_maps=maps)


def _resnet_layers(model: Any) -> Sequence[nn.Module]:
    return [model.stem, model.layer1, model.layer2, model.layer3, model.layer4]


def _run_sequence(layers: Sequence[nn.Module], x: Tensor, wanted: set[int]) -> tuple[Tensor, dict[int, Tensor]]:
    maps: dict[int, Tensor] = {}
    for index, layer in enumerate(layers):
        x = layer(x)
        if index in wanted:
            maps[index] = x
    return x, maps


def _run_s3d(model: Any, x: Tensor, wanted: set[int]) -> Features:
    x, maps = _run_sequence(list(model.features), x, wanted)
    # The classifier is a 1x1x1 convolution averaged afterwards; it is linear, so the mean may be taken first.
    return Features(x, model.avgpool(x).mean(dim=(2, 3, 4)), layer_maps=maps)


def _logits_s3d(model: Any, features: Features) -> Tensor:
    logits: Tensor = model.classifier(features.pooled[:, :, None, None, None]).flatten(1)
    return logits


def _run_swin(model: Any, x: Tensor, wanted: set[int]) -> Features:
    x = model.pos_drop(model.patch_embed(x))
    x, maps_BTHWC = _run_sequence(list(model.features), x, wanted)
    map_BCTHW = model.norm(x).permute(0, 4, 1, 2, 3)
    maps = {index: layer.permute(0, 4, 1, 2, 3) for index, layer in maps_BTHWC.items()}
    return Features(map_BCTHW, model.avgpool(map_BCTHW).flatten(1), layer_maps=maps)


def _run_mvit(model: Any, x: Tensor, wanted: set[int]) -> Features:
    expected = (model.pos_encoding.temporal_size, *model.pos_encoding.spatial_size)
    x_BCTHW = model.conv_proj(x)
    if tuple(x_BCTHW.shape[2:]) != expected:
        message = f"this MViT takes clips that give a (T, H, W) grid of {expected}, got {tuple(x_BCTHW.shape[2:])}."
        raise ValueError(message)
    tokens_BND = model.pos_encoding(x_BCTHW.flatten(2).transpose(1, 2))
    grid = expected
    maps: dict[int, Tensor] = {}
    tokens: dict[int, Tensor] = {}
    for index, block in enumerate(model.blocks):
        tokens_BND, grid = block(tokens_BND, grid)
        if index in wanted:
            maps[index], tokens[index] = _grid_map(tokens_BND, grid), tokens_BND
    tokens_BND = model.norm(tokens_BND)
    return Features(_grid_map(tokens_BND, grid), tokens_BND[:, 0], tokens_BND, maps, tokens)


def _grid_map(tokens_BND: Tensor, grid: tuple[int, ...]) -> Tensor:
    return tokens_BND[:, 1:].transpose(1, 2).reshape(len(tokens_BND), -1, *grid)


def _run_x3d(model: Any, x: Tensor, wanted: set[int]) -> Features:
    x, maps = _run_sequence(list(model.blocks)[:-1], x, wanted)
    return Features(x, model.pool(x), layer_maps=maps)


_RESNET = Family(_resnet_layers, _run_resnet, lambda model, features: model.fc(features.pooled), "fc")
_S3D = Family(lambda model: list(model.features), _run_s3d, _logits_s3d, "classifier")
_SWIN = Family(lambda m: list(m.features), _run_swin, lambda model, features: model.head(features.pooled), "head")
_MVIT = Family(lambda model: list(model.blocks), _run_mvit, lambda model, f: model.head(f.pooled), "head")

_X3D = Family(lambda m: list(m.blocks)[:-1], _run_x3d, lambda model, f: model.classify(f.pooled), "blocks.5.proj")

VIDEO_FAMILIES: dict[str, Family] = {
    "r3d_18": _RESNET,
    "mc3_18": _RESNET,
    "r2plus1d_18": _RESNET,
    "s3d": _S3D,
    "mvit_v1_b": _MVIT,
    "mvit_v2_s": _MVIT,
    "swin3d_t": _SWIN,
    "swin3d_s": _SWIN,
    "swin3d_b": _SWIN,
}


def build_video(request: EncoderRequest) -> VideoEncoder:
    """Create a video model of torchvision's; the classifier is left out unless asked for.

    `pretrained` takes the DEFAULT (Kinetics-400) weights. ValueError for arguments the model does not take.
    """
    name, (arguments, wanted_classes) = request.name, request.arguments()
    weights = torchvision.models.get_model_weights(name).DEFAULT
    if wanted_classes:
        arguments["num_classes"] = wanted_classes
    try:
        model = getattr(torchvision_video, name)(weights=weights if request.pretrained else None, **arguments)
    except TypeError as error:
        message = f"torchvision model {name!r} does not take model_args {request.model_args}: {error}."
        raise ValueError(message) from error
    if wanted_classes == 0 or (wanted_classes is None and "logits" not in request.outputs):
        setattr(model, VIDEO_FAMILIES[name].head, nn.Identity())
    return VideoEncoder(model, name=name, outputs=request.outputs)


def video_data_config(name: str) -> DataConfig:
    """The preset of torchvision's DEFAULT weights of `name`, read without downloading them.

    Clips are 16 frames long, more where the weights need it.
    """
    weights = torchvision.models.get_model_weights(name).DEFAULT
    preset = weights.transforms()
    height, width = preset.crop_size
    resize = preset.resize_size
    return DataConfig(
        size=(height, width),
        resize=resize[0] if len(resize) == 1 else (resize[0], resize[1]),
        interpolation=preset.interpolation.value,
        antialias=False,
        crop="center",
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        clip_length=max(DEFAULT_CLIP_LENGTH, weights.meta.get("min_temporal_size", 1)),
    )


def build_x3d(request: EncoderRequest) -> VideoEncoder:
    """Create X3D of a size in X3D_SIZES; `model_args` replace its options.

    ValueError for `pretrained` (weights come from a file), for an option that there is not, and values out of range.
    """
    options, wanted_classes = sized_options(request, X3D_SIZES, whose="pytorchvideo's")
    model, config = X3D(options, num_classes=wanted_classes), x3d_data_config(options)
    return VideoEncoder(model, name=request.name, outputs=request.outputs, family=_X3D, data_config=config)


class VideoEncoder(Encoder):
    """A video encoder: clips x_BCTHW -> one tensor per output.

    Layers are the stem and stages of the ResNets and X3D (0 to 4), the entries of `features` of S3D and Swin3D, and the
    blocks of MViT. A layer's pooled is the mean over the positions of its map.
    """

    kind = "video"

    is_reentrant = True

    def __init__(
        self,
        model: nn.Module,
        *,
        name: str,
        outputs: Sequence[str],
        family: Family | None = None,
        data_config: DataConfig | None = None,
    ) -> None:
        """Wrap `model`, where nothing else is said torchvision's `name`.

        Raises ValueError when an output is unknown or not to be had from it.
        """
        super().__init__()
        self.model = model
        self.name = name
        self.outputs = tuple(outputs)
        self._family = family or VIDEO_FAMILIES[name]
        self.data_config = data_config or video_data_config(name)
        self._parsed = parse_outputs(outputs)
        num_layers = len(self._family.layers(model))
        for output in self._parsed:
            if output.form == INPUT and not self._family.has_block_inputs:
                refuse_form(
                    output, encoder=name, why="its layers are no blocks with equal tokens", instead="layerK.map"
                )
        self._layers = {
            output.name: resolve_layer(output, num_layers, encoder=name)
            for output in self._parsed
            if output.layer is not None
        }
        if "logits" in self.outputs and isinstance(model.get_submodule(self._family.head), nn.Identity):
            raise ValueError(f"output 'logits' needs a classifier, but {name} has none; give num_classes > 0.")

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """x_BCTHW normalised -> pooled (B,D), tokens (B,N,D), map (B,C,T,H,W), logits (B,K), by output name."""
        features = self._family.run(self.model, x, set(self._layers.values()))
        return {output.name: self._form(output, features) for output in self._parsed}

    def _form(self, output: OutputName, features: Features) -> Tensor:
        if output.form == "logits":
            return self._family.logits(self.model, features)
        if output.layer is None:
            return _final_form(output.form, features)
        layer = self._layers[output.name]
        if layer < 0:
            assert features.entering is not None
            return features.entering
        if output.form in ("tokens", INPUT) and layer in features.layer_tokens:
            return features.layer_tokens[layer]
        map_BCTHW = features.layer_maps[layer]
        if output.form == "map":
            return map_BCTHW
        positions_BND = map_BCTHW.flatten(2).transpose(1, 2)
        return positions_BND.mean(dim=1) if output.form == "pooled" else positions_BND


def _final_form(form: str, features: Features) -> Tensor:
    if form == "pooled":
        return features.pooled
    if form == "map":
        return features.map
    if features.tokens is not None:
        return features.tokens
    return torch.transpose(features.map.flatten(2), 1, 2)
