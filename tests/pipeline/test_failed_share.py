"""A run does not learn from what is left when most videos failed, and warns when some did."""

from __future__ import annotations

import numpy as np
import pytest

from reelwright.pipeline.plan.why import LEFT_OUT, explain_video
from reelwright.pipeline.project import Project, SilentObserver
from reelwright.pipeline.run.results import FAILED, RAN
from reelwright.stages.base.work import SilentReporter
from tests.small_project import write_rows

NUM_VIDEOS = 8
CHAIN = """
videos: {features: feats}
labels: {rows: rows.csv}
stages:
  feats: {uses: features, fps: 2, dim: 2}
  train:
    uses: train
    embeddings: [feats]
    task: per_row
    window: {length: 4, hop: 4}
    model: {name: linear}
    epochs: 1
    batch_size: 4
    val_splits: []
  predict: {uses: predict, run: train, splits: [train]}
"""


class Listener(SilentObserver):
    """Keeps what nodes say."""

    def __init__(self) -> None:
        self.said: dict[str, list[str]] = {}

    def started(self, plan):
        reporter = SilentReporter()
        reporter.note = self.said.setdefault(plan.node.name, []).append
        return reporter


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "feats").mkdir()
    for number in range(NUM_VIDEOS):
        np.save(tmp_path / f"feats/v{number}.npy", np.random.default_rng(number).normal(size=(8, 2)))
    labels = [
        {"video_id": f"v{number}", "frame": row, "label": "ab"[row // 4]}
        for number in range(NUM_VIDEOS)
        for row in range(8)
    ]
    write_rows(tmp_path / "rows.csv", labels)
    (tmp_path / "reelwright.yaml").write_text(CHAIN, encoding="utf-8")
    return tmp_path


def run(folder, *overrides, num_bad):
    for number in range(num_bad):
        np.save(folder / f"feats/v{number}.npy", np.array([[np.nan, number]] * 8))
    listener = Listener()
    project = Project.open(folder / "reelwright.yaml", overrides=list(overrides))
    return project.run(observer=listener), listener.said


def states(result):
    return {node.node: node.state for node in result.nodes}


def test_most_failed(folder):
    for _ in range(2):  # what failed in an earlier run counts as well
        result, _ = run(folder, num_bad=7)
        assert states(result) == {"feats": RAN, "train": FAILED}
        assert result.exit_code == 1
        assert len(result.failures) == 7
        (message,) = [node.message for node in result.nodes if node.node == "train"]
        assert message.startswith(
            "7 of 8 videos failed (88%), and videos.max_failed allows 50%; v0 in feats: v0.npy: 8 of 8 rows"
        )
        assert "set videos.max_failed: 1" in message
    result, said = run(folder, "videos.max_failed=1", num_bad=7)
    assert states(result)["train"] == RAN
    assert result.exit_code == 3
    assert said["train"][0].startswith("warning: goes on without those that failed: 7 of 8 videos failed (88%); v0 in")


def test_files_that_cannot_even_be_opened_count(folder):
    for number in range(5):
        (folder / f"feats/v{number}.npy").write_bytes(b"")
    result, _ = run(folder, num_bad=0)
    (message,) = [node.message for node in result.nodes if node.node == "train"]
    assert message.startswith("5 of 8 videos failed (62%)")
    assert "v0 in videos:" in message


def test_some_failed(folder):
    result, said = run(folder, num_bad=4)
    assert states(result) == {"feats": RAN, "train": RAN, "predict": RAN}
    assert result.exit_code == 3
    assert any(text.startswith("warning: goes on without those that failed: 4 of 8") for text in said["train"])
    assert any(text.startswith("warning: goes on without those that failed: 4 of 8") for text in said["predict"])


def test_none_failed(folder):
    result, said = run(folder, num_bad=0)
    assert result.exit_code == 0
    assert not [text for texts in said.values() for text in texts if "failed" in text]


def test_scores_say_which_videos_they_are_not_of(folder):
    for number, size in (("v6", 2), ("v7", 8)):
        np.save(folder / f"feats/{number}.npy", np.random.default_rng(size).normal(size=(size, 2)))
    np.save(folder / "feats/v5.npy", np.full((8, 2), np.nan))
    splits = [("test" if number > 4 else "train") for number in range(NUM_VIDEOS)]
    rows = [{"video_id": f"v{n}", "path": f"feats/v{n}.npy", "split": split} for n, split in enumerate(splits)]
    write_rows(folder / "videos.csv", rows)
    text = CHAIN.replace("{features: feats}", "{manifest: videos.csv, max_failed: 1}")
    text = text.replace("splits: [train]", "window: {short: leave_out}")
    text += "  scores: {uses: evaluate, predictions: predict}\n"
    (folder / "reelwright.yaml").write_text(text, encoding="utf-8")
    result, said = run(folder, num_bad=0)
    assert states(result)["scores"] == RAN
    (note,) = (line for line in said["scores"] if "no number" in line)
    project = Project.open(folder / "reelwright.yaml")
    assert note.startswith("2 videos of these splits are in no number: v5, ... (failed in "), note
    page = (project.file.store.report(project.planner().plan("scores").key) / "report.html").read_text("utf-8")
    left_out = page.partition("<h2>Left out</h2>")[2].partition("</section>")[0]
    assert '<td class="class">v5</td><td>test</td><td>failed in ' in left_out
    assert '<td class="class">v6</td><td>test</td><td>skipped in predict: too_short: 2 rows' in left_out
    assert "v7" not in left_out
    assert "v1" not in left_out, "it is of another split"
    why = explain_video(project.planner(), "scores", "v6")
    assert (why.state, why.reasons[0][:18]) == (LEFT_OUT, "skipped in predict")
