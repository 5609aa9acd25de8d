"""Rows that a run makes of rows, in a pipeline: chains, keys and reasons, checks before work, what rests on them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from reelwright.pipeline.plan.history import History
from reelwright.pipeline.project import Project, SilentObserver
from reelwright.pipeline.run.estimate import estimates
from reelwright.pipeline.upkeep.gc import sweep
from reelwright.pipeline.upkeep.repair import repair
from reelwright.pipeline.upkeep.verify import verify
from reelwright.stages.fit.run_models import load_run_model
from reelwright.storage.errors import ConfigError
from reelwright.storage.results.runs import RunFolder

NET = '''
import torch
from reelwright.models.temporal.common import TemporalModel


class Net(TemporalModel):
    """Logits of rows, and an embedding beside them that sees the row before."""

    def __init__(self, sizes, *, width: int = 4):
        super().__init__(sizes)
        self.body, self.head = torch.nn.Linear(sizes.input_dim, width), torch.nn.Linear(width, sizes.num_outputs)

    def forward(self, batch):
        x = self.body(batch["rows"].masked_fill(~batch["mask"].unsqueeze(-1), 0.0))
        x = x + x.roll(1, dims=1)
        return {"logits": self.head(x), "embedding": x}
'''
CHAIN = """
  rows_of_run: {uses: embed, embeddings: [embed], run: train, device: cpu}
  second:
    uses: train
    embeddings: [rows_of_run, embed]
    task: per_row
    window: {length: 4, hop: 2}
    model: {name: net.py:Net, width: 3}
    epochs: 1
    val_splits: []
    device: cpu
  rows_of_second: {uses: embed, embeddings: [rows_of_run, embed], run: second, outputs: [pooled, logits], device: cpu}
  measured: {uses: probe, embeddings: rows_of_run, tasks: [kendalls_tau], splits: [test]}
"""


@pytest.fixture
def chain(copied: Path) -> Path:
    """The small project with frames and embeddings; its run embeds rows, another learns from these and embeds too."""
    (copied / "net.py").write_text(NET)
    path = copied / "reelwright.yaml"
    path.write_text(
        path.read_text().replace("model: {name: linear}", "model: {name: net.py:Net}\n    device: cpu") + CHAIN
    )
    return copied


def opened(folder: Path, *overrides: str) -> Project:
    return Project.open(folder / "reelwright.yaml", overrides=overrides)


def ran(project: Project) -> list[str]:
    result = project.run()
    assert result.exit_code == 0
    return [node.node for node in result.nodes if node.state == "ran"]


CARL = """
  carl:
    uses: train
    embeddings: [embed]
    model: {name: carl, layers: 1, width: 16, heads: 2, hidden: 16, mlp_width: 16, embed_dim: 6}
    objective: {name: scl}
    views: {length: 8}
    epochs: 2
    batch_size: 2
    val_splits: []
    device: cpu
  aligned: {uses: embed, embeddings: [embed], run: carl, dtype: float32, device: cpu}
  measured: {uses: probe, embeddings: aligned, tasks: [kendalls_tau], splits: [test]}
"""


def test_carl_embeds_whole_videos_without_a_label_and_others_learn_from_its_rows(copied: Path) -> None:
    path = copied / "reelwright.yaml"
    path.write_text(path.read_text().replace("embeddings: [embed]", "embeddings: [aligned]") + CARL)
    project = opened(copied)
    assert set(ran(project)) == {"carl", "aligned", "measured", "train", "predict", "scores"}
    rows = project.embeddings("aligned")["a"].output("pooled")
    assert rows.shape == (project.embeddings("embed")["a"].num_rows, 6)
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    model, _ = load_run_model(RunFolder(project.file.store.run(project.planner().plan("carl").key)), plugins={})
    raw = torch.from_numpy(project.embeddings("embed")["a"].output("pooled").astype(np.float32))[None]
    with torch.inference_mode():
        found = model.eval()({"rows": raw, "mask": torch.ones(raw.shape[:2], dtype=torch.bool)})
    assert np.array_equal(rows, found["embedding"][0].numpy())
    assert ran(opened(copied)) == []
    stale = {plan.node.name for plan in opened(copied, "carl.seed=1").status() if plan.state != "up to date"}
    assert stale == {"carl", "aligned", "measured", "train", "predict", "scores"}


@pytest.mark.slow
def test_a_chain_of_runs_and_their_rows(chain: Path) -> None:
    project = opened(chain)
    new = ["train", "predict", "scores", "rows_of_run", "second", "rows_of_second", "measured"]
    assert set(ran(project)) == set(new)
    first, second = project.embeddings("rows_of_run"), project.embeddings("rows_of_second")
    for video_id in "abcde":
        raw = project.embeddings("embed")[video_id]
        assert np.array_equal(first[video_id].spans.start_seconds, raw.spans.start_seconds)
        assert first[video_id].output("pooled").shape == (raw.num_rows, 4)
        assert second[video_id].output("pooled").shape == (raw.num_rows, 3)
        assert second[video_id].output("logits").shape == (raw.num_rows, 2)
    assert ran(opened(chain)) == []

    planner = project.planner()
    history = History.of(project.file.store)
    records = {plan.node.name: plan.record for plan in planner.plans()}
    behind = {name: [run.node for run in history._runs_behind(records[name])] for name in ("scores", "measured")}
    assert behind == {"scores": ["train"], "measured": ["train"]}
    assert "measured" in history.scores_of(records["train"])
    assert planner.plan("rows_of_run").material["spec"] == {
        "dtype": "float16",
        "outputs": ["pooled"],
        "pieces": {"length": None, "overlap": None},
        "precision": "fp32",
    }

    stale = {
        plan.node.name for plan in opened(chain, "rows_of_run.pieces.length=3").status() if plan.state != "up to date"
    }
    assert stale == {"rows_of_run", "second", "rows_of_second", "measured"}
    found = estimates(opened(chain, "rows_of_run.pieces.length=3").planner())
    assert found["rows_of_run"].num_todo == 5
    assert found["rows_of_run"].seconds is not None
    faster = estimates(opened(chain, "frames.fps=10").planner())
    assert faster["rows_of_second"].bytes == pytest.approx(2 * records["rows_of_second"].bytes, rel=0.01)
    assert set(ran(opened(chain, "rows_of_run.pieces.length=3"))) == stale
    assert ran(opened(chain)) == [], "going back is a hit"


@pytest.mark.slow
def test_what_is_stored_is_verified_repaired_kept_and_locked(chain: Path) -> None:
    project = opened(chain)
    assert project.run().exit_code == 0
    store, spec_key = project.file.store, project.planner().plan("rows_of_run").spec_key
    lock = yaml.safe_load((chain / "reelwright.lock").read_text())["nodes"]["rows_of_run"]
    assert lock["settings"]["pieces.length"] is None
    assert set(lock["inputs"]) >= {"embeddings", "run"}
    assert sweep([project.file], SilentObserver()).going == ()
    chunk = min(store.embeddings(spec_key).glob("*/pooled/c/0/0"))
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    before = chunk.read_bytes()
    chunk.write_bytes(content)
    assert [(problem.path, problem.kind) for problem in verify(project.file).problems] == [(chunk, "altered")]
    mended = repair(project.file, SilentObserver())
    assert {result.node: result.num_done for result in mended.results} == {"rows_of_run": 1}
    assert chunk.read_bytes() == before, "repaired, bit for bit"
    assert verify(project.file, whole=True).problems == ()
    assert opened(chain).run().nothing_to_do


@pytest.mark.slow
def test_workers_of_a_cluster_make_the_same_rows(chain: Path) -> None:
    project = opened(chain)
    project.run(until="rows_of_run")
    wanted = {name: project.embeddings("rows_of_run")[name].output("pooled") for name in "abcde"}
    code = "import sys; from reelwright.cli.main import main; sys.argv[0] = 'reelwright'; main()"
    command = [sys.executable, "-c", code, "run", "--until", "rows_of_run", "--executor", "dask"]
    command += ["--force", "rows_of_run"]
    done = subprocess.run(command, cwd=chain, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    again = opened(chain).embeddings("rows_of_run")
    assert all(np.array_equal(again[name].output("pooled"), rows) for name, rows in wanted.items())


def test_another_run_makes_other_rows_and_the_reason_is_said(chain: Path) -> None:
    opened(chain).run(until="rows_of_run")
    project = opened(chain, "train.model.width=5")
    states = {plan.node.name: (plan.state, plan.reasons) for plan in project.status()}
    assert states["rows_of_run"] == ("waiting", ("waits for train",))
    project.run(until="rows_of_run")
    assert project.embeddings("rows_of_run")["a"].output("pooled").shape[1] == 5
    assert opened(chain).planner().plan("rows_of_run").state == "up to date", "both lie side by side"
    # the same weights of another training are the same run to what reads them
    same = opened(chain, "train.log_to=[]")
    assert same.planner().plan("rows_of_run").state == "up to date"


def test_a_video_that_failed_before_is_left_out(chain: Path) -> None:
    (chain / "broken.mp4").write_bytes(b"no video")
    with (chain / "videos.csv").open("a") as file:
        file.write(f"broken,{chain / 'broken.mp4'},test\n")
    assert opened(chain).run(until="rows_of_run").exit_code == 3
    project = opened(chain)
    assert sorted(project.embeddings("rows_of_run")) == ["a", "b", "c", "d", "e"]
    assert project.planner().plan("rows_of_run").state == "up to date"


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("run: train, device", "run: train, encoder: timm/test_resnet, device", "encoder: of encoders of frames"),
        ("embeddings: [embed], run: train", "embeddings: [embed]", "rows are embedded by a run"),
        ("embeddings: [embed], run: train", "frames: frames, embeddings: [embed], run: train", "not both"),
        ("embeddings: [embed], run: train", "run: train", r"no encoder of its own.*give embeddings: \[embed\]"),
        (
            "embeddings: [embed], run: train",
            "embeddings: [embed, embed], run: train",
            "learnt from the embeddings embed",
        ),
        ("model: {name: net.py:Net}", "model: {name: linear}", "gives no embedding of each row.*it gives logits"),
        ("model: {name: net.py:Net}", "model: {name: linear}\n    task: last_row", "none for rows"),
        ("run: train, device", "run: embed, device", "makes embeddings; needed is run"),
        ("run: train, device", "run: train, pieces: {length: 4, overlap: 3}, device", "more than half of length 4"),
        ("embed: {uses: embed,", "embed: {uses: embed, pieces: {length: 4},", "remove pieces"),
    ],
)
def test_what_cannot_be_is_refused_before_work(chain: Path, old: str, new: str, match: str) -> None:
    path = chain / "reelwright.yaml"
    text = path.read_text()
    assert old in text
    if "last_row" in new:
        text = text.replace(
            "    task: per_row\n    window: {length: 4, hop: 2}\n    model: {name: net.py:Net}",
            "    window: {length: 4, hop: 2}\n    model: {name: net.py:Net}",
        )
    path.write_text(text.replace(old, new))
    with pytest.raises(ConfigError, match=match):
        opened(chain).status()
