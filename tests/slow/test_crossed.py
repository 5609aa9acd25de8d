"""A run with nothing to do goes through few files: who follows it opens no more than that."""

from __future__ import annotations

from pathlib import Path

import pytest

from reelwright.pipeline.project import Project
from tests.benchmarks.bench_crossed import AIM, crossed

pytestmark = pytest.mark.slow


def test_a_run_with_nothing_to_do_crosses_few_files(copied: Path) -> None:
    """Frames and embeddings of videos with labels; the first run leaves records and a lock file of its own."""
    file = copied / "reelwright.yaml"
    file.write_text(file.read_text(encoding="utf-8").partition("  train:")[0], encoding="utf-8")
    assert Project.open(file).run().nothing_to_do
    found = crossed(copied, ["run"])
    assert len(found) <= AIM, "\n".join(found)
