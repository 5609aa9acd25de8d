"""From frames to what the encoder is fed: uint8 geometry beside the decoding processes, normalisation on the device.

    frame (H,W,3) uint8 --resize, crop--> (h,w,3) uint8 --copy to device--> (x / 255 - mean) / std, float

Frames travel as bytes, a quarter of their float size. Resize and crop are those of the model's own transform
(Pillow's on uint8, unless resize_with says torch), so that rows equal a plain loop over that transform.
Shape letters: B batch, T frames of a clip, H height, W width, C channels.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from reelwright.models.encoders.base import DataConfig
from reelwright.stages.decode.geometry import Geometry
from reelwright.stages.embed.config import ClipSettings, PreprocessSettings
from reelwright.storage.errors import ConfigError


def override(own: DataConfig, settings: PreprocessSettings, *, clip: ClipSettings) -> DataConfig:
    """The encoder's own preprocessing with the settings that are given; a clip length replaces the encoder's.

    A size without a resize keeps the ratio of the two: 224 of 256 becomes 160 of 182. Raises ConfigError for settings
    that cannot be carried out together.
    """
    given: dict[str, Any] = {name: value for name, value in settings.model_dump().items() if value is not None}
    if "size" in given and "resize" not in given:
        given["resize"] = _scaled(own, given["size"])
    if clip.length is not None:
        given["clip_length"] = clip.length
    try:
        return replace(own, **given)
    except ValueError as error:
        raise ConfigError(f"preprocess: {error}") from error


def _scaled(own: DataConfig, size: tuple[int, int]) -> int | tuple[int, int]:
    if isinstance(own.resize, int):
        return math.floor(min(size) * own.resize / min(own.size))
    height, width = (math.floor(new * old / was) for new, old, was in zip(size, own.resize, own.size, strict=True))
    return height, width


def geometry_of(config: DataConfig) -> Geometry:
    """Resize and crop of ``config``, done in the threads that serve the decoding processes."""
    red, green, blue = (round(255 * value) for value in config.mean)
    return Geometry(
        size=config.size,
        resize=config.resize,
        crop=config.crop,
        interpolation=config.interpolation,
        antialias=config.antialias,
        resize_with=config.resize_with,
        fill=(red, green, blue),
    )


def described(config: DataConfig) -> Mapping[str, Any]:
    """Plain data for the store's attributes; who resizes only where it is not Pillow, as in earlier releases."""
    values = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(config).items()}
    if config.resize_with == "pillow":
        values.pop("resize_with")
    return values


def data_config_from(values: Mapping[str, Any]) -> DataConfig:
    """The inverse of `described`."""
    given: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return DataConfig(**given)


class Normalise:
    """uint8 frames (B,H,W,3) or clips (B,T,H,W,3) -> float32 (B,3,H,W) or (B,3,T,H,W), normalised, on ``device``."""

    def __init__(self, config: DataConfig, *, device: torch.device, channels_last: bool, limits: bool = True) -> None:
        """``limits``: on a CPU one thread does it; not for threads that have few: what they set is taken by others."""
        mean, std = torch.tensor(config.mean, device=device), torch.tensor(config.std, device=device)
        self._scale = 1 / (255 * std)
        self._shift = -mean / std
        self._channels_last, self._limits = channels_last, limits and device.type == "cpu"

    def __call__(self, frames: Tensor) -> Tensor:
        """The batch in the memory layout chosen; channels last is how frames lie already."""
        with _one_thread() if self._limits else contextlib.nullcontext():
            if self._channels_last:
                return torch.addcmul(self._shift, frames.to(self._scale.dtype), self._scale).movedim(-1, 1)
            bytes_first = frames.movedim(-1, 1).contiguous()  # a quarter of what floats would be to move
            each = (-1, *(1,) * (frames.ndim - 2))  # of the channels
            return torch.addcmul(self._shift.view(each), bytes_first.to(self._scale.dtype), self._scale.view(each))


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """So little work is soon done by one; others would burn their cores, which decoding shares, with waiting."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
