"""A small project over the bench videos, and units of work of its nodes that have never been done."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from reelwright.pipeline.project import Project, SilentObserver
from reelwright.pipeline.run.reading import read_videos
from reelwright.pipeline.run.work_units import build_work
from reelwright.stages.base.registry import STAGES, load
from reelwright.stages.base.work import SilentReporter, Work
from reelwright.storage.digests import digest

_fresh: Iterator[int] = itertools.count()


def make_project(folder: Path, videos: list[Path], stages: str) -> Project:
    """A pipeline file in ``folder`` over ``videos``, which are read and probed already.

    stages: YAML of the stages block.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["video_id,path,split", *(f"{path.stem},{path},train" for path in videos)]
    (folder / "videos.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "steps.csv").write_text(
        "video_id,start_seconds,stop_seconds,label\n"
        + "".join(f"{path.stem},{second},{second + 1},{second % 2}\n" for path in videos for second in range(6)),
        encoding="utf-8",
    )
    text = f"videos: {{manifest: videos.csv}}\nlabels: {{segments: steps.csv}}\nstages:\n{stages}"
    (folder / "reelwright.yaml").write_text(text, encoding="utf-8")
    project = Project.open(folder / "reelwright.yaml")
    read_videos(project.file, SilentObserver())
    return project


def fresh_work(project: Project, node: str) -> Work:
    """All videos of a node under a key of its own, so that nothing of an earlier round is found."""
    planner = project.planner()
    plan = planner.plan(node)
    work = build_work(planner, plan, plan.wanted)
    return replace(work, key=digest([work.key, next(_fresh)]))


def timed_items(work: Work) -> tuple[int, float]:
    """Do ``work`` with the stage's own function; rows that came of it, and seconds."""
    reporter = SilentReporter()
    run_items = load(STAGES[work.stage].work)
    started = time.perf_counter()
    run_items(work, reporter)
    seconds = time.perf_counter() - started
    assert [row.status for row in reporter.rows] == ["ok"] * len(work.items), reporter.rows
    return sum(row.rows for row in reporter.rows), seconds
