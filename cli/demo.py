"""What `demo` prints: the table of stages, the scores against chance, and where the reports are."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from reelwright.cli.format import table_text
from reelwright.cli.run import run_and_tell
from reelwright.pipeline.demo import prepare_demo
from reelwright.pipeline.file import PipelineFile
from reelwright.pipeline.project import Project
from reelwright.pipeline.runner import RunOptions


def run_demo(folder: Path, overrides: Sequence[str], *, jobs: int | None) -> None:
    """Make the videos, run the chain, print what came out."""

    def tell(num_done: int, num_videos: int) -> None:
        if num_done in {0, num_videos} and num_videos:
            print(f"videos: {num_done} of {num_videos} made in {folder / 'data'}", file=sys.stderr)

    file = prepare_demo(folder, overrides=overrides, workers=jobs or os.cpu_count() or 1, progress=tell)
    run_and_tell(file, RunOptions(jobs=jobs), as_json=False)
    print_scores(file)


def print_scores(file: PipelineFile) -> None:
    """One line for each evaluate node: its scores beside chance, and its report."""
    project = Project(file)
    rows, reports = [], []
    for name, config in file.nodes.items():
        if config.produces == "scores":
            folder = project.report(name)
            rows.append((name, *_scores(json.loads((folder / "metrics.json").read_text(encoding="utf-8")))))
            reports.append((name, folder / "report.html"))
    typer.echo()
    typer.echo(
        table_text(("scores", ">frame accuracy", ">edit", ">F1@50", ">always the commonest", ">uniform chance"), rows)
    )
    typer.echo()
    for name, path in reports:
        typer.echo(f"report of {name}: {path}")


def _scores(metrics: dict[str, Any]) -> tuple[str, ...]:
    raise NotImplementedError(metrics)
