"""What a model that is trained gives: named tensors, which an objective turns into a loss.

`logits` (B,K) or (B,T,K) is what is predicted; `embedding` (B,E) what is compared; `aux.*` what only the loss sees, as
`aux.stage1`, the logits of an earlier stage. Shape letters: B batch, T rows of a window, K outputs, E embedding size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

Outputs = Mapping[str, Tensor]
Forward = Callable[..., dict[str, Tensor]]  # a module, as under autocast: its named outputs


class VideoModel(nn.Module):
    """Base of the models that are trained. `forward` gives the one tensor that is predicted from."""

    def outputs(self, *inputs: Tensor) -> dict[str, Tensor]:
        """All that the loss may look at, by name; `logits` alone unless a model has more."""
        return {"logits": self(*inputs)}


class NamedOutputs(nn.Module):
    """The named outputs of a module as its forward pass, so that DDP and compilation see all of them."""

    def __init__(self, module: nn.Module) -> None:
        """A module that is no VideoModel gives logits."""
        super().__init__()
        self.module = module

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        """See VideoModel.outputs."""
        return named_outputs(self.module, *inputs)


def named_outputs(module: nn.Module, *inputs: Tensor) -> dict[str, Tensor]:
    """The outputs of a VideoModel, or the logits of any other module."""
    return module.outputs(*inputs) if isinstance(module, VideoModel) else {"logits": module(*inputs)}


def stage_logits(outputs: Outputs) -> list[Tensor]:
    """The logits of every stage, first to last; those of models without stages alone."""
    earlier = [outputs[name] for name in outputs if name.startswith("aux.stage")]
    return [*earlier, outputs["logits"]]
