"""Options of clip models (whole networks from frames), without torch, so that a slip is told before anything is loaded.

One line of `CLIP_MODEL_OPTIONS` here and one of `clip_models.CLIP_MODELS` make a model that nodes can name. Options may
say `outputs`, the names of what the model gives (else `logits`), and `answers_rows`, whether it can give logits of
every frame, for task per_row (else not).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from reelwright.models.temporal.options import check_choice, check_dropout


@dataclass(frozen=True, kw_only=True)
class StAbnOptions:
    """Options of `st_abn`; the defaults are those of the public code."""

    depth: int = 50
    # Of the ResNet: 18, 34, 50, 101 or 152.
    version: str = "v1"
    # v2: the authors' later code, without the ReLU behind the gate.
    time: str = "dense"
    # Attention in time. dense: as published, for windows of exactly `length` frames; convolutional: of any length.
    dropout: float = 0.5

    outputs: ClassVar[tuple[str, ...]] = ("attention.space", "attention.time", "aux.attention_logits", "logits")
    # Names of what the model gives.

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        check_choice("depth", self.depth, (18, 34, 50, 101, 152))
        check_choice("version", self.version, ("v1", "v2"))
        check_choice("time", self.time, ("dense", "convolutional"))
        check_dropout(self.dropout)


CLIP_MODEL_OPTIONS: dict[str, type[Any]] = {"st_abn": StAbnOptions}
