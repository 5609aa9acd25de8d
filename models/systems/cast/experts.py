"""An expert of CAST: a vision transformer that is run block by block, in halves, on the tokens of a clip.

A stream is what an expert has of a batch of clips: of image encoders (B*T, P + N, D), a frame a row; of video encoders
(B, T*N, D). Shape letters: B clips, T frames of the grid, P prefix tokens (class, register), N places of the grid, D
features, F frames of a clip, H height, W width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from timm.models.eva import Eva, EvaBlock
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from reelwright.models.encoders.base import Encoder
from reelwright.models.encoders.timm_encoders import enter_transformer
from reelwright.models.encoders.videomae import VideoMae

EXPERTS = ("space", "time")
_BLOCKS = (Block, EvaBlock)  # of timm, that norm what enters a half; others would be run wrongly
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_BEFORE = ("patch_embed", "cls_token", "reg_token", "pos_embed", "norm_pre")  # of a model, before its blocks


class Expert(nn.Module):
    """A transformer whose last norm the heads of CAST take over (`take_norm`)."""

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: Encoder, *, length: int, every: int, pixels: str = "own") -> None:
        """`length` F frames of a clip, of which an image encoder sees the last of every `every`.

        Raises ValueError for an encoder whose blocks cannot be run in halves, and for clips that it does not take.
        """
        super().__init__()
        model: Any = encoder.model
        if (
            not isinstance(model, VisionTransformer | Eva | VideoMae)
            or not (isinstance(model, VideoMae) or all(type(block) in _BLOCKS for block in model.blocks))
            or getattr(model, "rope_mixed", False)
        ):
            name = type(model).__name__
            message = f"an expert must be VideoMAE, or a plain vision transformer or EVA of timm's, but this is {name}."
            raise ValueError(message)
        self.model: Any = model
        self.is_video = isinstance(model, VideoMae)
        model = self.model  # of either kind from here on
        self.every = model.options.tubelet if self.is_video else every
        if length % self.every or (self.is_video and length != model.options.clip_length):
            takes = model.options.clip_length if self.is_video else f"a multiple of every: {every}"
            raise ValueError(f"clips have {length} frames, but the expert takes {takes}.")
        side = model.options.grid[1:] if self.is_video else model.patch_embed.grid_size
        self.grid = (length // self.every, int(side[0]), int(side[1]))
        self.num_prefix = 0 if self.is_video else int(model.num_prefix_tokens)
        self.width = int(model.options.width if self.is_video else model.embed_dim)
        self.depth, self.num_heads = len(model.blocks), int(model.blocks[0].attn.num_heads)
        self.size = encoder.data_config.size
        own = (encoder.data_config.mean, encoder.data_config.std)
        for label, values in zip(("mean", "std"), _IMAGENET if pixels == "imagenet" else own, strict=True):
            self.register_buffer(label, torch.tensor(values).reshape(3, 1, 1), persistent=False)

    @property
    def num_tokens(self) -> int:
        """Tokens of a clip, prefix tokens of all frames included."""
        frames, height, width = self.grid
        return frames * (self.num_prefix + height * width)

    @property
    def looks_at_class(self) -> bool:
        """Whether its class token stands for a frame; else the mean over its tokens does."""
        return self.num_prefix > 0 and getattr(self.model, "global_pool", "") == "token"

    def take_norm(self) -> nn.Module:
        """Its last norm, in whose place nothing is left; a new one where there is none."""
        for name in ("norm", "fc_norm"):
            norm: nn.Module = getattr(self.model, name)
            if not isinstance(norm, nn.Identity):
                setattr(self.model, name, nn.Identity())
                return norm
        return nn.LayerNorm(self.width, eps=1e-6)

    def keep_last(self, count: int) -> None:
        """Drop what comes before the last `count` blocks, which keep their names."""
        for index in range(self.depth - count):
            self.model.blocks[index] = nn.Identity()
        for name in _BEFORE:
            if isinstance(getattr(self.model, name, None), nn.Module):
                setattr(self.model, name, nn.Identity())
            elif getattr(self.model, name, None) is not None:
                setattr(self.model, name, None)

    def enter(self, frames_BFCHW: Tensor) -> Tensor:
        """The stream that enters block 0, of frames in [0, 1]. Raises ValueError for another size or length."""
        wanted = (self.grid[0] * self.every, 3, *self.size)
        if tuple(frames_BFCHW.shape[1:]) != wanted:
            found = tuple(frames_BFCHW.shape[1:])
            raise ValueError(f"clips must have shape {wanted}, frames x 3 x height x width; got {found}.")
        x_BFCHW = (frames_BFCHW - self.mean) / self.std
        if self.is_video:
            stream: Tensor = self.model.enter(x_BFCHW.transpose(1, 2))
            return stream
        return enter_transformer(self.model, x_BFCHW[:, self.every - 1 :: self.every].flatten(0, 1))

    def run(self, block: int, stream: Tensor) -> Tensor:
        """The stream that leaves a block, of one that enters it."""
        result: Tensor = self.model.blocks[block](stream, **self._rotations())
        return result

    def attended(self, block: int, stream: Tensor) -> Tensor:
        """What attention adds to the stream in a block."""
        found: Any = self.model.blocks[block]
        result: Tensor = found.attn(found.norm1(stream), **self._rotations())
        return _scaled(found, 1, result)

    def normed(self, block: int, stream: Tensor) -> Tensor:
        """What the MLP of a block sees of the stream."""
        result: Tensor = self.model.blocks[block].norm2(stream)
        return result

    def transformed(self, block: int, normed: Tensor) -> Tensor:
        """What the MLP adds to the stream, of what `normed` gave."""
        found: Any = self.model.blocks[block]
        result: Tensor = found.mlp(normed)
        return _scaled(found, 2, result)

    def half_of(self, block: int, kind: str) -> list[nn.Module]:
        """The modules of a block that are of its attention or its MLP (`kind`)."""
        found = self.model.blocks[block]
        names = {"attention": ("norm1", "attn", "ls1"), "mlp": ("norm2", "mlp", "ls2")}[kind]
        return [getattr(found, name) for name in names if hasattr(found, name)]

    def _rotations(self) -> dict[str, Tensor]:
        """Rotary positions of EVA."""
        rope = getattr(self.model, "rope", None)
        return {} if rope is None else {"rope": rope.get_embed()}

    def frames(self, stream: Tensor) -> Tensor:
        """The stream as (B,T,P+N,D)."""
        frames = self.grid[0]
        if self.is_video:
            return stream.reshape(len(stream), frames, -1, self.width)
        return stream.reshape(-1, frames, *stream.shape[1:])

    def stream(self, x_BTND: Tensor) -> Tensor:
        """The inverse of `frames`."""
        return x_BTND.flatten(1, 2) if self.is_video else x_BTND.flatten(0, 1)

    def from_tokens(self, tokens_BND: Tensor) -> Tensor:
        """The stream of stored tokens of clips, frame after frame."""
        if self.is_video:
            return tokens_BND
        return self.stream(tokens_BND.reshape(len(tokens_BND), self.grid[0], -1, self.width))

    def summary(self, stream: Tensor) -> Tensor:
        """A vector a clip (B,D): the mean over frames of the class tokens, or over all places."""
        x_BTND = self.frames(stream)
        if self.looks_at_class:
            return x_BTND[:, :, 0].mean(dim=1)
        return x_BTND[:, :, self.num_prefix :].flatten(1, 2).mean(dim=1)


def _scaled(block: Any, half: int, change: Tensor) -> Tensor:
    """What a half adds, by the block's layer scale: a module of VisionTransformer, a parameter of Eva, or none."""
    if hasattr(block, f"ls{half}"):
        scaled: Tensor = getattr(block, f"ls{half}")(change)
        return scaled
    gamma = getattr(block, f"gamma_{half}", None)
    return change if gamma is None else gamma * change


def check_equal(space: Expert, time: Expert) -> None:
    """ValueError for experts whose streams do not fit together."""
    for name in ("width", "depth", "grid", "size"):
        first, second = getattr(space, name), getattr(time, name)
        if first != second:
            raise ValueError(
                f"the experts must have equal {name}: space has {first}, time {second}. Choose other experts, or set "
                "img_size, patch_size, every or others of space_args and time_args."
            )


def check_start(name: str, expert: Expert, state: Mapping[str, Tensor], *, is_whole: bool) -> None:
    """ValueError where `state` (by names within the expert) would give some of its blocks to the rest of another one.

    What is frozen and lies before them, in the expert or in stored tokens (not `is_whole`), would not be theirs. Where
    `state` has all of an expert that is whole, it takes its place.
    """
    own = expert.state_dict()
    if is_whole and own.keys() <= state.keys():
        return
    given = {key: value.to(own[key]) for key, value in state.items() if key in own and value.shape == own[key].shape}
    # Near, not equal: means over updates (EMA) round what stays as it is.
    other = [key for key, value in given.items() if not torch.allclose(value, own[key], rtol=1e-3, atol=1e-5)]
    if other:
        raise ValueError(
            f"its blocks of the expert {name} are not those of the expert here ({name}.{other[0]} differs), whose "
            "other blocks it lacks; take the experts (embed nodes) that it has learned with."
        )


def repeat_real(frames_BF: Tensor, mask_BF: Tensor) -> Tensor:
    """`frames_BF` with every padded frame replaced by the last real one before it, or the first real one."""
    places = torch.arange(mask_BF.shape[1], device=mask_BF.device)
    latest = torch.where(mask_BF, places, -1).cummax(dim=1).values
    first = mask_BF.int().argmax(dim=1, keepdim=True)
    chosen = torch.where(latest < 0, first, latest)
    return frames_BF[torch.arange(len(frames_BF), device=frames_BF.device)[:, None], chosen]
