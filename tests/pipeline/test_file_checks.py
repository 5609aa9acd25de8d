"""`doctor FILE`: what is likely wrong with a pipeline file, before anything ran."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from reelwright.cli.main import app
from reelwright.pipeline.config.pipeline_file import load_pipeline
from reelwright.pipeline.config.profiles import cluster_settings
from reelwright.pipeline.upkeep import file_checks
from reelwright.pipeline.upkeep.doctor import BAD, GOOD, NOTE
from reelwright.pipeline.upkeep.file_checks import examine_file
from reelwright.stages.decode.config import DecodeConfig
from reelwright.stages.train.config import TrainWindowSettings
from reelwright.storage.tables.manifest import ManifestVideo
from tests.small_project import read_rows, write_project, write_rows


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project, of which nothing was read."""
    return write_project(tmp_path_factory.mktemp("fresh"))


def checks(folder: Path, *overrides: str) -> list[tuple[str, str, str]]:
    found = examine_file(load_pipeline(folder / "reelwright.yaml", overrides))
    return [(check.what, check.state, check.message) for check in found]


def test_a_file_that_fits(fresh: Path) -> None:
    assert checks(fresh, "train.epochs=100") == [
        ("file", GOOD, "fits its videos (half of 5 are longer than 2.0 s)"),
    ]
    assert not (fresh / ".reelwright").exists()


def test_windows_updates_and_frames(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_checks, "_MANY_BYTES", 10_000)
    found = checks(fresh, "train.window.length=12", "predict.window.hop=1", "train.optimizer.accumulate=3")
    notes = [(what, message) for what, state, message in found if state == NOTE]
    assert ("train", "learns in about 2 updates in all") in notes  # 3 windows: a batch, a third of an update, twice
    window = "its window of 12 rows is longer than 100% of the videos, half of which have 10 rows or fewer"
    assert ("train", f"{window}; these are filled up") in notes
    size = next(message for what, message in notes if what == "frames")
    assert size.startswith("its frames take up to 0 MB, uncompressed, for 0 MB of videos")  # 50 of 48 x 48
    assert [state for _, state, _ in found if state == GOOD] == []


def test_classes_are_sought_where_nodes_learn(tmp_path: Path) -> None:
    """Of folds in all, each of which is learned from; not in the first of `videos.splits`, whatever it is."""
    folder = write_project(tmp_path)
    people = {"a": "anna", "b": "anna", "c": "ben", "d": "ben", "e": "cleo"}
    write_rows(
        folder / "videos.csv",
        [{"video_id": name, "path": f"{name}.mp4", "split": split} for name, split in people.items()],
    )
    rows = read_rows(folder / "segments.csv")
    write_rows(folder / "segments.csv", [{**row, "label": "red"} if row["video_id"] in "cde" else row for row in rows])
    splits, scored = "videos.splits=[anna,ben,cleo]", "scores.splits=[anna]"
    of_folds = " ".join(message for *_, message in checks(folder, splits, "train.folds=all"))
    assert "that no video of" not in of_folds
    of_two = " ".join(message for *_, message in checks(folder, splits, "train.train_splits=[ben,cleo]", scored))
    assert "classes of split anna that no video of ben or cleo has: blue, bright" in of_two


def test_classes_of_one_video_and_what_a_run_refuses(fresh: Path) -> None:
    before = (fresh / "segments.csv").read_text(encoding="utf-8")
    rows = read_rows(fresh / "segments.csv")
    write_rows(
        fresh / "segments.csv",
        [{**row, "label": "red"} if row["video_id"] == "d" else row for row in rows if row["video_id"] != "a"],
    )
    shown = CliRunner().invoke(app, ["doctor", str(fresh / "reelwright.yaml"), "-S", "train.epochs=100"])
    assert shown.exit_code == 0
    text = shown.stdout
    assert "classes with one video in a split: blue (test), bright (test), red (test)" in text
    assert "classes of split test that no video of train has: red" in text
    assert "1 of the 3 videos of split train have no label: 'a'" in text
    assert "versions" not in text  # the machine is not looked at
    (fresh / "segments.csv").write_text(before, encoding="utf-8")
    refused = checks(fresh, "train.train_splits=[nope]")
    assert [(what, state) for what, state, _ in refused] == [("file", BAD)]
    both = CliRunner().invoke(app, ["doctor", "a.yaml", "-c", "b.yaml"])
    assert "give the file once" in str(both.exception)


@pytest.mark.slow
def test_an_estimate_is_of_one_video_and_leaves_nothing(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the time of that video makes twice the estimate; the store of the file is not touched."""
    file = load_pipeline(fresh / "reelwright.yaml")
    monkeypatch.setattr(file_checks, "_spent", lambda _: 30.0)
    found = {check.what: check.message for check in file_checks.probed(file)}  # five videos of 2 s
    assert found["frames"] == found["embed"]
    assert re.fullmatch(r"about 2 min of work for all videos \(estimate: [a-e] alone\)", found["embed"])
    assert not (fresh / ".reelwright").exists()
    small = min("abcde", key=lambda name: (fresh / f"{name}.mp4").stat().st_size)
    (fresh / f"{small}.mp4").write_bytes(b"damaged")  # and smaller than those that can be read
    damaged = {check.what: check.message for check in file_checks.probed(file)}
    assert damaged.keys() == found.keys()
    assert f"estimate: {small} " not in damaged["embed"]
    (hub,) = file_checks.probed(load_pipeline(file.path, ["embed.weights=hub", "frames.materialize=false"]))
    assert hub.message == "of embed there is none before its weights are here"


def test_an_estimate_is_made_here_with_weights_that_nodes_share(fresh: Path, tmp_path: Path) -> None:
    """Two nodes of one encoder read the same file of weights; a cluster of the file gets no job."""
    text = (fresh / "reelwright.yaml").read_text(encoding="utf-8").replace("weights: none, ", "")
    block = next(line for line in text.splitlines() if line.lstrip().startswith("embed:"))
    more = [block, block.replace("embed:", "again:", 1), "cluster: {executor: slurm}"]
    path = tmp_path / "two.yaml"
    path.write_text("\n".join([text.partition(block)[0], *more]), encoding="utf-8")
    file = load_pipeline(path)
    small = file_checks._of_one_video(
        file, ManifestVideo("a", str(fresh / "a.mp4"), "train"), list(file.nodes), tmp_path
    )
    assert cluster_settings(file, {}).executor == "slurm"
    assert cluster_settings(small, {}).executor == "local"
    (name,) = {str(small.nodes[node].hub_weights()) for node in ("embed", "again")}
    assert small.store.weights(name).readlink() == file.store.weights(name)


@pytest.mark.parametrize(
    ("settings", "rows", "windows"),
    [
        ({"length": 4, "hop": 2}, 10, 4),
        ({"length": 4, "hop": 2}, 3, 1),
        ({"length": 4, "short": "leave_out"}, 3, 0),
        ({"length": 4, "dilation": 3}, 10, 1),
        ({"length": 4, "sampling": "all", "hop": 5}, 10, 7),
        ({"length": 4, "sampling": "segments"}, 100, 1),
    ],
)
def test_windows_of_a_video(settings: dict[str, object], rows: int, windows: int) -> None:
    assert TrainWindowSettings(**settings).num_windows(rows) == windows


def test_bytes_of_a_frame() -> None:
    assert DecodeConfig().bytes_of_row(10, 20) == 600
    assert DecodeConfig(short_side=5).bytes_of_row(10, 20) == 150
    assert DecodeConfig(crop=(0, 0, 10, 10), codec="jpeg").bytes_of_row(100, 200) == 30
    assert DecodeConfig(size=(2, 3)).bytes_of_row(100, 200) == 18
