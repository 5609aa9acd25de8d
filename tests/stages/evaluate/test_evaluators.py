"""What evaluators that are plug-ins are given, and what they may give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reelwright.pipeline.project import Project
from reelwright.stages.base.plugins import find_plugin
from reelwright.stages.evaluate.config import EvaluatorSettings
from reelwright.stages.evaluate.evaluators import own_scores, predicted
from reelwright.storage.errors import StageError

MEASURE = """
class Measure:
    def __init__(self, *, value: float = 1.0):
        self.value = value

    def __call__(self, predicted):
        return GIVEN
"""


def measured(folder: Path, project: Project, given: str) -> dict[str, dict[str, dict[str, float]]]:
    (folder / "measure.py").write_text(MEASURE.replace("GIVEN", given))
    name = "measure.py:Measure"
    plugin = find_plugin("evaluators", name, folder=folder)
    settings = EvaluatorSettings.model_validate({"name": name, "value": 2})
    plugins = {f"evaluators:{name}": plugin.plain()}
    return own_scores(project.predictions("predict"), [settings], splits={"test": {"test"}}, plugins=plugins)


def test_an_evaluator_is_given_what_the_tables_have(finished: Path, tmp_path: Path) -> None:
    project = Project.open(finished / "reelwright.yaml")
    found = predicted(project.predictions("predict"), {"test"})
    rows = (
        project.predictions("predict")
        .rows()
        .filter([split == "test" for split in project.predictions("predict").rows()["split"].to_pylist()])
    )
    assert found.video_ids == tuple(rows["video_id"].to_pylist())
    assert set(found.video_ids) == {"d", "e"}
    assert (found.unit, found.task, found.classes) == ("rows", "per_row", tuple(found.classes))
    np.testing.assert_array_equal(found.scores.argmax(1), rows["label_id"].to_numpy())
    np.testing.assert_array_equal(found.targets, rows["target_id"].to_numpy())
    given = "{'rows': len(predicted.scores), 'value': self.value}"
    assert measured(tmp_path, project, given) == {"test": {"Measure": {"rows": len(found.scores), "value": 2.0}}}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("{'x': float('nan')}", r"evaluators: Measure gives nan for x; needed is a finite number"),
        ("{'x': 'much'}", r"evaluators: Measure gives 'much' for x; needed is a finite number"),
        ("[1.0]", r"evaluators: Measure gives list; needed is a mapping of names to numbers"),
    ],
)
def test_other_than_finite_numbers_are_refused(finished: Path, tmp_path: Path, given: str, message: str) -> None:
    with pytest.raises(StageError, match=message):
        measured(tmp_path, Project.open(finished / "reelwright.yaml"), given)
