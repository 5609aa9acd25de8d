"""What `logs VIDEO` says of a video in a node: what failed, and what is left out of one that went well."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from reelwright.cli.main import app
from reelwright.cli.run.logs import status_text
from reelwright.pipeline.inspect.logs import Said
from reelwright.storage.errors import ConfigError
from reelwright.storage.ledger.items import ItemRow
from tests.small_project import write_project

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


def test_what_is_neither_node_nor_video_is_said_to_be_neither(tmp_path: Path) -> None:
    shown = CliRunner().invoke(app, ["logs", "trian", "-c", str(write_project(tmp_path) / "reelwright.yaml")])
    assert isinstance(shown.exception, ConfigError)
    assert "no video 'trian' in the manifest. Nor is it a node. Did you mean 'train'?" in str(shown.exception)
