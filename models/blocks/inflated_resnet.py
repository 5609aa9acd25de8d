"""ResNets over time: layers of a 2D ResNet whose kernels got a time axis, and its weights with them.

Spatial kernels become 1 x k x k; in layers that look along time the first convolution of each block spans three frames.
No layer strides along time. Weights of the 2D network are repeated over a kernel's time axis and divided by its length,
so that a video that stands still gives what its frame gave, but at its ends. Carreira and Zisserman 2017 (I3D),
section 2.4; Feichtenhofer et al. 2019 (SlowFast), table 1.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

DEPTHS = (18, 34, 50, 101, 152)
LAYERS = ("layer1", "layer2", "layer3", "layer4")
_ALONG_TIME = ("layer3", "layer4")
_TAPS = 3


def inflated_resnet(depth: int) -> nn.ModuleDict:
    """`stem` (conv1, bn1, relu, maxpool), then `layer1` to `layer4`: (B,3,T,H,W) -> maps of 1/4, 1/8, 1/16, 1/32."""
    import torchvision  # here, since it takes a second

    whole = getattr(torchvision.models, f"resnet{depth}")(weights=None)
    stem = nn.Sequential()
    for name in ("conv1", "bn1", "relu", "maxpool"):
        stem.add_module(name, getattr(whole, name))
    layers = {name: inflate(getattr(whole, name), along_time=name in _ALONG_TIME) for name in LAYERS}
    return nn.ModuleDict({"stem": inflate(stem, along_time=False), **layers})


def num_channels(depth: int, layer: int) -> int:
    """Channels of the maps of layer 1 to 4."""
    return (64 if depth < DEPTHS[2] else 256) << (layer - 1)


def bottlenecks(in_channels: int, out_channels: int, *, count: int) -> nn.Sequential:
    """`count` bottlenecks along time and space that keep the size of maps."""
    from torchvision.models.resnet import Bottleneck

    expansion = Bottleneck.expansion
    if out_channels % expansion:
        raise ValueError(f"{out_channels} channels are no multiple of {expansion}, as bottlenecks need.")
    projected = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))
    first = Bottleneck(in_channels, out_channels // expansion, downsample=projected)
    rest = [Bottleneck(out_channels, out_channels // expansion) for _ in range(count - 1)]
    return inflate(nn.Sequential(first, *rest), along_time=True)


def through_blocks(layer: nn.Sequential, x_BCTHW: Tensor, mask_BT: Tensor) -> Tensor:
    """The layer's output, as if padded frames (False) were not there: 0 goes into every block in their place."""
    mask_B1T11 = mask_BT[:, None, :, None, None].to(x_BCTHW.dtype)
    for block in layer:
        x_BCTHW = block(x_BCTHW * mask_B1T11)
    return x_BCTHW


def without_stride(layer: nn.Sequential) -> nn.Sequential:
    """The layer with all its convolutions of stride 1."""
    for module in layer.modules():
        if isinstance(module, nn.Conv3d):
            module.stride = (1, 1, 1)
    return layer


def inflate(layer: nn.Sequential, *, along_time: bool) -> nn.Sequential:
    """The modules of a 2D network, in place, with a time axis; ``along_time``, `conv1` of each block spans 3 frames."""
    for owner in list(layer.modules()):
        for name, child in list(owner.named_children()):
            if isinstance(child, nn.Conv2d):
                setattr(owner, name, _conv3d(child, taps=_TAPS if along_time and name == "conv1" else 1))
            elif isinstance(child, nn.BatchNorm2d):
                setattr(owner, name, _norm3d(child))
            elif isinstance(child, nn.MaxPool2d):
                setattr(owner, name, nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)))
    return layer


def inflated_kernels(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``state`` with its 2D kernels over as many frames as those of ``own`` of the same names have."""
    return {
        name: inflated_kernel(value, own[name].shape[2])
        if name in own and (own[name].ndim, value.ndim) == (5, 4)
        else value
        for name, value in state.items()
    }


def inflated_kernel(kernel: Tensor, taps: int) -> Tensor:
    """A kernel (O,I,H,W) over `taps` frames (O,I,taps,H,W), of the same sum."""
    return kernel[:, :, None].expand(-1, -1, taps, -1, -1) / taps


def _conv3d(conv: nn.Conv2d, *, taps: int) -> nn.Conv3d:
    (height, width), (down, right), padding = conv.kernel_size, conv.stride, conv.padding
    assert not isinstance(padding, str)
    top, left = padding
    made = nn.Conv3d(
        conv.in_channels,
        conv.out_channels,
        (taps, height, width),
        stride=(1, down, right),
        padding=(taps // 2, top, left),
        bias=conv.bias is not None,
    )
    with torch.no_grad():
        made.weight.copy_(inflated_kernel(conv.weight, taps))
    return made


def _norm3d(norm: nn.BatchNorm2d) -> nn.BatchNorm3d:
    made = nn.BatchNorm3d(norm.num_features, eps=norm.eps, momentum=norm.momentum)
    made.load_state_dict(norm.state_dict())
    return made
