"""Positions of tokens: fixed sines, and tables of another grid resized.

Shape letters: N positions, D features, T frames, H rows, W columns of a grid.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def sine_positions(num_positions: int, width: int) -> Tensor:
    """Fixed positions (N, D) float32: p / 10000^(2 (j // 2) / D), its sine for even j and its cosine for odd.

    Vaswani et al. 2017, section 3.5, in double precision as in VideoMAE's code.
    """
    exponent = torch.div(torch.arange(width), 2, rounding_mode="floor").double() * 2 / width
    angle = torch.arange(num_positions).double()[:, None] / 10000**exponent
    angle[:, 0::2], angle[:, 1::2] = angle[:, 0::2].sin(), angle[:, 1::2].cos()
    return angle.float()


def resize_grid(x_1ND: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Positions (1, T * H * W, D) of T frames from the grid `old` (H, W) to `new`, frame by frame; bicubic."""
    frames = x_1ND.shape[1] // (old[0] * old[1])
    x_TDHW = x_1ND.reshape(frames, *old, -1).permute(0, 3, 1, 2).float()
    moved = functional.interpolate(x_TDHW, size=new, mode="bicubic", align_corners=False)
    return moved.permute(0, 2, 3, 1).reshape(1, frames * new[0] * new[1], -1).to(x_1ND.dtype)
