"""Random erasing and resized crops of clips: one box for all frames, sizes, fills, and the same draw again."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reelwright.stages.augment.config import ErasingSettings
from reelwright.stages.augment.erasing import FILLS, draw_boxes, erase
from reelwright.stages.augment.resized_crop import CropSettings, draw_crop
from reelwright.stages.datasets.sampling.generators import generators_at

ALWAYS = {"probability": 1.0}


def clip_generators(seed, *, epoch, items):
    return generators_at(seed, "test", epoch=epoch, places=items)


def clips(num_clips=3, length=4, size=(32, 40)):
    return torch.full((num_clips, length, 3, *size), 7.0)


@pytest.mark.parametrize("mode", FILLS)
def test_one_box_for_all_frames(mode):
    erased = erase(clips(), ErasingSettings(mode=mode, **ALWAYS), clip_generators(0, epoch=0, items=range(3)))
    lost_BTHW = (erased != 7).any(2)
    assert lost_BTHW.any(-1).any(-1).all()
    assert (lost_BTHW == lost_BTHW[:, :1]).all()
    for clip, lost in zip(erased, lost_BTHW, strict=True):
        rows, columns = lost[0].any(1).nonzero(), lost[0].any(0).nonzero()
        assert lost[0].sum() == len(rows) * len(columns)  # a box
        inside = clip[:, :, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert (inside == 0).all() == (mode == "const")
        assert (inside == inside[:1]).all() == (mode != "pixel")  # noise is new in every frame
        assert (inside == inside[..., :1, :1]).all() == (mode != "pixel")


def test_the_input_stays():
    x = clips()
    erase(x, ErasingSettings(**ALWAYS), clip_generators(0, epoch=0, items=range(3)))
    assert (x == 7).all()


def test_area_and_aspect():
    generator = np.random.default_rng(0)
    settings = ErasingSettings(area=(0.1, 0.2), aspect=(0.5, 2.0), **ALWAYS)
    for _ in range(300):
        (box,) = draw_boxes(settings, height=200, width=300, generator=generator)
        tall, wide = box.bottom - box.top, box.right - box.left
        assert 0.097 <= tall * wide / 60000 <= 0.203
        assert 0.49 <= tall / wide <= 2.04
        assert box.bottom <= 200
        assert box.right <= 300


def test_how_often():
    generator = np.random.default_rng(0)
    drawn = [draw_boxes(ErasingSettings(), height=64, width=64, generator=generator) for _ in range(3000)]
    assert np.mean([len(boxes) for boxes in drawn]) == pytest.approx(0.25, abs=0.03)


def test_several_boxes_share_the_area():
    generator = np.random.default_rng(0)
    settings = ErasingSettings(max_count=3, area=(0.3, 0.3), aspect=(1, 1), **ALWAYS)
    drawn = [draw_boxes(settings, height=300, width=300, generator=generator) for _ in range(60)]
    assert {len(boxes) for boxes in drawn} == {1, 2, 3}
    for boxes in drawn:
        total = sum((box.bottom - box.top) * (box.right - box.left) for box in boxes)
        assert total / 90000 == pytest.approx(0.3, abs=0.01)


def test_a_clip_alone_is_treated_as_in_a_batch():
    settings = ErasingSettings(mode="pixel", **ALWAYS)
    together = erase(clips(), settings, clip_generators(1, epoch=2, items=[5, 6, 7]))
    alone = erase(clips(1), settings, clip_generators(1, epoch=2, items=[6]))
    assert torch.equal(together[1], alone[0])
    other_epoch = erase(clips(1), settings, clip_generators(1, epoch=3, items=[6]))
    assert not torch.equal(other_epoch, alone)


def test_a_frame_too_small_for_any_box_is_left():
    x = clips(1, size=(1, 1))
    assert torch.equal(erase(x, ErasingSettings(**ALWAYS), clip_generators(0, epoch=0, items=[0])), x)


def test_crops_lie_inside_and_have_the_area_and_aspect():
    generator = np.random.default_rng(0)
    settings = CropSettings(area=(0.2, 0.6), aspect=(3 / 4, 4 / 3))
    for _ in range(300):
        top, left, tall, wide = draw_crop(settings, height=240, width=320, generator=generator)
        assert 0 <= top <= 240 - tall
        assert 0 <= left <= 320 - wide
        assert 0.195 <= tall * wide / (240 * 320) <= 0.605
        assert 0.73 <= wide / tall <= 1.36


@pytest.mark.parametrize(
    ("size", "box"), [((10, 100), (0, 43, 10, 13)), ((100, 10), (43, 0, 13, 10))], ids=["wide", "tall"]
)
def test_where_no_draw_fits_the_middle_is_cut(size, box):
    settings = CropSettings(area=(1.0, 1.0), aspect=(3 / 4, 4 / 3))
    assert draw_crop(settings, height=size[0], width=size[1], generator=np.random.default_rng(0)) == box


BAD = {
    "mode": (lambda: ErasingSettings(mode="noise"), "Input should be 'pixel', 'rand' or 'const'"),
    "probability": (lambda: ErasingSettings(probability=2), "less than or equal to 1"),
    "area": (lambda: ErasingSettings(area=(0.5, 0.1)), "smallest first"),
}


@pytest.mark.parametrize(("call", "match"), BAD.values(), ids=BAD)
def test_refused(call, match):
    with pytest.raises(ValueError, match=match):
        call()
