"""The encoders there are, by name, and what each is: found by building it without weights or memory."""

from __future__ import annotations

from dataclasses import dataclass

import timm
import torch

from reelwright.models.encoders.build import build_encoder, output_shapes
from reelwright.models.encoders.names import OWN_NETWORKS, VIDEO_NAMES, has_hub_weights, tsm_models


@dataclass(frozen=True, kw_only=True)
class EncoderFacts:
    """What a person asks of an encoder."""

    name: str
    kind: str  # image, or video: it sees clips
    num_parameters: int  # without a classifier
    dim: int  # D of the output `pooled`
    size: tuple[int, int]  # (H, W) in pixels that it sees
    clip_length: int  # frames; 1 of an image encoder
    is_published: bool  # whether pretrained weights lie at a hub; else they come from a file, if there are any


def encoder_names(words: tuple[str, ...] = ()) -> list[str]:
    """All names that hold each of ``words``, whatever their case: our own networks, torchvision's, then timm's.

    timm's are those with pretrained weights (NAME.TAG), and networks of which none are published. `frames/NAME`, which
    takes the same names, is listed where one of ``words`` is "frames" or begins with "frames/".
    """
    tagged = timm.list_pretrained()
    known = [f"{library}/{name}" for library, names in OWN_NETWORKS.items() for name in names]
    known += [f"torchvision/{name}" for name in VIDEO_NAMES]
    known += [f"tsm/{name}" for name in sorted(tsm_models())]
    of_timm = sorted({*tagged, *(set(timm.list_models()) - {name.partition(".")[0] for name in tagged})})
    known += [f"timm/{name}" for name in of_timm]
    if any(word.lower().partition("/")[0] == "frames" for word in words):
        known += [f"frames/{name}" for name in of_timm]
    return [name for name in known if all(word.lower() in name.lower() for word in words)]


def encoder_facts(name: str) -> EncoderFacts:
    """What an encoder is. Raises ValueError for an unknown name."""
    library, _, model = name.partition("/")
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        encoder = build_encoder(name)
        dim = output_shapes(encoder)["pooled"][0]
    return EncoderFacts(
        name=name,
        kind=encoder.kind,
        num_parameters=sum(parameter.numel() for parameter in encoder.parameters()),
        dim=dim,
        size=encoder.data_config.size,
        clip_length=encoder.data_config.clip_length,
        is_published=has_hub_weights(name) and (library == "torchvision" or timm.is_model_pretrained(model)),
    )
