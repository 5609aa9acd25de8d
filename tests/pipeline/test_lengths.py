"""Rows and labels of another length are told with numbers, on every run."""

from __future__ import annotations

import numpy as np
import pytest

from reelwright.pipeline.plan.data_warnings import labelled_frames
from reelwright.pipeline.project import Project
from reelwright.storage.tables.annotations import Annotation
from tests.small_project import write_rows

CHAIN = """
videos: {features: feats}
labels: {rows: rows.csv}
stages:
  feats: {uses: features, fps: 2, hop: 4}
  train:
    uses: train
    embeddings: [feats]
    task: per_row
    window: {length: 2, hop: 2}
    model: {name: linear}
    epochs: 1
    val_splits: []
"""


def of(frames):
    return labelled_frames(Annotation(frames=tuple((frame, 0) for frame in frames)))


FRAMES = {
    "every frame": (range(5), (5, 5)),
    "every fourth": ([0, 4, 8], (9, 12)),
    "from one": ([1, 2, 3], (3, 4)),
    "with gaps": ([0, 1, 3], None),
    "of a part": ([7, 8, 9], None),
    "one": ([0], None),
    "none": ([], None),
}


@pytest.mark.parametrize(("frames", "expected"), FRAMES.values(), ids=FRAMES)
def test_frames_that_labels_go_through(frames, expected):
    assert of(frames) == expected


def test_lengths_that_differ_are_told_on_every_run(tmp_path):
    (tmp_path / "feats").mkdir()
    labels = []
    for name, num_rows, num_frames in (("good", 3, 10), ("short", 3, 1000), ("long", 30, 10), ("edge", 3, 15)):
        np.save(tmp_path / f"feats/{name}.npy", np.random.default_rng(num_frames).normal(size=(num_rows, 2)))
        labels += [{"video_id": name, "frame": frame, "label": "ab"[frame % 2]} for frame in range(num_frames)]
    write_rows(tmp_path / "rows.csv", labels)
    (tmp_path / "reelwright.yaml").write_text(CHAIN, encoding="utf-8")
    project = Project.open(tmp_path / "reelwright.yaml")
    for _ in range(2):
        (note,) = project.run().notes
        assert note.startswith(
            "warning: feats: the rows of 2 of 4 videos and their labels differ in length: "
            "long has 30 rows, so 117 to 123 frames, and labels of 10; "
            "short has 3 rows, so 9 to 15 frames, and labels of 1,000. "
        )
