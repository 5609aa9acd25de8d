"""Build an encoder by name, with its weights drawn from a seed, and find the shapes of its outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from reelwright.models.encoders.base import DataConfig, Encoder, zero_input
from reelwright.models.encoders.names import HUB, unknown_encoder
from reelwright.models.encoders.outputs import parse_outputs
from reelwright.models.encoders.timm_encoders import build_timm, is_known_timm_name, known_timm_names
from reelwright.models.encoders.tsm import build_tsm
from reelwright.models.encoders.video_encoders import VIDEO_FAMILIES, build_video, build_x3d
from reelwright.models.encoders.x3d import X3D_SIZES

__all__ = ["DataConfig", "Encoder", "build_encoder", "output_shapes"]


def build_encoder(
    name: str,
    *,
    outputs: Sequence[str] = ("pooled",),
    seed: int | None = None,
    pretrained: bool = False,
    model_args: Mapping[str, object] | None = None,
    num_classes: int | None = None,
) -> Encoder:
    """Create the encoder `name` with the outputs named, in train mode, on the CPU, in float32.

    `name` is `timm/NAME`, `hf-hub:org/name` (timm's hub models) or `torchvision/NAME` (its video models),
    `tsm/NAME` (temporal shifts in timm's ResNets and MobileNetV2s) or `x3d/NAME`. `model_args` go to the builder. With
    `seed`, the initial weights depend on it alone and the global random state is left as it was. The classifier is kept
    only for the output `logits` or a `num_classes`.
    Raises ValueError for an unknown name (naming the nearest), output, or model argument.
    """
    parse_outputs(outputs)
    build, model_name = _resolve(name)

    def build_now() -> Encoder:
        return build(model_name, outputs=outputs, pretrained=pretrained, model_args=model_args, num_classes=num_classes)

    if seed is None:
        return build_now()
    # Only the CPU generator: torch.manual_seed would also reseed the generators of every accelerator.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return build_now()


def _resolve(name: str) -> tuple[Callable[..., Encoder], str]:
    if name.startswith(HUB) and len(name) > len(HUB):
        return build_timm, name
    library, _, model_name = name.partition("/")
    if library == "timm" and is_known_timm_name(model_name):
        return build_timm, model_name
    if library == "tsm" and is_known_timm_name(model_name):
        return build_tsm, model_name
    if library == "torchvision" and model_name in VIDEO_FAMILIES:
        return build_video, model_name
    if library == "x3d" and model_name in X3D_SIZES:
        return build_x3d, model_name
    raise ValueError(unknown_encoder(name, known_timm_names()))


def output_shapes(encoder: Encoder) -> dict[str, tuple[int, ...]]:
    """Shape per row (without the batch) of each output, from one forward pass on zeros of the model's own size.

    The mode (train or eval) of `encoder` is as before afterwards.
    """
    was_training = encoder.training
    encoder.eval()
    with torch.no_grad():
        found = encoder(zero_input(encoder))
    encoder.train(was_training)
    return {name: tuple(tensor.shape[1:]) for name, tensor in found.items()}
