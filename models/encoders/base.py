"""What every encoder shares: the preprocessing it wants, the names of its outputs, and the base class.

Shape letters: B batch, C channels, T time, H height, W width, N positions (tokens), D features, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TypeVar

import torch
from torch import Tensor, nn

from reelwright.models.encoders.outputs import INPUT, OutputName

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Options = TypeVar("Options", bound="DataclassInstance")
KINETICS_CLASSES = 400
CROPS = ("center", "squash", "border", "cover")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
RESIZERS = ("pillow", "torch")


@dataclass(frozen=True)
class DataConfig:
    """The preprocessing a model was made for; frames enter as RGB in [0, 1]."""

    size: tuple[int, int]
    # (H, W) in pixels of what the model is fed.
    resize: int | tuple[int, int]
    # Pixels. int: the short side, ratio kept. (H, W): read according to `crop`.
    interpolation: str
    # One of INTERPOLATIONS.
    antialias: bool
    # True for timm (Pillow resizes with antialiasing), False for torchvision's video presets.
    crop: str
    # center: resize (an (H, W) is met exactly, ratio lost), then cut `size` from the middle.
    # squash: resize to `size` exactly, ratio lost, nothing cut.
    # border: fit inside `resize` with the ratio kept, then cut or pad with `mean` to `size`.
    # cover: cover `resize` with the ratio kept, then cut `size` from the middle (timm's `center` of non-square models).
    mean: tuple[float, float, float]
    # Of [0, 1] RGB; x = (rgb - mean) / std.
    std: tuple[float, float, float]
    clip_length: int = 1
    # Frames per row; 1 for image encoders.
    resize_with: str = "pillow"
    # What makes an antialiased resize, one of RESIZERS: Pillow, as timm does, or torch's kernels for bytes.

    def __post_init__(self) -> None:
        """Refuse what no preprocessing could carry out."""
        _check_choice("crop", self.crop, CROPS)
        _check_choice("interpolation", self.interpolation, INTERPOLATIONS)
        _check_choice("resize_with", self.resize_with, RESIZERS)
        if self.resize_with == "torch" and self.interpolation not in {"bilinear", "bicubic"}:
            message = f"resize_with torch knows bilinear and bicubic, not {self.interpolation}; set one, or pillow."
            raise ValueError(message)
        if min(self.size) < 1 or self.clip_length < 1 or min(self.std) <= 0:
            message = f"size {self.size}, clip_length {self.clip_length} and std {self.std} must all be positive."
            raise ValueError(message)


def _check_choice(what: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ValueError(f"{what} {value!r} is not known; allowed: {', '.join(allowed)}.")


def resolve_layer(output: OutputName, num_layers: int, *, encoder: str) -> int:
    """Index from 0 of the layer that `output` names; ValueError outside [-num_layers, num_layers).

    Of what enters block K of a transformer it is that of the layer before, K - 1: -1 is what enters the first.
    """
    layer = output.layer
    assert layer is not None
    if output.form == INPUT:
        if not -num_layers <= layer <= num_layers:
            message = f"output {output.name!r}: {encoder} has {num_layers} blocks; allowed: block0.input to "
            message += f"block{num_layers}.input (behind the last), or block-{num_layers}.input to block-1.input."
            raise ValueError(message)
        return (layer + num_layers if layer < 0 else layer) - 1
    if not -num_layers <= layer < num_layers:
        raise ValueError(
            f"output {output.name!r}: {encoder} has {num_layers} layers; "
            f"allowed: layer0 to layer{num_layers - 1}, or layer-{num_layers} to layer-1."
        )
    return layer % num_layers


def refuse_form(output: OutputName, *, encoder: str, why: str, instead: str) -> NoReturn:
    """Raise the ValueError for a form that this encoder cannot give."""
    raise ValueError(f"output {output.name!r} cannot be had from {encoder}: {why}; ask for {instead}.")


@dataclass(frozen=True, kw_only=True)
class EncoderRequest:
    """What is asked of a library of encoders; see `build_encoder`."""

    name: str  # without the library's
    outputs: Sequence[str]
    pretrained: bool = False
    model_args: Mapping[str, object] = field(default_factory=dict)
    num_classes: int | None = None

    def arguments(self) -> tuple[dict[str, Any], int | None]:
        """`model_args` without `num_classes`, and the classes that both say; ValueError when they disagree."""
        arguments: dict[str, Any] = dict(self.model_args)
        given = arguments.pop("num_classes", None)
        if given is not None and self.num_classes is not None and given != self.num_classes:
            raise ValueError(f"num_classes is {self.num_classes} but model_args says {given}; give it once.")
        return arguments, self.num_classes if given is None else int(given)


def sized_options(request: EncoderRequest, sizes: Mapping[str, Options], *, whose: str) -> tuple[Options, int]:
    """Options of a size of one of our own networks, with `model_args` in place of its own, and its classes.

    Without a number of classes there are Kinetics' for the output `logits`, else none (0). ValueError for `pretrained`
    (`whose` says whose file the weights come from), for an option that there is not, and values out of range.
    """
    name = request.name
    if request.pretrained:
        raise ValueError(f"{name} has no weights to fetch; give {whose} file as weights, or set weights: none.")
    arguments, classes = request.arguments()
    if classes is None:
        classes = KINETICS_CLASSES if "logits" in request.outputs else 0
    try:
        return replace(sizes[name], **arguments), classes
    except TypeError as error:
        allowed = ", ".join(entry.name for entry in fields(sizes[name]))
        raise ValueError(f"{name} does not take model_args {arguments}: {error}; allowed: {allowed}.") from error


class Encoder(nn.Module):
    """A frozen-shape feature extractor: one forward pass, one tensor per output asked for.

    `model` is the bare timm or torchvision model, so its state dict has the names that published weights have.
    `kind` is `image` (input BCHW) or `video` (input BCTHW); the input is normalised as `data_config` says.
    """

    kind: str
    data_config: DataConfig
    outputs: tuple[str, ...]
    model: nn.Module
    is_reentrant: bool = False  # whether passes may run side by side in threads: `forward` keeps nothing on a module
    takes_mask: ClassVar[bool] = False  # whether `forward` takes a mask (B,T) of clips, False at padding, behind x

    def public_names(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`state` with the names of `model`, where the public code of the network has others."""
        return dict(state)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Tensors by output name, in the order asked: pooled (B,D), tokens (B,N,D), map (B,C,[T,]H,W), logits (B,K)."""
        raise NotImplementedError


def zero_input(encoder: Encoder) -> Tensor:
    """One row of zeros in the shape `encoder` is fed: (1,3,H,W) for images, (1,3,T,H,W) for clips, float32."""
    height, width = encoder.data_config.size
    clip = (encoder.data_config.clip_length,) if encoder.kind == "video" else ()
    parameter = next(encoder.parameters())
    return torch.zeros(1, 3, *clip, height, width, device=parameter.device, dtype=parameter.dtype)
