"""What `demo` prints: progress of making the videos, the run, and where the reports are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import typer

from reelwright.cli.progress import counted
from reelwright.cli.run import run_and_tell
from reelwright.pipeline.demo import prepare_demo
from reelwright.pipeline.project import Project
from reelwright.pipeline.results import RunOptions


def run_demo(folder: Path, overrides: Sequence[str], *, jobs: int | None) -> None:
    """Make the videos, run the chain, print what came out."""
    with counted(f"videos in {folder / 'data'}", "videos") as tell:
        file = prepare_demo(folder, overrides=overrides, workers=jobs or os.cpu_count() or 1, progress=tell)
    run_and_tell(file, RunOptions(jobs=jobs), as_json=False)
    project = Project(file)
    typer.echo("")
    for name, config in file.nodes.items():
        if config.produces == "scores":
            typer.echo(f"report of {name}: {os.path.relpath(project.report(name) / 'report.html')}")
