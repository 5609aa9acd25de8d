"""A finished project that is made once a module and put back before every test."""

from __future__ import annotations

import shutil
from pathlib import Path

from reelwright.pipeline.project import Project
from tests.pipeline.conftest import write_project


def finish_project(folder: Path) -> Path:
    """Run the small project in ``folder`` and keep a copy of its store."""
    write_project(folder)
    assert Project.open(folder / "reelwright.yaml").run().exit_code == 0
    shutil.copytree(folder / ".reelwright", folder / "pristine")
    return folder


def put_back(folder: Path) -> Project:
    """The project as it was finished; its path stays, since digests of files are known by path."""
    shutil.rmtree(folder / ".reelwright")
    shutil.copytree(folder / "pristine", folder / ".reelwright")
    return Project.open(folder / "reelwright.yaml")
