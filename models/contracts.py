"""The one contract of models that are trained: named tensors of a batch in, named tensors out.

In: `rows` (B,T,D) or `frames` (uint8 (B,T,H,W,3), normalised float (B,T,3,H,W), or without T where a model looks at
single images), `mask` (B,T) bool, True at real rows, `times` (B,T) seconds, `view_of` (B,) which clip a view shows.
Out: `logits` (B,K) or (B,T,K), or `logits.HEAD`; `embedding` (B,E) or (B,T,E); `aux.*`, which only the loss sees, as
`aux.stage1`, the logits of an earlier stage; `attention.*`. Shape letters: B batch, T rows of a window, D features,
H height, W width, K outputs, E embedding size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

Inputs = Mapping[str, Tensor]
Outputs = Mapping[str, Tensor]
Forward = Callable[..., dict[str, Tensor]]  # a module, as under autocast: its named outputs


class VideoModel(nn.Module):
    """Base of the models that are trained."""

    def forward(self, batch: Inputs) -> dict[str, Tensor]:
        """The outputs for a batch, by name; see the top of this file."""
        raise NotImplementedError


def stage_logits(outputs: Outputs) -> list[Tensor]:
    """The logits of every stage, first to last; those of models without stages alone."""
    earlier = [outputs[name] for name in outputs if name.startswith("aux.stage")]
    return [*earlier, outputs["logits"]]
