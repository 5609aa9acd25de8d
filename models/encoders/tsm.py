"""TSM: timm's 2-D networks on clips, with channels shifted in time before every residual branch.

Lin et al. 2019 (TSM: Temporal Shift Module for Efficient Video Understanding), sections 3.2 and 4.1; where the shift is
and what the head does as in the public code, whose checkpoints load by name.
Shape letters: B batch, T frames of a clip, N = B * T pictures, C channels, H height, W width, P positions, D features.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import torch
from timm.models._efficientnet_blocks import InvertedResidual
from timm.models.resnet import ResNet
from torch import Tensor, nn

from reelwright.models.encoders.base import EncoderRequest
from reelwright.models.encoders.timm_encoders import TimmEncoder, create_timm, overridden_size

CLIP_LENGTH = 8  # frames; the checkpoints of the paper have 8 or 16
DROPOUT = 0.8
_DEEP = 23  # blocks of layer3 from which on only every other block shifts

_MOBILENET_BLOCKS = (1, 2, 3, 4, 3, 3, 1)
_PLAIN = ("conv_dw", "bn1", "", "conv_pw", "bn2")  # entries of `conv` in a block that does not expand
_EXPANDING = ("conv_pw", "bn1", "", "conv_dw", "bn2", "", "conv_pwl", "bn3")


def temporal_shift(x_NCHW: Tensor, num_frames: int, *, shift_div: int = 8) -> Tensor:
    """Move a part of the channels of pictures (N,C,H,W), the T of a clip side by side, by one frame.

    The first C // shift_div channels come from the next picture of the clip, as many behind them from the one before,
    and are 0 beyond its ends; the rest stays. Raises ValueError where N is no multiple of `num_frames`.
    """
    if len(x_NCHW) % num_frames:
        raise ValueError(f"{len(x_NCHW)} pictures are no clips of {num_frames} frames each.")
    x_BTCHW = x_NCHW.reshape(-1, num_frames, *x_NCHW.shape[1:])
    fold = x_NCHW.shape[1] // shift_div
    later, earlier, kept = torch.split(x_BTCHW, [fold, fold, x_NCHW.shape[1] - 2 * fold], dim=2)
    none = torch.zeros_like(later[:, :1])
    shifted = [torch.cat([later[:, 1:], none], dim=1), torch.cat([none, earlier[:, :-1]], dim=1), kept]
    return torch.cat(shifted, dim=2).flatten(0, 1)


class ShiftedConv2d(nn.Conv2d):
    """A convolution that sees its input shifted in time; its weights are named as those of the convolution."""

    def __init__(self, conv: nn.Conv2d, *, shift_div: int) -> None:
        """Take over the weights of `conv`."""
        assert not isinstance(conv.padding, str)
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            kernel_size=conv.kernel_size,  # type: ignore[arg-type]  # torch says tuple[int, ...]
            stride=conv.stride,  # type: ignore[arg-type]
            padding=conv.padding,  # type: ignore[arg-type]
            dilation=conv.dilation,  # type: ignore[arg-type]
            groups=conv.groups,
            bias=conv.bias is not None,
            device="meta",
        )
        self.weight, self.bias = conv.weight, conv.bias
        self.shift_div, self.num_frames = shift_div, 1

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """(N,C,H,W) of clips of `num_frames` -> (N,C',H',W')."""
        return super().forward(temporal_shift(x_NCHW, self.num_frames, shift_div=self.shift_div))


def insert_shifts(model: nn.Module, *, shift_div: int = 8, name: str = "the model") -> list[ShiftedConv2d]:
    """Shift before the first convolution of the residual branches of `model`, and give these convolutions.

    ResNets shift in every block, those with 23 or more blocks in layer3 in every other one; networks of inverted
    residuals (MobileNetV2) in those that expand and have a shortcut. Raises ValueError for any other network.
    """
    if not isinstance(shift_div, int) or shift_div < 2:
        raise ValueError(f"shift_div is {shift_div!r}; it must be a whole number from 2, since two parts move.")
    shifted = []
    for block, attribute in list(_branches(model)):
        conv = getattr(block, attribute)
        if type(conv) is not nn.Conv2d:
            raise ValueError(f"{name} has a {type(conv).__name__} where the shift goes; use a plain ResNet.")
        setattr(block, attribute, ShiftedConv2d(conv, shift_div=shift_div))
        shifted.append(getattr(block, attribute))
    if not shifted:
        raise ValueError(f"{name} has no residual branches to shift in; allowed: timm's ResNets and MobileNetV2s.")
    return shifted


def _branches(model: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    if isinstance(model, ResNet):
        every = 2 if len(model.layer3) >= _DEEP else 1
        layers = (model.layer1, model.layer2, model.layer3, model.layer4)
        yield from ((block, "conv1") for layer in layers for block in list(layer)[::every])
    else:
        blocks = (block for block in model.modules() if isinstance(block, InvertedResidual) and block.has_skip)
        yield from ((block, "conv_pw") for block in blocks if hasattr(block, "conv_pw"))


class TsmEncoder(TimmEncoder):
    """A timm network with temporal shifts: clips x_BCTHW -> one tensor per output.

    `pooled` and `logits` are means over the frames of the clip; `tokens` and `map` of the last features and of layers
    are those of its frames, one after the other. Layers are those of TimmEncoder.
    """

    kind = "video"
    is_reentrant = False  # the convolutions are told how many frames a clip has

    def __init__(
        self,
        model: nn.Module,
        *,
        name: str,
        outputs: Sequence[str],
        input_size: tuple[int, int] | None = None,
        shift_div: int = 8,
    ) -> None:
        """Put the shifts into `model`; ValueError where they or an output cannot be had."""
        super().__init__(model, name=name, outputs=outputs, input_size=input_size)
        insert_shifts(model, shift_div=shift_div, name=name)
        self.data_config = replace(self.data_config, clip_length=CLIP_LENGTH)

    def forward(self, x_BCTHW: Tensor) -> dict[str, Tensor]:
        """x_BCTHW normalised -> pooled (B,D), tokens (B,T*P,D), map (B,C,T,H,W), logits (B,K), by output name."""
        num_frames = x_BCTHW.shape[2]
        for module in self.model.modules():
            if isinstance(module, ShiftedConv2d):
                module.num_frames = num_frames
        return self.of_clips(super().forward(x_BCTHW.transpose(1, 2).flatten(0, 1)), num_clips=len(x_BCTHW))

    def public_names(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A state of the public code with the names of timm's network; one that has these already stays."""
        config: Any = self.model.pretrained_cfg
        renamed = (re.sub(r"^new_fc\.", f"{config['classifier']}.", _own_name(name)) for name in state)
        return dict(zip(renamed, state.values(), strict=True))


def _own_name(name: str) -> str:
    """`module.base_model.layer1.0.conv1.net.weight` -> `layer1.0.conv1.weight`."""
    name = re.sub(r"^(module\.)?(base_model\.)?", "", name)
    name = re.sub(r"\.net\.(weight|bias)$", r".\1", name)
    found = re.fullmatch(r"features\.(\d+)\.(?:conv\.)?(\d+)\.(\w+)", name)
    return _mobilenet_name(int(found[1]), int(found[2]), found[3]) if found else name


def _mobilenet_name(feature: int, entry: int, rest: str) -> str:
    """Names of Sandler et al.'s MobileNetV2 in `features`, which the public code numbers -> those of timm."""
    places = list(chain.from_iterable((f"{stage}.{k}" for k in range(n)) for stage, n in enumerate(_MOBILENET_BLOCKS)))
    if feature == 0 or feature > len(places):
        stem, norm = ("conv_stem", "bn1") if feature == 0 else ("conv_head", "bn2")
        return f"{norm if entry else stem}.{rest}"
    entries = _PLAIN if feature == 1 else _EXPANDING
    return f"blocks.{places[feature - 1]}.{entries[entry]}.{rest}"


def build_tsm(request: EncoderRequest) -> TsmEncoder:
    """A network of timm's with temporal shifts. `model_args` are timm's and `shift_div`; `drop_rate` is 0.8 without it.

    `pretrained` takes timm's (ImageNet) weights. The head starts with a standard deviation of 0.001.
    """
    arguments: dict[str, Any] = {"drop_rate": DROPOUT, **request.model_args}
    shift_div = arguments.pop("shift_div", 8)
    model: Any = create_timm(replace(request, model_args=arguments))
    head = model.get_classifier()
    if isinstance(head, nn.Linear) and not request.pretrained:
        nn.init.normal_(head.weight, std=0.001)
        nn.init.zeros_(head.bias)
    size = overridden_size(arguments)
    return TsmEncoder(model, name=request.name, outputs=request.outputs, input_size=size, shift_div=shift_div)
