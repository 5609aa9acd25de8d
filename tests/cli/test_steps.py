"""The commands for step recognition."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from reelwright.cli.main import app
from reelwright.stages.steps.procedure import read_procedure
from reelwright.storage.errors import ConfigError


def test_procedure_is_printed_to_be_used(tmp_path):
    result = CliRunner().invoke(app, ["prepare", "procedure", "meccano"])
    assert result.exit_code == 0
    path = tmp_path / "procedure.yaml"
    path.write_text(result.stdout, encoding="utf-8")
    assert len(read_procedure(path).components) == 17


def test_import_detections(tmp_path):
    (tmp_path / "x_results_pred.csv").write_text("h\n0,4,2,0.5,1,2,3,4\n", encoding="utf-8")
    target = tmp_path / "table.csv"
    result = CliRunner().invoke(app, ["prepare", "detections", str(tmp_path), "--out", str(target)])
    assert result.stdout == f"1 detections in {target}\n"
    assert target.read_text(encoding="utf-8").splitlines() == [
        "video_id,frame,class,confidence,x,y,w,h",
        "x,4,2,0.5,1,2,3,4",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prepare", "procedure", "mecano"], "Did you mean 'meccano'"),
        (["prepare", "detections", ".", "--out", "table.parquet"], "the table is a .csv"),
    ],
)
def test_refused(arguments, message):
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, ConfigError)
    assert message in str(result.exception)
