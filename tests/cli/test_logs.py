"""What `logs VIDEO` says of a video in a node: what failed, and what is left out of one that went well."""

from __future__ import annotations

import pytest

from reelwright.cli.run.logs import status_text
from reelwright.pipeline.inspect.logs import Said
from reelwright.storage.ledger.items import ItemRow

ROWS = {
    "not finished": (None, "not finished"),
    "ok": (ItemRow(digest="d", status="ok", rows=6), "ok, 6 rows, 1 attempts"),
    "rows left out": (
        ItemRow(digest="d", status="ok", rows=6, message="8 of 30 frames are in no clip"),
        "ok, 6 rows, 1 attempts: 8 of 30 frames are in no clip",
    ),
    "failed": (
        ItemRow(digest="d", status="failed", cause="no_video_stream", message="only sound", attempts=2),
        "failed, 0 rows, 2 attempts (no_video_stream): only sound",
    ),
}


@pytest.mark.parametrize(("row", "words"), ROWS.values(), ids=ROWS)
def test_what_is_said_of_a_video(row, words):
    assert status_text(Said(node="node", row=row, files=())) == words
