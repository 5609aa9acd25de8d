"""docs/cast.md: its pipeline hangs together, and its tables are of the options there are."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from reelwright.models.clip_options import CastOptions
from reelwright.pipeline.config.pipeline_file import load_pipeline
from reelwright.pipeline.plan.graph import build_graph
from reelwright.stages.finetune.config import FinetuneConfig

PAGE = (Path(__file__).parents[2] / "docs" / "cast.md").read_text(encoding="utf-8")


def test_its_pipeline_hangs_together(tmp_path: Path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "reelwright.yaml").write_text(block, encoding="utf-8")
    file = load_pipeline(tmp_path / "reelwright.yaml")
    assert set(build_graph(file).nodes) == set(file.nodes)
    for node in file.nodes.values():
        node.check_names()
    whole = file.nodes["whole"]
    assert isinstance(whole, FinetuneConfig)
    assert whole.experts == ("space", "time")


def test_its_table_names_all_options() -> None:
    lines = "\n".join(line.split("|")[1] for line in PAGE.split("\n") if line.startswith("| `"))
    named = re.findall(r"`(\w+)`", lines)
    assert sorted(named) == sorted(entry.name for entry in fields(CastOptions) if entry.name != "source")
