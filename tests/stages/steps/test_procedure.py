"""Procedure files: what is read, and what is refused."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from reelwright.stages.steps.procedure import Procedure, read_procedure
from reelwright.storage.errors import ConfigError, InputError

SHIPPED = files("reelwright.stages.steps")


def test_names_and_ids():
    procedure = Procedure(name="shelf", components=("board", "screw"), steps={3: "drive the screw"})
    assert procedure.step_names == (
        "Install board",
        "Incorrectly installed board",
        "Remove board",
        "drive the screw",
        "Incorrectly installed screw",
        "Remove screw",
    )
    found = [procedure.step_of(value) for value in ("drive the screw", "5", 5, "6", "screw", "-1")]
    assert found == [3, 5, 5, None, None, None]
    assert [procedure.component_of(name) for name in ("screw", "Remove board", "nail")] == [1, 0, None]
    assert [procedure.initial("procedure"), procedure.expected("procedure")] == [(0, 0), (0, 3)]


def test_kinds():
    procedure = read_procedure(Path(str(SHIPPED / "industreal.yaml")))
    assert [procedure.kind_of(name) for name in ("01_assy_0_1", "26_main_2_1")] == ["assy", "main"]
    assert sum(procedure.initial("main")) == 10
    with pytest.raises(InputError, match=r"video 'x' matches none of its procedures: assy \(\*assy\*\), main"):
        procedure.kind_of("x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\ncomponents: [x]\nstates: ['10']", "state '10' must be 1 digits of 0 and 1"),
        ("name: a\ncomponents: [x]\nstates: [1]", "states.0: 1 is not allowed: Input should be a valid string"),
        ("name: a\ncomponents: [x, x]", "components: 'x' occurs twice"),
        ("name: a\ncomponents: [x]\nsteps: {3: y}", "steps: 3 is no step id; allowed: 0 to 2"),
        ("name: a\ncomponents: [x]\nsteps: {0: Remove x}", "steps: 'Remove x' occurs twice"),
        ("name: a\ncomponents: [x]\nprocedures: {p: {expected: [Instal x]}}", "Did you mean 'Install x'"),
        ("name: a\ncomponent: [x]", "component: unknown key. Did you mean 'components'"),
        ("- a", "a procedure is a YAML mapping"),
        ("a: [", "the procedure cannot be read"),
    ],
)
def test_refused(tmp_path, text, message):
    path = tmp_path / "p.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises((ConfigError, InputError), match=message.replace("(", r"\(")):
        read_procedure(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"gone\.yaml: the procedure cannot be read"):
        read_procedure(tmp_path / "gone.yaml")
