"""docs/probe-and-render.md: its pipeline runs, and it has all tasks and all kinds of pictures."""

from __future__ import annotations

from pathlib import Path

import pytest

from reelwright.pipeline.config.pipeline_file import load_pipeline
from reelwright.pipeline.project import Project
from reelwright.pipeline.run.checks import check_before_run
from reelwright.pipeline.run.results import RunOptions
from reelwright.pipeline.run.runner import open_planner
from reelwright.stages.probe.tasks import TASKS
from reelwright.stages.render.work import DRAWN
from tests.page_code import DOCS, write_files

PAGE = "probe-and-render.md"


def test_the_page_has_all_there_is() -> None:
    text = (DOCS / PAGE).read_text(encoding="utf-8")
    named = {name for name in (*TASKS, *DRAWN) if f"| `{name}` |" in text}
    assert named == {*TASKS, *DRAWN}
    scores = {shown for task in TASKS.values() for shown in task.headline.values()}
    plain = {name for name in scores if "@" not in name and not name.startswith("chance_") and "_linear" not in name}
    missing = {name for name in plain if f"`{name}`" not in text}
    assert missing == {f"{way}_error_rows" for way in ("dtw", "nearest", "stretch")}  # "the same in rows"


def test_the_pipeline_has_no_mistakes(folder: Path) -> None:
    write_files(PAGE, folder)
    file = load_pipeline(folder / "reelwright.yaml")
    check_before_run(open_planner(file), RunOptions())


@pytest.mark.slow
def test_the_pipeline_runs(folder: Path) -> None:
    write_files(PAGE, folder)
    project = Project.open(folder / "reelwright.yaml")
    assert project.run().exit_code == 0
    assert "kendalls_tau" in project.record("scores").outputs
    assert (project.report("pictures") / "index.html").exists()
