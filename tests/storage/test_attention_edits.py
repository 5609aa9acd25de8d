"""The table of edits of attention: what a line means, and what is refused."""

from __future__ import annotations

import math

import pytest

from reelwright.storage.errors import InputError
from reelwright.storage.tables.attention_edits import AttentionEdit, read_attention_edits


def read(tmp_path, text):
    path = tmp_path / "edits.csv"
    path.write_text(text, encoding="utf-8")
    return read_attention_edits(path)


def test_times_and_boxes(tmp_path):
    found = read(
        tmp_path,
        "video_id,start_seconds,stop_seconds,weight,x0,y0,x1,y1,how\na,1,2.5,0,,,,,\nb,,,0.5,0,0.25,1,1,replace\na,3,,2,,,,,multiply\n",
    )
    assert list(found) == ["a", "b"]
    assert [edit.line for edit in found["a"]] == [2, 4]
    assert (found["a"][1].start_seconds, found["a"][1].stop_seconds, found["a"][1].weight) == (3, math.inf, 2)
    assert found["b"] == (
        AttentionEdit(
            line=3, start_seconds=0, stop_seconds=math.inf, weight=0.5, replaces=True, box=(0.0, 0.25, 1.0, 1.0)
        ),
    )
    assert read(tmp_path, "video_id,weight\na,0\n")["a"][0].box is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("video,weight\na,0\n", "column 'video_id' is missing"),
        ("video_id,weight\n", "there is no edit in it"),
        ("video_id,weight,start\na,1,0\n", "column 'start' is none of edits. Known: video_id, start_seconds"),
        ("video_id,weight\na,-1\n", "row 2: weight '-1' must not be negative or infinite"),
        ("video_id,weight\na,\n", "row 2: weight '' is not a number"),
        ("video_id,weight,how\na,1,set\n", "row 2: how 'set' is not known; allowed: multiply, replace"),
        ("video_id,weight,how\na,1.5,replace\n", "weight 1.5 is to take the place of attention, which lies in"),
        ("video_id,weight,start_seconds,stop_seconds\na,1,2,2\n", "stop_seconds 2 must be after start_seconds 2"),
        ("video_id,weight,x0,y0,x1,y1\na,1,0,0,1,\n", "a box needs x0, y0, x1, y1; given are x0, y0, x1$"),
        ("video_id,weight,x0,y0,x1,y1\na,1,0,0,20,30\n", r"the box 0, 0, 20, 30 must have 0 <= x0 < x1 <= 1"),
    ],
)
def test_wrong_tables_are_refused(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read(tmp_path, text)
