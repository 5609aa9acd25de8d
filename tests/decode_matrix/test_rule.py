"""What the matrix itself rests on: pictures that carry their number, and a verdict that can be bad."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.decode_matrix.pictures import UNREADABLE, draw, read_number


@pytest.mark.parametrize("size", [(128, 96), (127, 95), (66, 50), (720, 576)])
def test_a_picture_carries_its_number_at_any_size(size: tuple[int, int]) -> None:
    for number in (0, 1, 74, 149, 512, 1023):
        scaled = Image.fromarray(draw(number)).resize(size).convert("YCbCr").convert("RGB")
        assert read_number(np.asarray(scaled)) == number


def test_the_mean_of_two_pictures_has_no_number() -> None:
    mean = (draw(3).astype(int) + draw(4)) // 2
    assert read_number(mean.astype(np.uint8)) == UNREADABLE
