"""Clip-consistent augmentation on the device: what is drawn for a clip is the same for all its frames.

Shape letters: B clips, T frames of a clip, C channels (RGB), H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from reelwright.stages.finetune.config import AugmentSettings
from reelwright.stages.finetune.resized_crop import ResizedCropSettings, resized_crops

BLUR_RADIUS = 3  # pixels on each side
BLUR_SIGMA = (0.1, 2.0)  # pixels
Generators = Sequence[np.random.Generator]  # one a clip
GeneratorsFor = Callable[[str], Generators]  # of a purpose

_GRAY = (0.299, 0.587, 0.114)  # luma of RGB (ITU-R BT.601)


def augment(x_BTCHW: Tensor, settings: AugmentSettings, generators: GeneratorsFor) -> Tensor:
    """Randomly crop, flip, recolour and blur frames in [0, 1]; same shape and range.

    What a clip gets depends on its own generators alone, not on the batch that it is in or the device.
    """
    if settings.crop_aspect is not None:
        assert settings.crop_scale is not None
        boxes = ResizedCropSettings(area=settings.crop_scale, aspect=settings.crop_aspect)
        x_BTCHW = resized_crops(x_BTCHW, boxes, generators("box"))
        settings = settings.model_copy(update={"crop_scale": None})
    x_BTCHW = crop_and_flip(x_BTCHW, settings, generators("crop"))
    if settings.color_jitter:
        x_BTCHW = recolour(x_BTCHW, settings.color_jitter, generators("colour"))
    if settings.blur:
        x_BTCHW = blur(x_BTCHW, settings.blur, generators("blur"))
    return x_BTCHW


def crop_and_flip(x_BTCHW: Tensor, settings: AugmentSettings, generators: Generators) -> Tensor:
    """One crop of random area and place (aspect kept) and one decision to mirror for each clip; bilinear."""
    if settings.crop_scale is None and not settings.flip:
        return x_BTCHW
    num_clips, length = x_BTCHW.shape[:2]
    low, high = settings.crop_scale or (1.0, 1.0)
    drawn_B4 = _uniform(generators, 4)
    side_B = (low + (high - low) * drawn_B4[:, 0]).sqrt()
    centre_B2 = (2 * drawn_B4[:, 1:3] - 1) * (1 - side_B)[:, None]
    mirror_B = 1 - 2 * (drawn_B4[:, 3] < settings.flip).float()
    theta_B23 = torch.zeros(num_clips, 2, 3)
    theta_B23[:, 0, 0], theta_B23[:, 1, 1] = side_B * mirror_B, side_B
    theta_B23[:, :, 2] = centre_B2
    frames = x_BTCHW.flatten(0, 1)
    theta = theta_B23.to(frames.device, frames.dtype).repeat_interleave(length, 0)
    grid = functional.affine_grid(theta, list(frames.shape), align_corners=False)
    moved = functional.grid_sample(frames, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return moved.reshape(x_BTCHW.shape)


def recolour(x_BTCHW: Tensor, strength: float, generators: Generators) -> Tensor:
    """Brightness, contrast and saturation, each by a factor in [1 - strength, 1 + strength] for each clip."""
    factors_3B = (1 + strength * (2 * _uniform(generators, 3).T - 1)).to(x_BTCHW)
    brightness, contrast, saturation = factors_3B[:, :, None, None, None, None].unbind(0)
    x = x_BTCHW * brightness
    mean = x.mean(dim=(1, 2, 3, 4), keepdim=True)
    x = (x - mean) * contrast + mean
    luma = torch.tensor(_GRAY).to(x).reshape(3, 1, 1)
    gray = (x * luma).sum(2, keepdim=True)
    return ((x - gray) * saturation + gray).clamp(0, 1)


def blur(x_BTCHW: Tensor, probability: float, generators: Generators) -> Tensor:
    """A Gaussian blur of random width for some of the clips."""
    length, channels = x_BTCHW.shape[1:3]
    drawn_B2, (low, high) = _uniform(generators, 2), BLUR_SIGMA
    sigma_B = low + (high - low) * drawn_B2[:, 0]
    is_blurred_B = drawn_B2[:, 1] < probability
    position = torch.arange(-BLUR_RADIUS, BLUR_RADIUS + 1)
    kernel_BK = torch.exp(-0.5 * (position[None] / sigma_B[:, None]) ** 2)
    kernel_BK = kernel_BK / kernel_BK.sum(1, keepdim=True)
    kernel_BK[~is_blurred_B] = (position == 0).float()  # leaves a clip as it is
    weight = kernel_BK.to(x_BTCHW).repeat_interleave(length * channels, 0)
    planes = x_BTCHW.reshape(1, -1, *x_BTCHW.shape[-2:])
    padded = functional.pad(planes, [BLUR_RADIUS] * 4, mode="replicate")
    rows = functional.conv2d(padded, weight[:, None, :, None], groups=len(weight))
    return functional.conv2d(rows, weight[:, None, None, :], groups=len(weight)).reshape(x_BTCHW.shape)


def _uniform(generators: Generators, count: int) -> Tensor:
    """Float32 (B, count) in [0, 1), a row from each clip's generator."""
    return torch.from_numpy(np.stack([generator.random(count, dtype=np.float32) for generator in generators]))
