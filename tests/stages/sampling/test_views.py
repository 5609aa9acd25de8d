"""Views of a test: the crops of CAST and ST-ABN."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from reelwright.stages.datasets.sampling.views import Box, corner_crops, line_crops
from reelwright.stages.decode.geometry import Geometry, apply

VECTORS = json.loads((Path(__file__).parents[2] / "data" / "sampling_vectors.json").read_text())
CROPS = {f"{case['resized_hw']} {case['test_num_crop']}": case for case in VECTORS["cast"]["test_crops"]}


@pytest.mark.parametrize("case", CROPS.values(), ids=CROPS)
def test_crops_of_cast(case):
    boxes = line_crops(*case["resized_hw"], num_crops=case["test_num_crop"], single="first")
    for crop in case["crops"]:
        box = boxes[crop["split"]]
        assert [box.top, box.left] == crop["top_left"]
        assert [box.height, box.width] == crop["size"]


def test_one_crop_is_the_centre():
    assert line_crops(224, 398, num_crops=1) == (Box(0, 87, 224, 224),)


def test_crops_smaller_than_the_shorter_side():
    """16 x 10 pixels, crops of 6: along the longer side at 0, 5, 10, across in the middle, at 2."""
    assert line_crops(10, 16, num_crops=3, size=6) == tuple(Box(2, left, 6, 6) for left in (0, 5, 10))
    assert line_crops(16, 10, num_crops=3, size=6) == tuple(Box(top, 2, 6, 6) for top in (0, 5, 10))


def test_crops_of_a_frame_that_is_nearly_square_repeat():
    assert line_crops(8, 9, num_crops=5) == (*(Box(0, 0, 8, 8),) * 4, Box(0, 1, 8, 8))


def test_three_crops_of_st_abn():
    boxes = line_crops(256, 340, num_crops=3)
    as_corners = [[box.left, box.top, box.left + box.width - 1, box.top + box.height - 1] for box in boxes]
    key = "three_crop_boxes(340x256,crop256) order left,right,middle [x1,y1,x2,y2 inclusive]"
    left, right, middle = VECTORS["st_abn"][key]
    assert as_corners == [left, middle, right]


def test_five_and_ten_crops_of_st_abn():
    boxes = corner_crops(256, 340, size=224)
    offsets = VECTORS["st_abn"]["fill_fix_offset(340x256 -> 224x224)"]["5_corner"]
    assert [[box.left, box.top] for box in boxes] == offsets
    centre = VECTORS["st_abn"]["center_crop_box(340x256->224)"]
    assert [boxes[-1].left, boxes[-1].top] == centre[:2]
    ten = corner_crops(256, 340, size=224, mirrored=True)
    assert [box.mirrored for box in ten] == [False, True] * 5


@pytest.mark.parametrize(
    ("size", "resized"), [(tuple(case[0]), case[1]) for case in VECTORS["cast"]["short_side_resize(h,w,size)->(oh,ow)"]]
)
def test_short_side_of_cast(size, resized):
    height, width, short_side = size
    frames = apply(np.zeros((1, height, width, 3), dtype=np.uint8), Geometry(resize=short_side))
    assert list(frames.shape[1:3]) == resized


BAD = {
    "crops": (lambda: line_crops(2, 2, num_crops=0), "num_crops 0 must be at least 1"),
    "single": (lambda: line_crops(2, 2, num_crops=1, single="left"), "single 'left' centre or first"),
    "size": (lambda: line_crops(8, 20, num_crops=3, size=9), "crops of 9 pixels do not fit into frames of 8 by 20"),
    "small": (lambda: corner_crops(200, 300, size=224), "crops of 224 pixels do not fit into frames of 200 by 300"),
}


@pytest.mark.parametrize(("call", "match"), BAD.values(), ids=BAD)
def test_refused(call, match):
    with pytest.raises(ValueError, match=match):
        call()
