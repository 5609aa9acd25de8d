"""Augmentation of single frames on the device, each drawn for itself.

Shape letters: B frames, C channels (RGB), H height, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from reelwright.stages.augment.clips import blur, flip, recolour
from reelwright.stages.pretrain.frame_config import ImageAugmentSettings

BLUR_RADIUS = 2  # pixels on each side: a kernel of 5


def augment_images(x_BCHW: Tensor, settings: ImageAugmentSettings) -> Tensor:
    """Mirror, recolour and blur frames in [0, 1]; same shape and range. Draws from torch's own CPU state.

    Crops are cut where frames are read.
    """
    num, x_B1CHW = len(x_BCHW), x_BCHW[:, None]  # clips of one frame
    if settings.flip:
        x_B1CHW = flip(x_B1CHW, torch.rand(num) < settings.flip)
    strengths = (settings.brightness, settings.contrast, settings.saturation)
    x_B1CHW = recolour(x_B1CHW, torch.stack([1 + strength * (2 * torch.rand(num) - 1) for strength in strengths]))
    low, high = settings.blur_sigma
    sigma_B = low + (high - low) * torch.rand(num)
    return blur(x_B1CHW, sigma_B, torch.rand(num) < settings.blur, radius=BLUR_RADIUS)[:, 0]
