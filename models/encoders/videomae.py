"""VideoMAE's vision transformer on clips: tubelets of pixels, fixed sine positions, joint attention in space and time.

Tong et al. 2022 (VideoMAE), sections 3.2 and 4, and its public code, whose parameter names these are.
Shape letters: B batch, C channels, T time, H height, W width, N positions (tokens), D features, K classes, h heads.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from timm.layers import Mlp
from torch import Tensor, nn
from torch.nn import functional

from reelwright.models.encoders.base import DataConfig, EncoderRequest, sized_options
from reelwright.models.encoders.positions import resize_grid, sine_positions
from reelwright.models.encoders.video_encoders import Family, Features, VideoEncoder

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's
_INIT_STD, _NORM_EPS = 0.02, 1e-6
_OTHER_PARTS = ("decoder.", "encoder_to_decoder.", "mask_token")  # of a pre-training checkpoint


@dataclass(frozen=True, kw_only=True)
class VideoMaeOptions:
    """One size of the network and the clips that it sees."""

    width: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0
    patch_size: int = 16
    # Pixels.
    tubelet: int = 2
    # Frames.
    img_size: int = 224
    # Pixels, height and width.
    clip_length: int = 16
    # Frames.
    norm: str = "pooled"
    # pooled: fc_norm behind the mean of the tokens (fine-tuned checkpoints); tokens: norm of every token, then the mean
    # (pre-training checkpoints).
    positions: str = "sine"
    # sine: fixed; learned: a parameter pos_embed, resized where a file has another grid.

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        for name in ("width", "depth", "heads", "mlp_ratio", "patch_size", "tubelet", "img_size", "clip_length"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0.")
        multiples = {"width": "heads", "img_size": "patch_size", "clip_length": "tubelet"}
        for name, unit in multiples.items():
            if getattr(self, name) % getattr(self, unit):
                raise ValueError(f"{name} is {getattr(self, name)}, no multiple of {unit} {getattr(self, unit)}.")
        for name, allowed in {"norm": ("pooled", "tokens"), "positions": ("sine", "learned")}.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; allowed: {', '.join(allowed)}.")

    @property
    def grid(self) -> tuple[int, int, int]:
        """(T, H, W) positions of a clip."""
        side = self.img_size // self.patch_size
        return self.clip_length // self.tubelet, side, side


VIDEOMAE_SIZES = {
    "vit_small_patch16_224": VideoMaeOptions(width=384, depth=12, heads=6),
    "vit_base_patch16_224": VideoMaeOptions(width=768, depth=12, heads=12),
    "vit_large_patch16_224": VideoMaeOptions(width=1024, depth=24, heads=16),
}


class _PatchEmbed(nn.Module):
    def __init__(self, options: VideoMaeOptions) -> None:
        super().__init__()
        size = (options.tubelet, options.patch_size, options.patch_size)
        self.proj = nn.Conv3d(3, options.width, kernel_size=size, stride=size)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        tokens: Tensor = self.proj(x_BCTHW).flatten(2).transpose(1, 2).contiguous()
        return tokens


class _Attention(nn.Module):
    """Keys have no bias."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.num_heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias, self.v_bias = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.zeros(width))
        self.proj = nn.Linear(width, width)

    def forward(self, x_BND: Tensor) -> Tensor:
        bias = torch.cat([self.q_bias, torch.zeros_like(self.v_bias), self.v_bias])
        qkv = functional.linear(x_BND, self.qkv.weight, bias).reshape(*x_BND.shape[:2], 3, self.num_heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        seen_BhNE = functional.scaled_dot_product_attention(q, k, v)
        result: Tensor = self.proj(seen_BhNE.transpose(1, 2).flatten(2))
        return result


class _Block(nn.Module):
    def __init__(self, options: VideoMaeOptions) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(options.width, eps=_NORM_EPS)
        self.attn = _Attention(options.width, options.heads)
        self.norm2 = nn.LayerNorm(options.width, eps=_NORM_EPS)
        self.mlp = Mlp(options.width, int(options.width * options.mlp_ratio))

    def forward(self, x_BND: Tensor) -> Tensor:
        x_BND = x_BND + self.attn(self.norm1(x_BND))
        result: Tensor = x_BND + self.mlp(self.norm2(x_BND))
        return result


class VideoMae(nn.Module):
    """Clips x_BCTHW -> tokens (B,N,D), frame of the grid by frame."""

    def __init__(self, options: VideoMaeOptions, *, num_classes: int = 0) -> None:
        """Weights from a truncated normal distribution of standard deviation 0.02; without classes there is no head."""
        super().__init__()
        self.options = options
        frames, height, width = options.grid
        self.patch_embed = _PatchEmbed(options)
        table_1ND = sine_positions(frames * height * width, options.width)[None]
        if options.positions == "learned":
            self.pos_embed = nn.Parameter(table_1ND)
        else:
            self.register_buffer("pos_embed", table_1ND, persistent=False)
        self.blocks = nn.ModuleList(_Block(options) for _ in range(options.depth))
        is_pooled = options.norm == "pooled"
        self.norm = nn.Identity() if is_pooled else nn.LayerNorm(options.width, eps=_NORM_EPS)
        self.fc_norm = nn.LayerNorm(options.width, eps=_NORM_EPS) if is_pooled else nn.Identity()
        self.head = nn.Linear(options.width, num_classes) if num_classes else nn.Identity()
        initialise(self)

    def enter(self, x_BCTHW: Tensor) -> Tensor:
        """The tokens (B,N,D) that enter block 0. Raises ValueError for clips of another length or size."""
        options = self.options
        wanted = (options.clip_length, options.img_size, options.img_size)
        if tuple(x_BCTHW.shape[2:]) != wanted:
            shapes = " but are ".join(" x ".join(map(str, shape)) for shape in (wanted, x_BCTHW.shape[2:]))
            raise ValueError(f"clips must be {shapes} (frames x height x width); set clip_length and img_size.")
        tokens: Tensor = self.patch_embed(x_BCTHW) + self.pos_embed
        return tokens

    def no_weight_decay(self) -> set[str]:
        """Names of positions."""
        return {"pos_embed"}

    def resized_positions(self, values_1ND: Tensor, shape: torch.Size) -> Tensor:
        """Learned positions of square grids of another size, frame by frame (bicubic).

        Raises ValueError for what are no square grids in as many frames as here.
        """
        frames, height, width = self.options.grid
        side = math.isqrt(values_1ND.shape[1] // frames)
        if values_1ND.shape[-1] != shape[-1] or frames * side**2 != values_1ND.shape[1]:
            raise ValueError(
                f"positions of shape {tuple(values_1ND.shape)} cannot be resized to {tuple(shape)}: they must have "
                f"equally many features, and be {frames} square grids, one a frame of the grid."
            )
        return resize_grid(values_1ND, (side, side), (height, width))


def initialise(module: nn.Module) -> None:
    """Linear layers from a truncated normal distribution of standard deviation 0.02, their biases 0."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=_INIT_STD)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def _run(model: Any, x: Tensor, wanted: set[int]) -> Features:
    tokens_BND = model.enter(x)
    entering = tokens_BND
    layers: dict[int, Tensor] = {}
    for index, block in enumerate(model.blocks):
        tokens_BND = block(tokens_BND)
        if index in wanted:
            layers[index] = tokens_BND
    normed_BND = model.norm(tokens_BND)
    maps = {index: _as_map(model, layer) for index, layer in layers.items()}
    pooled = model.fc_norm(normed_BND.mean(dim=1))
    return Features(_as_map(model, normed_BND), pooled, normed_BND, maps, layers, entering=entering)


def _as_map(model: VideoMae, tokens_BND: Tensor) -> Tensor:
    return tokens_BND.transpose(1, 2).reshape(len(tokens_BND), -1, *model.options.grid)


_FAMILY = Family(
    lambda model: list(model.blocks),
    _run,
    lambda model, features: model.head(features.pooled),
    "head",
    has_block_inputs=True,
)


class VideoMaeEncoder(VideoEncoder):
    """VideoMAE: layers are its blocks, `blockK.input` the tokens that enter one."""

    model: VideoMae

    def public_names(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A state of the public code: without `module.`, `backbone.` and `encoder.` in front and without a decoder.

        Learned positions of another grid are resized, frame by frame (bicubic).
        """
        found = {}
        for name, value in state.items():
            short = name
            for prefix in ("module.", "backbone.", "encoder."):
                short = short.removeprefix(prefix)
            if not short.startswith(_OTHER_PARTS):
                found[short] = value
        own, given = self.model.pos_embed, found.get("pos_embed")
        if self.model.options.positions == "learned" and given is not None and given.shape != own.shape:
            with contextlib.suppress(ValueError):  # who loads them says that they do not fit
                found["pos_embed"] = self.model.resized_positions(given, own.shape)
        return found


def build_videomae(request: EncoderRequest) -> VideoMaeEncoder:
    """VideoMAE of a size in VIDEOMAE_SIZES; `model_args` replace its options.

    ValueError for `pretrained` (weights come from a file), for an option that there is not, and values out of range.
    """
    options, classes = sized_options(request, VIDEOMAE_SIZES, whose="VideoMAE's")
    model = VideoMae(options, num_classes=classes)
    config = DataConfig(
        size=(options.img_size, options.img_size),
        resize=options.img_size,
        interpolation="bilinear",
        antialias=False,
        crop="center",
        mean=_MEAN,
        std=_STD,
        clip_length=options.clip_length,
    )
    return VideoMaeEncoder(model, name=request.name, outputs=request.outputs, family=_FAMILY, data_config=config)
