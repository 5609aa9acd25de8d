"""Augmentation of single frames on the device, each drawn for itself.

Shape letters: B frames, C channels (RGB), H height, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from reelwright.stages.pretrain.config import ImageAugmentSettings

BLUR_RADIUS = 2  # pixels on each side: a kernel of 5
_GRAY = (0.299, 0.587, 0.114)  # luma of RGB (ITU-R BT.601)


def augment_images(x_BCHW: Tensor, settings: ImageAugmentSettings) -> Tensor:
    """Mirror, recolour and blur frames in [0, 1]; same shape and range. Draws from torch's own CPU state.

    Crops are cut where frames are read.
    """
    if settings.flip:
        is_flipped_B = (torch.rand(len(x_BCHW)) < settings.flip).to(x_BCHW.device)
        x_BCHW = torch.where(is_flipped_B[:, None, None, None], x_BCHW.flip(-1), x_BCHW)
    return _blur(_recolour(x_BCHW, settings), settings)


def _recolour(x_BCHW: Tensor, settings: ImageAugmentSettings) -> Tensor:
    """Brightness, contrast around the frame's mean, saturation around its luma, each by a factor of its own."""

    def factors(strength: float) -> Tensor:
        return (1 + strength * (2 * torch.rand(len(x_BCHW)) - 1)).to(x_BCHW)[:, None, None, None]

    x = x_BCHW * factors(settings.brightness)
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    x = (x - mean) * factors(settings.contrast) + mean
    gray = (x * torch.tensor(_GRAY).to(x).reshape(3, 1, 1)).sum(1, keepdim=True)
    return ((x - gray) * factors(settings.saturation) + gray).clamp(0, 1)


def _blur(x_BCHW: Tensor, settings: ImageAugmentSettings) -> Tensor:
    """A Gaussian blur of random width for some of the frames."""
    num, channels = x_BCHW.shape[:2]
    low, high = settings.blur_sigma
    sigma_B = low + (high - low) * torch.rand(num)
    position = torch.arange(-BLUR_RADIUS, BLUR_RADIUS + 1)
    kernel_BK = torch.exp(-0.5 * (position[None] / sigma_B[:, None]) ** 2)
    kernel_BK = kernel_BK / kernel_BK.sum(1, keepdim=True)
    kernel_BK[torch.rand(num) >= settings.blur] = (position == 0).float()  # leaves a frame as it is
    weight = kernel_BK.to(x_BCHW).repeat_interleave(channels, 0)
    planes = functional.pad(x_BCHW.reshape(1, -1, *x_BCHW.shape[-2:]), [BLUR_RADIUS] * 4, mode="replicate")
    rows = functional.conv2d(planes, weight[:, None, :, None], groups=len(weight))
    return functional.conv2d(rows, weight[:, None, None, :], groups=len(weight)).reshape(x_BCHW.shape)
