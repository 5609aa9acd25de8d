"""docs/learning-from-views.md: its settings are ones that train takes, and its table names all there are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import yaml

from reelwright.models.systems.carl_options import FRAME_MODEL_OPTIONS
from reelwright.stages.datasets.sampling.settings import ViewSettings
from reelwright.stages.fit.optim.config import OptimizerSettings
from reelwright.stages.objectives.config import SELF_SUPERVISED, SEQUENCE_OBJECTIVES
from reelwright.stages.train.config import TrainConfig

PAGE = (Path(__file__).parents[2] / "docs" / "learning-from-views.md").read_text(encoding="utf-8")


def test_its_settings_are_allowed() -> None:
    pipeline, compared, optimizer = (
        yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    )
    carl = {name: value for name, value in pipeline["stages"]["carl"].items() if name != "uses"}
    config = TrainConfig(**carl)
    assert not config.learns_labels
    still = {name: value for name, value in compared["stages"]["still"].items() if name != "uses"}
    assert TrainConfig(**still).compares_views
    assert OptimizerSettings(**optimizer["optimizer"]).groups[-1].frozen


def test_its_table_names_all_models_objectives_and_samplings() -> None:
    sampling = ViewSettings.model_fields["sampling"].annotation
    names = [name for choice in get_args(sampling) for name in get_args(choice)]
    for name in (*FRAME_MODEL_OPTIONS, *SEQUENCE_OBJECTIVES, *SELF_SUPERVISED, *names):
        assert f"| `{name}` |" in PAGE, name
