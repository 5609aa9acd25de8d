"""A stage of an installed package is one like ours, wherever stages are named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = {
    "toy_stage/__init__.py": """
from reelwright.stages.base.registry import Stage

COUNT = Stage("toy_stage.config:CountConfig", "toy_stage.work:run", "Count the rows of embeddings", node="counts",
              reads={"embeddings": ["embed"]})
""",
    "toy_stage/config.py": '''
from typing import ClassVar
from reelwright.stages.base.fields import node_input
from reelwright.stages.base.config import StageConfig


class CountConfig(StageConfig):
    """How many rows there are."""

    stage: ClassVar[str] = "count_rows"
    version: ClassVar[int] = 1
    kind: ClassVar[str] = "table"
    produces: ClassVar[str] = "scores"
    costs: ClassVar[tuple[str, ...]] = ()

    embeddings: tuple[str, ...] = node_input(kinds=("embeddings",))
    """Embed nodes."""
    factor: int = 1
    """That the number is multiplied with."""
''',
    "toy_stage/work.py": """
import json
from reelwright.storage.arrays.embeddings import EmbeddingStore
from reelwright.storage.files import replacing_folder
from reelwright.storage.store import Store


def run(work, reporter):
    store = Store.at(work.store)
    stores = [EmbeddingStore(store.embeddings(ref.key)) for ref in work.inputs["embeddings"]]
    count = sum(rows.rows(digest).num_rows for rows in stores for digest in rows.digests()) * work.config["factor"]
    with replacing_folder(store.report(work.key)) as folder:
        (folder / "metrics.json").write_text(json.dumps({"num_rows": count}))
    return {"num_rows": count}
""",
    "toy_stage-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: toy-stage\nVersion: 1.0\n",
    "toy_stage-1.0.dist-info/entry_points.txt": "[reelwright.stages]\ncount_rows = toy_stage:COUNT\n",
}

pytestmark = [pytest.mark.slow, pytest.mark.sixth_system, pytest.mark.timeout(500)]


@pytest.fixture
def project(copied: Path) -> Path:
    """The small project, finished, with a node of the toy stage; the package lies in a folder on PYTHONPATH."""
    for name, text in PACKAGE.items():
        (copied / "site" / name).parent.mkdir(parents=True, exist_ok=True)
        (copied / "site" / name).write_text(text)
    path = copied / "reelwright.yaml"
    path.write_text(path.read_text() + "  counts: {uses: count_rows, embeddings: [embed], factor: 2}\n")
    return copied


def said(project: Path, *arguments: str, exit_code: int = 0) -> str:
    done = subprocess.run(
        [Path(sys.executable).with_name("reelwright"), *arguments],
        capture_output=True, text=True, cwd=project, check=False, timeout=200,
        env={**os.environ, "PYTHONPATH": str(project / "site"), "COLUMNS": "160"},
    )  # fmt: skip
    assert done.returncode == exit_code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_stage_of_another_package_is_one_like_ours(project: Path) -> None:
    assert "Count the rows of embeddings" in said(project, "--help")
    assert "factor" in said(project, "settings", "count_rows")
    assert "counts" in said(project, "run", "-n")
    said(project, "run")
    counted = [json.loads(path.read_text()) for path in project.glob(".reelwright/store/reports/*/metrics.json")]
    assert [entry for entry in counted if "num_rows" in entry] == [{"num_rows": 100}]
    assert "counts" in said(project, "status")
    assert "count_rows" in (project / "reelwright.lock").read_text()
    said(project, "verify")
    assert "count_rows" in said(project, "explain", "counts")
    said(project, "run", "--frozen")
    said(project, "count_rows", "-S", "counts.factor=3")
    assert len(list(project.glob(".reelwright/store/reports/*"))) == 3
    assert len(list(project.glob(".reelwright/store/reports/*"))) == 3
    said(project, "gc", "--delete", "--now", "--only-these")
    counted = [json.loads(path.read_text()) for path in project.glob(".reelwright/store/reports/*/metrics.json")]
    assert [entry for entry in counted if "num_rows" in entry] == [{"num_rows": 100}]

    work = project / "site" / "toy_stage" / "work.py"
    work.write_text(work.read_text().replace("num_rows for", "num_rows + 0 for"))
    assert "stage count_rows: source changed" in said(project, "explain", "counts")
    assert "no estimate" not in said(project, "run", "-n")  # it ran before, and says on what its time depends
    work.unlink()
    assert "stages.counts.uses: no module 'toy_stage.work' is found" in said(project, "status", exit_code=2)
    (project / "site" / "toy_stage" / "__init__.py").write_text("import no_such_module\n")
    assert "offers a stage count_rows (toy_stage:COUNT), which cannot be imported" in said(
        project, "status", exit_code=2
    )
