"""Resampling of frames along a camera's way: every motion is a matrix, all of a clip's motions are one resampling.

A matrix (3, 3) takes a point of the picture that is made, (x, y, 1) in pixels from the frame's top left corner, to the
point that is seen there. Motions one after the other multiply.
Shape letters: B clips, T frames, C channels, H height, W width.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from reelwright.stages.augment.scene.motion import Crops, FloatArray

Matrices = npt.NDArray[np.float64]
_HORIZON = 1e-6  # depth of points that would be infinitely far away


def crop_matrices(crops: Crops, *, height: int, width: int) -> Matrices:
    """Of crops of the enlarged frame, (T, 3, 3)."""
    sides = np.array([height, width])
    scales = np.broadcast_to(sides / (sides + crops.margin), crops.offsets.shape)
    return _scaled(scales, crops.offsets)


def zoom_matrices(scales_T: FloatArray, *, height: int, width: int) -> Matrices:
    """Of frames enlarged and cut down to their middle, whole pixels, (T, 3, 3)."""
    offsets = [
        [round((math.floor(side * scale) - side) / 2) for side in (height, width)] for scale in scales_T.tolist()
    ]
    return _scaled(1 / scales_T[:, None].repeat(2, axis=1), np.array(offsets))


def perspective_matrix(corners: FloatArray, *, height: int, width: int, zoom: float) -> Matrices:
    """Of a frame whose corners go to `corners` (4, 2) x and y, the middle of it then enlarged, (1, 3, 3)."""
    sources = np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], np.float64)
    rows = []
    for (x, y), (x_source, y_source) in zip(corners, sources, strict=True):
        rows.append([x, y, 1, 0, 0, 0, -x_source * x, -x_source * y])
        rows.append([0, 0, 0, x, y, 1, -y_source * x, -y_source * y])
    solution = np.linalg.solve(np.array(rows), sources.reshape(-1))
    return np.append(solution, 1).reshape(1, 3, 3) @ zoom_matrices(np.array([zoom]), height=height, width=width)


def moved(x_BTCHW: Tensor, matrices_BT33: Matrices) -> Tensor:
    """Frames displaced and enlarged, bilinear; the matrices neither turn nor bend. At the edge the frame goes on."""
    *_, height, width = x_BTCHW.shape
    matrices = _to_grid(x_BTCHW, matrices_BT33)
    x_N1W = matrices[:, 0, 0, None, None] * _centres(width, x_BTCHW) + matrices[:, 0, 2, None, None]
    y_NH1 = matrices[:, 1, 1, None, None] * _centres(height, x_BTCHW)[:, None] + matrices[:, 1, 2, None, None]
    return _sampled(x_BTCHW, torch.stack([x_N1W.expand(-1, height, -1), y_NH1.expand(-1, -1, width)], -1))


def looked_at(x_BTCHW: Tensor, matrices_BT33: Matrices) -> Tensor:
    """Frames as the matrices have them, bilinear, black outside of the frame, with torchvision's soft edge."""
    *_, height, width = x_BTCHW.shape
    a_N3311 = _to_grid(x_BTCHW, matrices_BT33)[..., None, None]
    columns, rows = _centres(width, x_BTCHW), _centres(height, x_BTCHW)[:, None]
    x, y, depth = (a_N3311[:, row, 0] * columns + (a_N3311[:, row, 1] * rows + a_N3311[:, row, 2]) for row in range(3))
    depth = depth.masked_fill_(depth == 0, _HORIZON).reciprocal_()
    x, y = x.mul_(depth), y.mul_(depth)
    inside_NHW = _inside(x, width).mul_(_inside(y, height)).square_()
    found = _sampled(x_BTCHW, torch.stack([x, y], -1))
    return found.mul_(inside_NHW.reshape(*x_BTCHW.shape[:2], 1, height, width))


def _inside(coordinate_NHW: Tensor, side: int) -> Tensor:
    """1 inside of the frame, 0 from half a pixel outside on."""
    return coordinate_NHW.abs().neg_().add_(1).mul_(side / 2).add_(0.5).clamp_(0, 1)


def _to_grid(x_BTCHW: Tensor, matrices_BT33: Matrices) -> Tensor:
    """Matrices (B T, 3, 3) that end in the coordinates of grid_sample, -1 to 1 from edge to edge."""
    *_, height, width = x_BTCHW.shape
    normalised = np.array([[2 / width, 0, -1], [0, 2 / height, -1], [0, 0, 1]]) @ matrices_BT33
    return torch.from_numpy(normalised.reshape(-1, 3, 3)).to(x_BTCHW)


def _centres(side: int, like: Tensor) -> Tensor:
    return torch.arange(side, dtype=like.dtype, device=like.device) + 0.5


def _sampled(x_BTCHW: Tensor, grid_NHW2: Tensor) -> Tensor:
    frames = x_BTCHW.reshape(-1, *x_BTCHW.shape[2:])
    found = functional.grid_sample(frames, grid_NHW2, padding_mode="border", align_corners=False)
    return found.reshape(x_BTCHW.shape)


def _scaled(scales_T2: FloatArray, offsets_T2: npt.NDArray[np.int64]) -> Matrices:
    """Points moved by offsets, then scaled; both of rows and columns."""
    matrices = np.zeros((len(offsets_T2), 3, 3))
    matrices[:, 2, 2] = 1
    for axis, place in ((0, 1), (1, 0)):  # rows are y
        matrices[:, place, place] = scales_T2[:, axis]
        matrices[:, place, 2] = scales_T2[:, axis] * offsets_T2[:, axis]
    return matrices
