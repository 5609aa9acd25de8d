"""Bars and sheets are where they should be; histograms count by hand."""

from __future__ import annotations

import numpy as np
import pytest

from reelwright.stages.evaluate.pages.palette import COLOURS
from reelwright.stages.show.pictures import MAX_BARS, Panel, draw_panels, draw_sheet, histogram

HISTOGRAMS = {
    "two splits": ({"train": [0, 1, 2, 10], "test": [9.9]}, 2, [{"train": 3, "test": 0}, {"train": 1, "test": 1}]),
    "one value": ({"train": [3.0, 3.0]}, 4, [{"train": 2}]),
    "nothing": ({"train": []}, 4, []),
}


@pytest.mark.parametrize(("values", "number", "expected"), HISTOGRAMS.values(), ids=HISTOGRAMS)
def test_histogram(values, number, expected):
    assert [parts for _, parts in histogram(values, number=number)] == expected


def test_bars_are_as_long_as_their_numbers():
    bars = [("a", {"train": 30.0, "test": 10.0}), ("b", {"train": 10.0})]
    image = np.asarray(draw_panels([Panel(title="x", bars=bars)], title="t" * 500, splits=["train", "test"]))
    counts = []
    for colour in COLOURS[:2]:
        wanted = [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
        rows = (image == wanted).all(axis=2)[78:].sum(axis=1)
        counts.append(sorted(set(rows[rows > 0].tolist())))
    (short, long), (other,) = counts
    assert long == pytest.approx(3 * short, abs=4)
    assert other == pytest.approx(short, abs=4)


def test_many_bars_are_summed_up():
    panel = Panel(title="x", bars=[(str(number), {"train": 1.0}) for number in range(100)])
    assert len(panel.shown) == MAX_BARS
    assert panel.shown[-1] == ("61 more", {"train": 61.0})


def test_sheet_has_every_frame_in_order():
    frames = [(index / 2, np.full((40, 60, 3), 50 + index * 20, np.uint8)) for index in range(5)]
    image = np.asarray(draw_sheet(frames, title="x", columns=2))
    assert [int(image[44 + row * 64 + 20, 12 + column * 68 + 30, 0]) for row, column in ((0, 0), (0, 1), (2, 0))] == [
        50,
        70,
        130,
    ]
    with pytest.raises(ValueError, match="at least one frame"):
        draw_sheet([], title="x", columns=2)
