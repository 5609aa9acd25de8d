"""Clip-consistent augmentation on the device: what is drawn for a clip is the same for all its frames.

Shape letters: B clips, T frames of a clip, C channels (RGB), H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.v2 import functional as kernels

from reelwright.stages.augment.config import AugmentSettings, ColorSettings

BLUR_SIGMA = (0.1, 2.0)  # pixels
Generators = Sequence[np.random.Generator]  # one a clip
GeneratorsFor = Callable[[str], Generators]  # of a purpose

_GRAY = (0.299, 0.587, 0.114)  # luma of RGB (ITU-R BT.601)


def augment(x_BTCHW: Tensor, settings: AugmentSettings, generators: GeneratorsFor) -> Tensor:
    """Randomly flip, recolour, gray and blur frames in [0, 1]; same shape and range. Crops are cut where they are read.

    What a clip gets depends on its own generators alone, not on the batch that it is in or the device.
    """
    if settings.flip:
        x_BTCHW = flip(x_BTCHW, _uniform(generators("flip"), 1)[:, 0] < settings.flip)
    if settings.colors is not None:
        drawn = zip(x_BTCHW, generators("colours"), strict=True)
        x_BTCHW = torch.stack([jittered(clip, settings.colors, generator) for clip, generator in drawn])
    elif settings.color_jitter:
        factors_3B = 1 + settings.color_jitter * (2 * _uniform(generators("colour"), 3).T - 1)
        x_BTCHW = recolour(x_BTCHW, factors_3B)
    if settings.grayscale:
        is_gray_B = _uniform(generators("grayscale"), 1)[:, 0] < settings.grayscale
        x_BTCHW = _where(is_gray_B, kernels.rgb_to_grayscale(x_BTCHW, num_output_channels=3), x_BTCHW)
    if settings.blur:
        drawn_B2, (low, high) = _uniform(generators("blur"), 2), BLUR_SIGMA
        is_blurred_B = drawn_B2[:, 1] < settings.blur
        x_BTCHW = blur(x_BTCHW, low + (high - low) * drawn_B2[:, 0], is_blurred_B, radius=settings.blur_radius)
    return x_BTCHW


def flip(x_BTCHW: Tensor, is_flipped_B: Tensor) -> Tensor:
    """Mirror images, left and right, of some of the clips."""
    return _where(is_flipped_B, x_BTCHW.flip(-1), x_BTCHW)


def jittered(x_TCHW: Tensor, settings: ColorSettings, generator: np.random.Generator) -> Tensor:
    """Brightness, contrast, saturation and hue of one clip, in the order that is drawn; the clip itself where not."""
    strengths = (settings.brightness, settings.contrast, settings.saturation)
    coin, *shares = generator.random(5).tolist()  # drawn whether they are used or not, so that streams stay alike
    factors = [max(0.0, 1 - x) + share * (1 + x - max(0.0, 1 - x)) for x, share in zip(strengths, shares, strict=False)]
    changes: list[Callable[[Tensor], Tensor]] = [
        lambda x: kernels.adjust_brightness(x, factors[0]),
        lambda x: kernels.adjust_contrast(x, factors[1]),
        lambda x: kernels.adjust_saturation(x, factors[2]),
        lambda x: kernels.adjust_hue(x, settings.hue * (2 * shares[3] - 1)),
    ]
    order = generator.permutation(len(changes)).tolist()
    for place in order if coin < settings.probability else ():
        x_TCHW = changes[place](x_TCHW)
    return x_TCHW


def recolour(x_BTCHW: Tensor, factors_3B: Tensor) -> Tensor:
    """Brightness, contrast around the clip's mean and saturation around its luma, each by a factor for each clip."""
    brightness, contrast, saturation = factors_3B.to(x_BTCHW)[:, :, None, None, None, None].unbind(0)
    x = x_BTCHW * brightness
    mean = x.mean(dim=(1, 2, 3, 4), keepdim=True)
    x = (x - mean) * contrast + mean
    luma = torch.tensor(_GRAY).to(x).reshape(3, 1, 1)
    gray = (x * luma).sum(2, keepdim=True)
    return ((x - gray) * saturation + gray).clamp(0, 1)


def blur(x_BTCHW: Tensor, sigma_B: Tensor, is_blurred_B: Tensor, *, radius: int) -> Tensor:
    """A Gaussian blur of width `sigma` for some of the clips; the kernel reaches `radius` pixels to either side."""
    length, channels = x_BTCHW.shape[1:3]
    position = torch.arange(-radius, radius + 1)
    kernel_BK = torch.exp(-0.5 * (position[None] / sigma_B[:, None]) ** 2)
    kernel_BK = kernel_BK / kernel_BK.sum(1, keepdim=True)
    kernel_BK[~is_blurred_B] = (position == 0).float()  # leaves a clip as it is
    weight = kernel_BK.to(x_BTCHW).repeat_interleave(length * channels, 0)
    planes = x_BTCHW.reshape(1, -1, *x_BTCHW.shape[-2:])
    padded = functional.pad(planes, [radius] * 4, mode="replicate")
    rows = functional.conv2d(padded, weight[:, None, :, None], groups=len(weight))
    return functional.conv2d(rows, weight[:, None, None, :], groups=len(weight)).reshape(x_BTCHW.shape)


def _where(is_so_B: Tensor, x_BTCHW: Tensor, y_BTCHW: Tensor) -> Tensor:
    return torch.where(is_so_B.to(x_BTCHW.device)[:, None, None, None, None], x_BTCHW, y_BTCHW)


def _uniform(generators: Generators, count: int) -> Tensor:
    """Float32 (B, count) in [0, 1), a row from each clip's generator."""
    return torch.from_numpy(np.stack([generator.random(count, dtype=np.float32) for generator in generators]))
