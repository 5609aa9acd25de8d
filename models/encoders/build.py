"""Build an encoder by name, with its weights drawn from a seed, and find the shapes of its outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from reelwright.models.encoders.base import DataConfig, Encoder, EncoderRequest, zero_input
from reelwright.models.encoders.frames_of_clips import build_frames
from reelwright.models.encoders.names import HUB, unknown_encoder
from reelwright.models.encoders.outputs import parse_outputs
from reelwright.models.encoders.timm_encoders import build_timm, is_known_timm_name, known_timm_names
from reelwright.models.encoders.tsm import build_tsm
from reelwright.models.encoders.video_encoders import VIDEO_FAMILIES, build_video, build_x3d
from reelwright.models.encoders.videomae import VIDEOMAE_SIZES, build_videomae
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
    `tsm/NAME` (temporal shifts in timm's ResNets and MobileNetV2s), `x3d/NAME`, `videomae/NAME` or `frames/NAME`
    (timm's image encoders on frames of a clip). `model_args` go to the builder. With `seed`, the initial weights depend
    on it alone and the global random state is left as it was. The classifier is kept only for the output `logits` or a
    `num_classes`.
    Raises ValueError for an unknown name (naming the nearest), output, or model argument.
    """
    parse_outputs(outputs)
    build, model_name = _resolve(name)
    arguments = dict(model_args or {})
    request = EncoderRequest(
        name=model_name, outputs=outputs, pretrained=pretrained, model_args=arguments, num_classes=num_classes
    )
    if seed is None:
        return build(request)
    # Only the CPU generator: torch.manual_seed would also reseed the generators of every accelerator.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return build(request)


def _resolve(name: str) -> tuple[Callable[[EncoderRequest], Encoder], str]:
    if name.startswith(HUB) and len(name) > len(HUB):
        return build_timm, name
    library, _, model_name = name.partition("/")
    if library in _LIBRARIES:
        build, is_known = _LIBRARIES[library]
        if is_known(model_name):
            return build, model_name
    raise ValueError(unknown_encoder(name, known_timm_names()))


_LIBRARIES: dict[str, tuple[Callable[[EncoderRequest], Encoder], Callable[[str], bool]]] = {
    "timm": (build_timm, is_known_timm_name),
    "tsm": (build_tsm, is_known_timm_name),
    "frames": (build_frames, is_known_timm_name),
    "torchvision": (build_video, VIDEO_FAMILIES.__contains__),
    "x3d": (build_x3d, X3D_SIZES.__contains__),
    "videomae": (build_videomae, VIDEOMAE_SIZES.__contains__),
}  # what builds a library's encoders, and whether it has one of that name


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
