"""What a record and `explain` say of the steps of a node's work."""

from types import SimpleNamespace

import pytest

from reelwright.pipeline.run.execute import _work_done
from reelwright.stages.base.work import VideoItem, headroom_line
from reelwright.storage.ledger.items import ItemRow


@pytest.mark.parametrize(
    ("work", "line"),
    [
        ({}, ""),
        ({"seconds": 3.0, "decode_seconds": 0.0}, ""),
        ({"forward_seconds": 2.0}, "work: forward 100 %"),
        (
            {"decode_seconds": 1.0, "preprocess_seconds": 2.0, "forward_seconds": 5.0},
            (
                "work: decode 12 % (without it at most 1.14 times as fast), preprocess 25 % (without it at most 1.33 "
                "times as fast), forward 62 % (without it at most 2.67 times as fast)"
            ),
        ),
    ],
)
def test_line(work, line):
    assert headroom_line(work) == line


def test_a_record_has_the_sums_of_the_items_that_were_done_now():
    wanted = [VideoItem("a", "", "a"), VideoItem("b", "", "b")]
    plan = SimpleNamespace(node=SimpleNamespace(config=SimpleNamespace(kind="items")), wanted=wanted)
    row = ItemRow(digest="a", status="ok", rows=5, decode_seconds=1.5, forward_seconds=2.0)
    found = _work_done(plan, [row, ItemRow(digest="b", status="ok", decode_seconds=0.5)], 9.0, 1.0)
    assert {name: value for name, value in found.items() if name.endswith("_seconds") and name != "video_seconds"} == {
        "decode_seconds": 2.0,
        "forward_seconds": 2.0,
    }
    assert "decode_seconds" not in _work_done(plan, [ItemRow(digest="a", status="ok")], 9.0, 1.0)
