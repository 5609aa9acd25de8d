"""X3D, with the names of pytorchvideo's checkpoints.

Feichtenhofer 2020 (X3D: Expanding Architectures for Efficient Video Recognition), section 3 and table 1.
Shape letters: B batch, C channels, T time, H height, W width, D features, K classes.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from reelwright.models.encoders.base import DataConfig

_DEPTHS, _DIMS = (1, 2, 5, 3), (12, 24, 48, 96)  # blocks and channels of the four stages before expansion
_SQUEEZE = 1 / 16
_STRIDE = 32  # pixels of the picture to a position of the last map
_HEAD_STD = 0.01


@dataclass(frozen=True, kw_only=True)
class X3DOptions:
    """One size of the network, and the clips that its published weights were trained and tested on."""

    depth: float
    # Times the blocks of a stage, rounded up.
    width: float = 2.0
    # Times the channels, rounded to a multiple of 8.
    bottleneck: float = 2.25
    # Channels inside a block, times those outside.
    head_dim: int = 2048
    dropout: float = 0.5
    clip_length: int = 16
    # Frames.
    train_size: int = 224
    # Pixels; what the head averages over at once.
    test_size: int = 256
    # Pixels: short side and crop.

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        for name in ("depth", "width", "bottleneck", "head_dim", "clip_length", "train_size", "test_size"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; it must be in [0, 1).")


X3D_SIZES = {
    "x3d_xs": X3DOptions(depth=2.2, clip_length=4, train_size=160, test_size=182),
    "x3d_s": X3DOptions(depth=2.2, clip_length=13, train_size=160, test_size=182),
    "x3d_m": X3DOptions(depth=2.2),
    "x3d_l": X3DOptions(depth=5.0, train_size=312, test_size=356),
    "x3d_xl": X3DOptions(depth=8.0, train_size=312, test_size=356),
}
# XL as fractal_video has it (8.8 million parameters); that of the paper has depth 5.0 and width 2.9 (11.1 million).


def x3d_data_config(options: X3DOptions) -> DataConfig:
    """The preprocessing of weights of such a network, as pytorchvideo tests them."""
    return DataConfig(
        size=(options.test_size, options.test_size),
        resize=options.test_size,
        interpolation="bilinear",
        antialias=False,
        crop="center",
        mean=(0.45, 0.45, 0.45),
        std=(0.225, 0.225, 0.225),
        clip_length=options.clip_length,
    )


def rounded_width(width: float, factor: float) -> int:
    """`width` times `factor` to the nearest multiple of 8, at least 8 and not below 0.9 of it."""
    wanted = width * factor
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wanted else rounded


class X3D(nn.Module):
    """Stem, four stages and a head: `blocks`."""

    def __init__(self, options: X3DOptions, *, num_classes: int) -> None:
        """With 0 classes `blocks.5.proj` is the identity."""
        super().__init__()
        given = rounded_width(_DIMS[0], options.width)
        blocks: list[nn.Module] = [_Stem(given)]
        for repeats, dim in zip(_DEPTHS, _DIMS, strict=True):
            wide = rounded_width(dim, options.width)
            inner = int(options.bottleneck * wide)
            depth = math.ceil(options.depth * repeats)
            blocks.append(_Stage(given, inner, wide, depth=depth))
            given = wide
        blocks.append(_Head(given, int(options.bottleneck * given), options, num_classes=num_classes))
        self.blocks = nn.ModuleList(blocks)
        self.apply(_init)

    def pool(self, x_BCTHW: Tensor) -> Tensor:
        """The last map -> features before the classifier (B,D), the mean over what the head saw at once in training."""
        pooled: Tensor = self._head().pool(x_BCTHW).mean(dim=(2, 3, 4))
        return pooled

    def classify(self, pooled_BD: Tensor) -> Tensor:
        """Features (B,D) -> logits (B,K)."""
        head = self._head()
        logits: Tensor = head.proj(head.dropout(pooled_BD))
        return logits

    def _head(self) -> _Head:
        head = self.blocks[-1]
        assert isinstance(head, _Head)
        return head

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Normalised clips (B,3,T,H,W) -> logits (B,K)."""
        for block in self.blocks[:-1]:
            x_BCTHW = block(x_BCTHW)
        return self.classify(self.pool(x_BCTHW))


class _Stem(nn.Module):
    """Convolutions in space, then in time (pytorchvideo's names of the two are the wrong way round), norm, ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        across = nn.Conv3d(3, channels, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1), bias=False)
        along = nn.Conv3d(channels, channels, (5, 1, 1), padding=(2, 0, 0), groups=channels, bias=False)
        self.conv = nn.Sequential(OrderedDict(conv_t=across, conv_xy=along))
        self.norm = nn.BatchNorm3d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.norm(self.conv(x)))


class _Stage(nn.Module):
    """`depth` blocks, the first of which halves height and width; every other one squeezes and excites."""

    def __init__(self, given: int, inner: int, wide: int, *, depth: int) -> None:
        super().__init__()
        self.res_blocks = nn.Sequential(
            *(
                _Block(wide if k else given, inner, wide, stride=1 if k else 2, has_squeeze=k % 2 == 0)
                for k in range(depth)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.res_blocks(x)
        return out


class _Block(nn.Module):
    """A bottleneck with a channelwise 3x3x3 convolution, beside a shortcut."""

    def __init__(self, given: int, inner: int, wide: int, *, stride: int, has_squeeze: bool) -> None:
        super().__init__()
        strides = (1, stride, stride)
        changes = given != wide or stride != 1
        self.branch1_conv = nn.Conv3d(given, wide, 1, stride=strides, bias=False) if changes else None
        self.branch1_norm = nn.BatchNorm3d(wide) if given != wide else None
        squeeze = _SqueezeExcitation(inner) if has_squeeze else nn.Identity()
        self.branch2 = nn.Sequential(
            OrderedDict(
                conv_a=nn.Conv3d(given, inner, 1, bias=False),
                norm_a=nn.BatchNorm3d(inner),
                act_a=nn.ReLU(),
                conv_b=nn.Conv3d(inner, inner, 3, stride=strides, padding=1, groups=inner, bias=False),
                norm_b=nn.Sequential(nn.BatchNorm3d(inner), squeeze),
                act_b=nn.SiLU(),
                conv_c=nn.Conv3d(inner, wide, 1, bias=False),
                norm_c=nn.BatchNorm3d(wide),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        short = x if self.branch1_conv is None else self.branch1_conv(x)
        short = short if self.branch1_norm is None else self.branch1_norm(short)
        return functional.relu(short + self.branch2(x))


class _SqueezeExcitation(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        few = rounded_width(channels, _SQUEEZE)
        self.block = nn.Sequential(nn.Conv3d(channels, few, 1), nn.ReLU(), nn.Conv3d(few, channels, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x * self.block(x.mean(dim=(2, 3, 4), keepdim=True))
        return out


class _Head(nn.Module):
    """Projection, mean over as much as in training, projection, dropout, classifier."""

    def __init__(self, given: int, inner: int, options: X3DOptions, *, num_classes: int) -> None:
        super().__init__()
        side = math.ceil(options.train_size / _STRIDE)
        kernel = (options.clip_length, side, side)
        self.pool = _ProjectedPool(given, inner, options.head_dim, kernel=kernel)
        self.dropout = nn.Dropout(options.dropout)
        self.proj = nn.Linear(options.head_dim, num_classes) if num_classes else nn.Identity()


class _ProjectedPool(nn.Module):
    def __init__(self, given: int, inner: int, wide: int, *, kernel: tuple[int, int, int]) -> None:
        super().__init__()
        self.kernel = kernel
        self.pre_conv = nn.Conv3d(given, inner, 1, bias=False)
        self.pre_norm = nn.BatchNorm3d(inner)
        self.post_conv = nn.Conv3d(inner, wide, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.pre_norm(self.pre_conv(x)))
        kernel = [min(seen, there) for seen, there in zip(self.kernel, x.shape[2:], strict=True)]
        return functional.relu(self.post_conv(functional.avg_pool3d(x, kernel, stride=1)))


def _init(module: nn.Module) -> None:
    """He et al.'s normal weights; the last norm of every residual branch starts at 0."""
    if isinstance(module, nn.Conv3d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=_HEAD_STD)
        nn.init.zeros_(module.bias)
    elif isinstance(module, _Block):
        nn.init.zeros_(module.branch2.get_parameter("norm_c.weight"))
