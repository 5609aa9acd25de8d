"""The one contract of models that are trained: named tensors of a batch in, named tensors out.

In: `rows` (B,T,D) or `frames` (uint8 (B,T,H,W,3), normalised float (B,T,3,H,W), or without T where a model looks at
single images), `mask` (B,T) bool, True at real rows, `times` (B,T) seconds, `view_of` (B,) which clip a view shows,
`positions` (B,T) of rows in a longer video (`VideoModel.video_positions`), `attention_edit.time` (B,T,2) and
`attention_edit.space` (B,T,H,W,2), by which people change attention (blocks/attention_branch.py).
Out: `logits` (B,K) or (B,T,K), or `logits.HEAD`; `embedding` (B,E) or (B,T,E); `aux.*`, which only the loss sees, as
`aux.stage1`, the logits of an earlier stage; `attention.*`. Shape letters: B batch, T rows of a window, D features,
H height, W width, K outputs, E embedding size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from reelwright.models.blocks.layer_ids import layer_ids
from reelwright.models.encoders.base import DataConfig

Inputs = Mapping[str, Tensor]
Outputs = Mapping[str, Tensor]
Forward = Callable[[Inputs], dict[str, Tensor]]  # a model, as under autocast


def mark_unpadded(mask: Tensor) -> Tensor:
    """``mask``, of which the host knows that it is True everywhere. Only on GPUs, where asking the mask is a wait."""
    mask.is_unpadded = True  # type: ignore[attr-defined]
    return mask


def is_unpadded(mask: Tensor) -> bool:
    """Whether a mask was marked; False says nothing. What is made of a mask is not marked."""
    return not torch.compiler.is_compiling() and getattr(mask, "is_unpadded", False)


def real_rows(x_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """(N,...): what of (B,T,...) is real, in order; without a wait, and of a shape known before, of marked masks."""
    return x_BT.flatten(0, 1) if is_unpadded(mask_BT) else x_BT[mask_BT]


def put_rows(rows_N: Tensor, mask_BT: Tensor) -> Tensor:
    """(B,T,...): rows where ``mask_BT`` is True, in its order, and 0 elsewhere."""
    if is_unpadded(mask_BT):
        return rows_N.reshape(*mask_BT.shape, *rows_N.shape[1:])
    x_BT = rows_N.new_zeros(*mask_BT.shape, *rows_N.shape[1:])
    x_BT[mask_BT] = rows_N
    return x_BT


@dataclass(frozen=True, kw_only=True)
class Part:
    """How a part of a model is trained."""

    state: Literal["trained", "frozen", "frozen_norms"] = "trained"
    # frozen: no parameter changes and it stays in eval mode; frozen_norms: its batch norms do, the rest is trained.
    layers: Mapping[str, int]
    # Name of each parameter, without the part's prefix -> layer, 0 at the part's input, for layer decay.


class VideoModel(nn.Module):
    """Base of the models that are trained."""

    @cached_property
    def parts(self) -> Mapping[str, Part]:
        """The parts that hold all parameters, by prefix of their names ("" is all), in order from input to output.

        Unless a model knows better it is one part that is trained, with layers as its numbered blocks have them.
        """
        return {"": Part(layers=layer_ids(self))}

    def forward(self, batch: Inputs) -> dict[str, Tensor]:
        """The outputs for a batch, by name; see the top of this file."""
        raise NotImplementedError

    def video_positions(self, num_rows: int) -> Tensor | None:
        """Positions (T,) of the T rows of a whole video; of a piece of it they are in the batch, as `positions`.

        None: the model has none, or counts from the first row that it is given.
        """
        del num_rows
        return None

    def train(self, mode: bool = True) -> Self:
        """As of every module, but what is frozen stays in eval mode: parts, and batch norms wherever they are."""
        super().train(mode)
        for prefix, part in self.parts.items() if mode else ():
            module = self.get_submodule(prefix)
            if not any(parameter.requires_grad for parameter in module.parameters()):
                module.train(mode=False)
            for norm in module.modules():
                if isinstance(norm, _BatchNorm) and (part.state == "frozen_norms" or _is_frozen(norm)):
                    norm.eval()
        return self


@dataclass(frozen=True, kw_only=True)
class ClipSizes:
    """The sizes that data and settings fix of a clip model."""

    num_outputs: int
    # K, classes or labels, of all heads together.
    length: int
    # T, frames of a window.
    frame_size: tuple[int, int]
    # (H, W) in pixels.
    per_row: bool = False
    # True: logits for each frame (B,T,K); False: for the window (B,K).
    heads: Mapping[str, int] = field(default_factory=dict)
    # Name of each head -> its classes, in the order in which they make up the K; empty: one without a name.

    def __post_init__(self) -> None:
        """Refuse sizes below 1."""
        for name, value in {
            "num_outputs": self.num_outputs,
            "length": self.length,
            "frame": min(self.frame_size),
        }.items():
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1.")


class ClipModel(VideoModel):
    """Base of whole networks from clips: `frames` (B,T,3,H,W), normalised as `data_config` says, and `mask` (B,T) in.

    Out: `logits`, or of several heads `logits.HEAD` of each, and what else there is (see the top of this file).
    Padded frames hold anything and must not change the answer. Subclasses take (ClipSizes, options).
    """

    data_config: DataConfig  # the pixels that it wants unless the settings say otherwise; of the class

    @classmethod
    def of(cls, sizes: ClipSizes, options: Any) -> Self:
        """The model with the options of its entry in `clip_options`."""
        return cls(sizes, options)

    @classmethod
    def of_tokens(cls, *, length: int, heads: Mapping[str, int], num_outputs: int, options: Any) -> Self:
        """The same on stored tokens of clips of `length` frames, for models whose options say `joins_tokens`."""
        raise NotImplementedError

    def public_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``state``, of a public checkpoint or an image network to start from, with the names and shapes of here."""
        return dict(state)


def model_layers(model: VideoModel) -> dict[str, int]:
    """The layer of every parameter by name, 0 at the input: the parts one after the other.

    Raises ValueError for a model whose parts leave a parameter out.
    """
    found: dict[str, int] = {}
    first = 0
    for prefix, part in model.parts.items():
        found |= {f"{prefix}.{name}" if prefix else name: first + layer for name, layer in part.layers.items()}
        first = max(found.values(), default=-1) + 1
    missing = [name for name, _ in model.named_parameters() if name not in found]
    if missing:
        raise ValueError(f"the parts of {type(model).__name__} have no layer for {', '.join(missing[:3])}.")
    return found


def prefixed(prefix: str, parts: Mapping[str, Part]) -> dict[str, Part]:
    """Parts of a model that is itself the part ``prefix`` of another one."""
    return {f"{prefix}.{name}" if name else prefix: part for name, part in parts.items()}


def _is_frozen(norm: nn.Module) -> bool:
    own = list(norm.parameters(recurse=False))
    return bool(own) and not any(parameter.requires_grad for parameter in own)


ATTENTION_LOGITS = "aux.attention_logits"  # of an attention branch, which is a classifier of its own


def stage_logits(outputs: Outputs) -> list[Tensor]:
    """The logits of every stage, first to last; those of models without stages alone."""
    earlier = [outputs[name] for name in outputs if name.startswith("aux.stage")]
    return [*earlier, outputs["logits"]]
