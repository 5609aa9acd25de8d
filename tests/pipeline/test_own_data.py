"""`init` on a folder of one's own: what it sees, what it writes, and that it runs."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from reelwright.cli.main import app
from reelwright.pipeline.config.own_data import look_at, pipeline_text
from reelwright.pipeline.config.pipeline_file import load_pipeline
from reelwright.pipeline.plan.graph import build_graph
from reelwright.pipeline.project import Project
from reelwright.storage.errors import InputError
from tests.small_project import read_rows, write_project, write_rows, write_video


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds at 10 frames/s."""
    path = tmp_path_factory.mktemp("video") / "v.mp4"
    write_video(path, seed=0)
    return path


def init(folder: Path) -> str:
    result = CliRunner().invoke(app, ["init", str(folder)])
    assert result.exit_code == 0, result.output
    build_graph(load_pipeline(folder / "reelwright.yaml"))
    return result.stdout


def test_a_manifest_with_splits_and_segments(tmp_path: Path) -> None:
    write_project(tmp_path)
    (tmp_path / "reelwright.yaml").unlink()
    shown = init(tmp_path)
    assert "saw: 5 videos in videos.csv" in shown
    assert "saw: labels of segments in segments.csv" in shown
    assert "saw: splits: train 3, test 2\n" in shown
    assert "2.0 to 2.0 s, half of them below 2.0 s; 10 to 10 frames/s (of 5 that were opened)" in shown
    nodes = load_pipeline(tmp_path / "reelwright.yaml").nodes
    assert (nodes["frames"].fps, nodes["frames"].materialize) == (5, False)
    assert (nodes["train"].task, nodes["train"].window.length, nodes["train"].window.hop) == ("per_row", 10, 1)
    assert nodes["train"].batch_size == 2  # three windows: two updates
    assert sorted(path.name for path in tmp_path.glob("*.csv")) == ["segments.csv", "videos.csv"]


@pytest.mark.slow
def test_folders_by_class_run(tmp_path: Path) -> None:
    for number in range(10):
        place = tmp_path / "clips" / ("fall" if number % 2 else "walk")
        place.mkdir(parents=True, exist_ok=True)
        write_video(place / f"{number}.mp4", seed=number)
    shown = init(tmp_path)
    assert "a label of each video in the names of their folders: 2 classes (fall 5, walk 5)" in shown
    assert "(made here, each class apart)" in shown
    rows = read_rows(tmp_path / "videos.csv")
    assert Counter((row["label"], row["split"]) for row in rows) == Counter(
        {
            (label, split): count
            for label in ("fall", "walk")
            for split, count in (("train", 3), ("val", 1), ("test", 1))
        }
    )
    overrides = ["embed.encoder=timm/test_resnet", "embed.weights=none", "train.epochs=1", "frames.workers=1"]
    assert Project.open(tmp_path / "reelwright.yaml", overrides=overrides).run().exit_code == 0


def test_labels_in_tables_of_their_own_and_none(tmp_path: Path, video: Path) -> None:
    for number in range(4):
        shutil.copy(video, tmp_path / f"v{number}.mp4")
    found = look_at(tmp_path)
    assert found is not None
    assert (found.labels, found.manifest, found.source) == ("", None, "{folder: .}")
    assert "train" not in pipeline_text(found)[0].split()
    rows = [{"video_id": f"v{number}", "label": "ab"[number // 2]} for number in range(4)]
    write_rows(tmp_path / "classes.csv", rows)
    shown = init(tmp_path)
    assert "a label of each video in classes.csv: 2 classes (a 2, b 2)" in shown
    assert Counter(row["split"] for row in read_rows(tmp_path / "videos.csv")) == {"train": 2, "test": 2}
    write_rows(tmp_path / "videos.csv", [{"path": f"v{number}.mp4", "label": "ab"[number // 2]} for number in range(4)])
    again = look_at(tmp_path)
    assert again is not None
    assert (again.labels, again.manifest) == ("{column: label}", tmp_path / "videos_split.csv")


def test_no_videos_and_none_that_can_be_used(tmp_path: Path) -> None:
    assert "no videos in" in init(tmp_path)
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with pytest.raises(InputError, match="of 1 videos that were tried none can be used"):
        look_at(tmp_path)


def test_splits_of_a_manifest_as_they_are(tmp_path: Path, video: Path) -> None:
    """Without test val is scored; names that a pipeline file does not know are refused; other columns stay."""
    shutil.copy(video, tmp_path / "v.mp4")

    def manifest(*splits: str, name: str = "my, videos [1].csv") -> None:
        rows = [
            {"video_id": f"v{n}", "path": "v.mp4", "split": split, "label": "ab"[n % 2], "person": f"p{n}"}
            for n, split in enumerate(splits)
        ]
        write_rows(tmp_path / name, rows)

    manifest(*("train",) * 4, *("val",) * 2)
    assert "scores of val, which chooses the weights too" in init(tmp_path)
    file = load_pipeline(tmp_path / "reelwright.yaml")
    assert (file.videos.manifest, file.nodes["scores"].splits) == ("my, videos [1].csv", ("val",))
    for splits, message in ((("training", "test"), "splits training are not known"), (("val", "test"), "is in train")):
        manifest(*splits)
        with pytest.raises(InputError, match=message):
            look_at(tmp_path)
    manifest(*("",) * 6)
    (tmp_path / "reelwright.yaml").unlink()
    init(tmp_path)
    rows = read_rows(tmp_path / "my, videos [1]_split.csv")
    assert {(row["video_id"], row["person"]) for row in rows} == {(f"v{n}", f"p{n}") for n in range(6)}
    assert {row["split"] for row in rows} == {"train", "val", "test"}
