"""One resampling of frames against torch's and torchvision's own steps, on pictures and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional
from torchvision.transforms.v2 import functional as kernels

from reelwright.stages.augment.scene.layers import (
    Background,
    Copy,
    Dynamic,
    Placement,
    Still,
    mixed,
    placed,
    shown_behind,
)
from reelwright.stages.augment.scene.motion import Crops, Shift, draw_corners, shift_crops, zoom_scales
from reelwright.stages.augment.scene.warp import crop_matrices, looked_at, moved, perspective_matrix, zoom_matrices

SIZE = {"height": 24, "width": 30}


@pytest.fixture(scope="module")
def clips():
    """(2, 6, 3, 24, 30) of noise."""
    return torch.rand(2, 6, 3, 24, 30, generator=torch.Generator().manual_seed(0))


def enlarged_and_cut(clip, crops):
    """A step for itself: every frame enlarged, then cut."""
    size = (24 + crops.margin, 30 + crops.margin)
    large = functional.interpolate(clip, size=size, mode="bilinear")
    cut = [
        frame[:, row : row + 24, column : column + 30]
        for frame, (row, column) in zip(large, crops.offsets, strict=True)
    ]
    return torch.stack(cut)


@pytest.mark.parametrize("shift", [Shift(2.5, 4, 0.5, 1), Shift(1.7, 6, 4.0, 0), Shift(6.0, 2, 2.2, 4)], ids=str)
def test_displacements_are_an_enlarged_frame_that_is_cut(clips, shift):
    crops = shift_crops(shift, 6)
    found = moved(clips, np.stack([crop_matrices(crops, **SIZE)] * 2))
    torch.testing.assert_close(found, torch.stack([enlarged_and_cut(clip, crops) for clip in clips]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("is_backwards", [False, True])
def test_zooms_are_the_middle_of_an_enlarged_frame(clips, is_backwards):
    scales = zoom_scales(0.13, 4, 1, num_frames=6, is_backwards=is_backwards)
    found = moved(clips, np.stack([zoom_matrices(scales, **SIZE)] * 2))
    expected = [
        kernels.center_crop(functional.interpolate(frames, scale_factor=scale, mode="bilinear"), [24, 30])
        for frames, scale in zip(clips.unbind(1), scales.tolist(), strict=True)
    ]
    torch.testing.assert_close(found, torch.stack(expected, 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("seed", range(3))
def test_perspective_is_that_of_torchvision(clips, seed):
    corners = draw_corners(0.7, **SIZE, generator=np.random.default_rng(seed))
    matrix = np.broadcast_to(perspective_matrix(corners, **SIZE, zoom=1.0), (2, 6, 3, 3))
    start = [[0, 0], [29, 0], [29, 23], [0, 23]]
    expected = kernels.perspective(clips, start, corners.astype(int).tolist(), fill=0.0)
    torch.testing.assert_close(looked_at(clips, matrix), expected, atol=2e-4, rtol=0)


def test_the_middle_of_a_perspective_is_enlarged():
    """Corners that stay: only the zoom is left. A dot 3 pixels from the middle is then 3 x 1.5 away."""
    frame = torch.zeros(1, 1, 1, 40, 40)
    frame[..., 22:24, 20:22] = 1
    corners = np.array([[0, 0], [39, 0], [39, 39], [0, 39]], float)
    found = looked_at(frame, perspective_matrix(corners, height=40, width=40, zoom=1.5)[None])
    rows = found[0, 0, 0].sum(1)
    assert (rows * torch.arange(40)).sum() / rows.sum() == pytest.approx(19.5 + 1.5 * 3, abs=0.01)


def test_motions_one_after_the_other_are_one_matrix():
    """Of a smooth picture: two resamplings show what one of both does."""
    rows, columns = torch.meshgrid(torch.linspace(0, 1, 48), torch.linspace(0, 1, 60), indexing="ij")
    clip = (0.5 + 0.4 * torch.sin(4 * columns + 3 * rows)).expand(1, 6, 3, 48, 60)
    size = {"height": 48, "width": 60}
    first = crop_matrices(shift_crops(Shift(1.5, 6, 1.0, 0), 6), **size)
    second = zoom_matrices(zoom_scales(0.04, 6, 0, num_frames=6, is_backwards=False), **size)
    both = moved(clip, (first @ second)[None])
    torch.testing.assert_close(both, moved(moved(clip, first[None]), second[None]), atol=2e-3, rtol=0)
    assert (both - clip).abs().max() > 0.1


def test_nothing_moves_where_the_camera_stands_still(clips):
    still = zoom_matrices(np.ones(6), **SIZE)
    torch.testing.assert_close(moved(clips, np.stack([still] * 2)), clips, atol=1e-5, rtol=0)


def test_a_clip_made_smaller_lies_on_black_in_one_piece():
    clip = torch.ones(4, 3, 20, 30)
    found = placed(clip, Placement(scale=(0.5, 0.41), corner=(7, 11)))
    expected = torch.zeros_like(clip)
    expected[..., 7:17, 11:23] = 1
    torch.testing.assert_close(found, expected)


def test_a_copy_is_mirrored_later_elsewhere_and_never_darker():
    """Frame t has level t / 4 in its left half; the copy begins at frame 1 and stands still at the end."""
    clip = torch.zeros(4, 1, 8, 8)
    clip[..., :4] = (torch.arange(4.0) / 4)[:, None, None, None]
    copy = Copy(corner=(4, 4), is_mirrored=True, degrees=0.0, frames=np.array([1, 2, 3, 3]))
    found = placed(clip, Placement(scale=(0.5, 0.5), corner=(0, 0), copy=copy))
    assert found[:, 0, 1, 0].tolist() == pytest.approx([0, 0.25, 0.5, 0.75], abs=0.05)
    assert found[:, 0, 5, 7].tolist() == pytest.approx([0.25, 0.5, 0.75, 0.75], abs=0.05)
    assert found[:, 0, 1, 3].max() < 0.1
    assert found[:, 0, 5, 4].max() < 0.1
    on_top = placed(
        clip,
        Placement(
            scale=(0.5, 0.5), corner=(0, 0), copy=Copy(corner=(0, 0), is_mirrored=True, degrees=0, frames=np.arange(4))
        ),
    )
    assert on_top[:, 0, 1, 3].tolist() == pytest.approx([0, 0.25, 0.5, 0.75], abs=0.05)


def test_mixtures_by_hand():
    clip, behind = torch.tensor([0.16, 0.81]), torch.tensor([0.0625, 1.0])  # fourth roots 0.632, 0.949; 0.5, 1
    found = mixed(clip, behind, Background(source=Dynamic(clip=0, frames=np.zeros(1, int)), weight=0.4, gamma=0.5))
    sums = [0.6 * 0.16**0.75 + 0.4 * 0.125, 0.6 * 0.81**0.75 + 0.4]
    assert found.tolist() == pytest.approx([value**0.5 for value in sums], abs=1e-6)
    brighter = Background(source=Dynamic(clip=0, frames=np.zeros(1, int)), weight=None, gamma=0.5)
    assert mixed(clip, behind, brighter).tolist() == pytest.approx([0.16, 1.0])


def test_backgrounds_are_frames_of_the_batch(clips):
    still = Still(clips=(0, 1), frames=(2, 5), box=(0, 0, 24, 30), crops=None)
    assert torch.equal(shown_behind(clips, still), torch.maximum(clips[0, 2], clips[1, 5])[None])
    frames = np.array([3, 2, 3, 3, 4, 3])
    assert torch.equal(shown_behind(clips, Dynamic(clip=1, frames=frames)), clips[1, frames])
    moving = shown_behind(
        clips, Still(clips=(0, 0), frames=(1, 1), box=(0, 0, 24, 30), crops=Crops(np.array([[0, 0], [2, 1]]), 3))
    )
    large = functional.interpolate(clips[0, 1][None], size=(27, 33), mode="bicubic").clamp(0, 1)[0]
    assert torch.equal(moving, torch.stack([large[:, :24, :30], large[:, 2:26, 1:31]]))
    part = shown_behind(clips, Still(clips=(1, 1), frames=(0, 0), box=(4, 5, 12, 15), crops=None))
    expected = functional.interpolate(clips[1, 0][None, :, 4:16, 5:20], size=(24, 30), mode="bicubic").clamp(0, 1)
    assert torch.equal(part, expected)
