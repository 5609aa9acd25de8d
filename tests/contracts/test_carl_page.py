"""docs/carl.md: its pipelines hang together, and its table is of the files that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from reelwright.pipeline.config.pipeline_file import load_pipeline
from reelwright.pipeline.plan.graph import build_graph
from reelwright.stages.finetune.config import FinetuneConfig
from reelwright.stages.train.config import TrainConfig

FOLDER = Path(__file__).parents[2] / "docs"
PAGE = (FOLDER / "carl.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=["rows", "maps", "frames"])
def test_its_pipelines_hang_together_and_learn_no_labels(tmp_path: Path, block: str) -> None:
    path = tmp_path / "reelwright.yaml"
    path.write_text(block, encoding="utf-8")
    file = load_pipeline(path)
    assert set(build_graph(file).nodes) == set(file.nodes)
    run = file.nodes["carl"]
    assert isinstance(run, TrainConfig | FinetuneConfig)
    assert not run.learns_labels


def test_its_table_is_of_the_shipped_files() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| (\d+) \| (\d+) \|", PAGE, re.MULTILINE)
    assert [name for name, *_ in rows if not (FOLDER / "carl" / f"{name}.yaml").is_file()] == []
    assert len(rows) == len(list((FOLDER / "carl").glob("*.yaml")))
    for name, length, batch, epochs in rows:
        run = load_pipeline(FOLDER / "carl" / f"{name}.yaml").nodes["carl"]
        assert isinstance(run, FinetuneConfig)
        assert run.views is not None
        assert (run.views.length, run.batch_size, run.epochs) == (int(length), int(batch), int(epochs))
