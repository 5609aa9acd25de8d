"""Image encoders from timm: build by name, read the preprocessing, give any of the outputs in one forward pass.

Shape letters: B batch, C channels, H height, W width, N positions (tokens), D features, K classes.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import timm
import timm.data
import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from reelwright.models.encoders.base import DataConfig, Encoder, EncoderRequest, refuse_form, resolve_layer
from reelwright.models.encoders.outputs import INPUT, OutputName, parse_outputs

_Layer = tuple[Tensor, Tensor | None]  # map_BCHW and, where the model has them, its prefix tokens_BND


def is_known_timm_name(name: str) -> bool:
    """Whether `NAME` or `NAME.TAG` is a timm model (and TAG one of its published weights)."""
    base, _, tag = name.partition(".")
    return timm.is_model(base) and (not tag or name in timm.list_pretrained(base))


def known_timm_names() -> list[str]:
    """All names that `is_known_timm_name` accepts, tags included."""
    return [*timm.list_models(), *timm.list_pretrained()]


def build_timm(request: EncoderRequest) -> TimmEncoder:
    """Create a timm model (`NAME[.TAG]` or `hf-hub:org/name`); ValueError for arguments it does not take.

    The classifier is left out unless `logits` is asked for, `num_classes` is given, or `model_args` says otherwise.
    """
    size = overridden_size(request.model_args)
    return TimmEncoder(create_timm(request), name=request.name, outputs=request.outputs, input_size=size)


def create_timm(request: EncoderRequest) -> nn.Module:
    """The bare model that `build_timm` wraps."""
    arguments, wanted_classes = request.arguments()
    if wanted_classes is None and "logits" not in request.outputs:
        wanted_classes = 0
    if wanted_classes is not None:
        arguments["num_classes"] = wanted_classes
    try:
        model: nn.Module = timm.create_model(request.name, pretrained=request.pretrained, **arguments)
    except TypeError as error:
        message = f"timm model {request.name!r} does not take model_args {request.model_args}: {error}."
        raise ValueError(message) from error
    return model


def overridden_size(arguments: Mapping[str, Any]) -> tuple[int, int] | None:
    """(H, W) in pixels of a model made with `img_size`, else None."""
    size = arguments.get("img_size")
    if size is None:
        return None
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)


def timm_data_config(model: nn.Module, *, input_size: tuple[int, int] | None = None) -> DataConfig:
    """The preprocessing of timm's own evaluation transform (`timm.data.transforms_factory.transforms_imagenet_eval`).

    `input_size` (H, W) in pixels replaces the size in the model's config (for models made with `img_size`).
    """
    override = None if input_size is None else {"input_size": (3, *input_size)}
    config = timm.data.resolve_model_data_config(model, args=override)
    height, width = config["input_size"][1:]
    crop, resize = _timm_resize((height, width), crop_pct=config["crop_pct"], crop_mode=config["crop_mode"])
    return DataConfig(
        size=(height, width),
        resize=resize,
        interpolation=config["interpolation"],
        antialias=True,
        crop=crop,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )


def _timm_resize(size: tuple[int, int], *, crop_pct: float, crop_mode: str) -> tuple[str, int | tuple[int, int]]:
    height, width = (math.floor(pixels / crop_pct) for pixels in size)
    if crop_mode == "squash":
        # Ours cuts nothing; timm's with crop_pct < 1 resizes exactly and then cuts, which is `center` with (H, W).
        return ("squash" if (height, width) == size else "center"), (height, width)
    if crop_mode == "border":
        return "border", (height, width)
    return ("center", height) if height == width else ("cover", (height, width))


class TimmEncoder(Encoder):
    """An image encoder: x_BCHW -> one tensor per output.

    Layers are those of timm's `forward_intermediates`: transformer blocks, or the stages of a hierarchical model
    (where the stem counts, it is layer 0). A layer's map and pooled leave prefix tokens (class, register) out; its
    tokens have them in front where timm returns them. The last features (`tokens`, `map`, `pooled`) have had the final
    norm, those of a layer have not. What enters block K of a vision transformer (`blockK.input`) is all tokens.
    """

    kind = "image"

    is_reentrant = True

    def __init__(
        self, model: nn.Module, *, name: str, outputs: Sequence[str], input_size: tuple[int, int] | None = None
    ) -> None:
        """Wrap `model`; ValueError when an output is unknown or not to be had from it."""
        super().__init__()
        self.model = model
        self.name = name
        self.data_config = timm_data_config(model, input_size=input_size)
        self.outputs = tuple(outputs)
        self._parsed = parse_outputs(outputs)
        self._layers = self._resolve_layers()
        steps = getattr(model, "forward_intermediates", None)
        self._gives_prefix = steps is not None and "return_prefix_tokens" in inspect.signature(steps).parameters
        if "logits" in self.outputs and not getattr(model, "num_classes", 0):
            raise ValueError(f"output 'logits' needs a classifier, but {name} has none; give num_classes > 0.")

    def _resolve_layers(self) -> dict[str, int]:
        named = [output for output in self._parsed if output.layer is not None]
        if named and not hasattr(self.model, "forward_intermediates"):
            refuse_form(named[0], encoder=self.name, why="timm gives no layers for it", instead="pooled, tokens or map")
        for output in named:
            if output.form == INPUT and not isinstance(self.model, VisionTransformer | Eva):
                refuse_form(
                    output, encoder=self.name, why="it is no vision transformer of timm's", instead="layerK.map"
                )
        return {output.name: resolve_layer(output, len(self._feature_info()), encoder=self.name) for output in named}

    def _feature_info(self) -> Sequence[object]:
        # timm keeps it as a plain list or as its FeatureInfo class, whose entries are in `.info`.
        info = getattr(self.model, "feature_info", [])
        entries: Sequence[object] = getattr(info, "info", info)
        return entries

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """x_BCHW normalised -> pooled (B,D), tokens (B,N,D), map (B,C,H,W), logits (B,K), by output name."""
        features, layers = self._run(x)
        return {output.name: self._form(output, x, features, layers) for output in self._parsed}

    def of_clips(self, found: Mapping[str, Tensor], *, num_clips: int) -> dict[str, Tensor]:
        """Outputs of the frames of clips, clip after clip, as outputs of clips (B, ...).

        `pooled` and `logits` are means over frames, `map` is (B,C,T,H,W); tokens lie one behind the other (B,T*N,D).
        """
        clips = {}
        for output in self._parsed:
            value = found[output.name]
            value_BT = value.reshape(num_clips, -1, *value.shape[1:])
            is_mean, is_map = output.form in ("pooled", "logits"), output.form == "map"
            clips[output.name] = (
                value_BT.mean(dim=1) if is_mean else value_BT.transpose(1, 2) if is_map else value_BT.flatten(1, 2)
            )
        return clips

    def _run(self, x_BCHW: Tensor) -> tuple[Tensor | None, dict[int, _Layer]]:
        model: Any = self.model
        if not self._layers:
            return model.forward_features(x_BCHW), {}
        wanted = sorted({layer for layer in self._layers.values() if layer >= 0})
        only_layers = len(self._layers) == len(self._parsed)
        if only_layers and not wanted:
            return None, {}
        arguments: dict[str, Any] = {"intermediates_only": only_layers, "stop_early": only_layers}
        if self._gives_prefix:
            arguments["return_prefix_tokens"] = True
        result = model.forward_intermediates(x_BCHW, indices=wanted, **arguments)
        features, found = (None, result) if only_layers else result
        pairs = [entry if isinstance(entry, tuple) else (entry, None) for entry in found]
        return features, dict(zip(wanted, pairs, strict=True))

    def _form(self, output: OutputName, x: Tensor, features: Tensor | None, layers: dict[int, _Layer]) -> Tensor:
        if output.layer is not None:
            layer = self._layers[output.name]
            return enter_transformer(self.model, x) if layer < 0 else _layer_form(output.form, *layers[layer])
        if output.form in ("pooled", "logits"):
            model: Any = self.model
            result: Tensor = model.forward_head(features, pre_logits=output.form == "pooled")
            return result
        if not isinstance(features, Tensor):
            # CrossViT, for one, has two token sequences.
            why = f"its features are a {type(features).__name__} of tensors"
            refuse_form(output, encoder=self.name, why=why, instead="pooled")
        if output.form != "tokens":
            return self._map(output, x, features)
        return features if features.ndim == 3 else self._map(output, features, features).flatten(2).transpose(1, 2)

    def _map(self, output: OutputName, x: Tensor, features: Tensor) -> Tensor:
        if features.ndim == 4:
            is_channels_last = getattr(self.model, "output_fmt", "NCHW") == "NHWC"
            return features.permute(0, 3, 1, 2) if is_channels_last else features
        if features.ndim != 3:
            why = f"its features have shape {tuple(features.shape)}"
            refuse_form(output, encoder=self.name, why=why, instead="pooled")
        patches_BND = features[:, int(getattr(self.model, "num_prefix_tokens", 0)) :]
        grid = self._grid(x.shape[-2], x.shape[-1], patches_BND.shape[1])
        if grid is None:
            why = f"its {patches_BND.shape[1]} tokens form no grid over {tuple(x.shape[-2:])} pixels"
            refuse_form(output, encoder=self.name, why=why, instead="tokens")
        return patches_BND.transpose(1, 2).reshape(len(features), -1, *grid)

    def public_names(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """OpenAI's CLIP with timm's names, its text encoder left out, and positions of another grid resized.

        Any other state stays as it is.
        """
        if not isinstance(self.model, VisionTransformer):
            return dict(state)
        own, given = self.model.pos_embed, state.get("pos_embed")
        is_resized = (
            own is not None and given is not None and own.shape != given.shape and own.shape[-1] == given.shape[-1]
        )
        is_converted = is_resized or "visual.class_embedding" in state
        return dict(checkpoint_filter_fn(dict(state), self.model) if is_converted else state)

    def _grid(self, height: int, width: int, num_patches: int) -> tuple[int, int] | None:
        """(rows, columns) of the patch grid, or None when `num_patches` does not fit the picture."""
        patch_embed: Any = getattr(self.model, "patch_embed", None)
        if hasattr(patch_embed, "dynamic_feat_size"):
            rows, columns = patch_embed.dynamic_feat_size((height, width))
        else:
            rows = round(math.sqrt(num_patches * height / width))
            columns = num_patches // max(rows, 1)
        return (rows, columns) if rows * columns == num_patches else None


def enter_transformer(model: Any, x_BCHW: Tensor) -> Tensor:
    """The tokens (B,N,D), prefix tokens in front, that enter the first block of timm's VisionTransformer or Eva."""
    positioned = model._pos_embed(model.patch_embed(x_BCHW))  # noqa: SLF001 - timm has no public name for it
    tokens: Tensor = model.norm_pre(positioned[0] if isinstance(model, Eva) else model.patch_drop(positioned))
    return tokens


def _layer_form(form: str, map_BCHW: Tensor, prefix_BND: Tensor | None) -> Tensor:
    if form == "map":
        return map_BCHW
    positions_BND = map_BCHW.flatten(2).transpose(1, 2)
    if form == "pooled":
        return positions_BND.mean(dim=1)
    return positions_BND if prefix_BND is None else torch.cat([prefix_BND, positions_BND], dim=1)
