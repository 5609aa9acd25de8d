"""The procedures that come with the package are those of the data sets."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import pytest

from reelwright.stages.steps.procedure import read_procedure

SHIPPED = files("reelwright.stages.steps")


@pytest.mark.parametrize(("name", "data"), [("industreal", "industreal"), ("meccano", "MECCANO")])
def test_shipped(name: str, data: str, real_data: Path) -> None:
    procedure = read_procedure(Path(str(SHIPPED / f"{name}.yaml")))
    steps = json.loads((real_data / "psr" / f"procedure_info_{data}.json").read_text(encoding="utf-8"))
    assert procedure.step_names == tuple(step["description"] for step in steps)
    for kind, column in (("assy", "assy"), ("main", "main")) if name == "industreal" else (("assembly", "assy"),):
        assert procedure.expected(kind) == tuple(step["id"] for step in steps if step[f"expected_in_{column}"])
    assert {len(state) for state in procedure.states} == {len(procedure.components)}
