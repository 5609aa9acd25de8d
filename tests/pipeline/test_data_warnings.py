"""What is most likely wrong with videos and labels is said before anything runs, with names; no video is opened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from reelwright.cli.run.planning import show_plan
from reelwright.pipeline.config.pipeline_file import load_pipeline
from reelwright.pipeline.plan.data_warnings import data_warnings
from reelwright.pipeline.plan.dataset import Dataset, load_dataset
from reelwright.pipeline.project import Project, SilentObserver
from reelwright.pipeline.run.results import RunOptions
from reelwright.pipeline.run.runner import open_planner
from reelwright.storage.errors import InputError
from reelwright.storage.files import write_sealed
from reelwright.storage.ledger.digest_cache import KnownFiles, KnownProbes, VideoProbe, stamp
from tests.small_project import write_rows

SPLITS = {"a": "train", "b": "train", "c": "test", "d": "test"}
SEGMENTS = [(name, 0, 4, "cut") for name in SPLITS]
TABLES = {
    "segments": ("video_id", "start_seconds", "stop_seconds", "label"),
    "steps": ("video_id", "time_seconds", "step"),
    "times": ("video_id", "time_seconds", "label"),
    "frames": ("video_id", "frame", "label"),
}
Load = Callable[..., Dataset]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Videos of 10 s at 10 frames/s with a table of labels; ``contents`` and ``starts`` by video, if not their own."""

    def loaded(
        lines: list[tuple[object, ...]],
        *,
        kind: str = "segments",
        contents: dict[str, str] | None = None,
        starts: dict[str, float] | None = None,
        settings: str = "",
        videos: str = "",
    ) -> Dataset:
        files, probes = KnownFiles(tmp_path / "store/files.json"), {}
        for name in SPLITS:
            path, digest = tmp_path / f"{name}.mp4", (contents or {}).get(name, f"digest of {name}")
            path.write_text(digest)
            files.add(path, digest, stamp(path))
            start = (starts or {}).get(name, 0.0)
            probes[digest] = VideoProbe(digest, duration_seconds=10.0, num_frames=100, fps=10.0, start_seconds=start)
        files.save()
        KnownProbes(tmp_path / "store/videos.json").add(probes)
        rows = [{"video_id": name, "path": f"{name}.mp4", "split": split} for name, split in SPLITS.items()]
        write_rows(tmp_path / "videos.csv", rows)
        write_rows(tmp_path / "labels.csv", [dict(zip(TABLES[kind], line, strict=True)) for line in lines])
        block = {"times": "rows", "frames": "rows"}.get(kind, kind)
        (tmp_path / "reelwright.yaml").write_text(
            f"videos: {{manifest: videos.csv{videos}}}\nlabels: {{{block}: labels.csv{settings}}}\nstore: store\n"
            "stages: {}\n"
        )
        return open_planner(load_pipeline(tmp_path / "reelwright.yaml")).dataset

    return loaded


def test_nothing_is_said_where_nothing_is_wrong(load: Load) -> None:
    assert data_warnings(load(SEGMENTS)) == ()
    assert data_warnings(load([*SEGMENTS, ("a", 5, 10.09, "cut")])) == ()  # rounding, or the frame at the end
    assert data_warnings(load([(name, 99, "cut") for name in SPLITS], kind="frames")) == ()
    assert data_warnings(load(SEGMENTS, contents={"a": "same", "b": "same"})) == ()  # of one split


def test_a_store_of_an_older_release_is_said_with_what_is_made_anew(load: Load, tmp_path: Path) -> None:
    assert load(SEGMENTS).notes == ()
    write_sealed(tmp_path / "store/store.json", {"schema": 1})
    (note,) = load(SEGMENTS).notes
    assert "is of an older release" in note
    assert "made anew under new keys" in note


def test_a_typo_in_an_id_is_said_and_so_is_the_video_that_lost_its_label(load: Load) -> None:
    found = data_warnings(load([*SEGMENTS[:3], ("d_", 0, 4, "cut")]))
    assert found == (
        (
            "labels: 1 of the 4 video ids in the table are not in the manifest: 'd_' (Did you mean 'd'?). Their labels "
            "are not used; write ids as in the manifest"
        ),
        "labels: 1 of the 2 videos of split test have no label: 'd'. They are neither learned from nor scored",
    )


def test_above_a_share_both_are_errors(load: Load) -> None:
    others = [*SEGMENTS[:1], *((f"x{number}", 0, 4, "cut") for number in range(30))]
    with pytest.raises(InputError, match=r"30 of the 31 .*'x9' and 20 more.* share labels.max_unmatched, 0.5"):
        load(others)
    assert "30 of the 31" in data_warnings(load(others, settings=", max_unmatched: 1"))[0]
    with pytest.raises(InputError, match=r"1 of the 2 videos of split test .* 'd'.* share labels.max_unlabelled, 0.4"):
        load(SEGMENTS[:3], settings=", max_unlabelled: 0.4")
    assert "1 of the 2" in data_warnings(load(SEGMENTS[:3], settings=", max_unlabelled: 0.5"))[0]


def test_a_background_is_the_label_of_videos_without_a_line(load: Load) -> None:
    assert data_warnings(load(SEGMENTS[:3], settings=", background: cut")) == ()


def test_videos_that_are_known_to_be_missing_are_no_typo(load: Load, tmp_path: Path) -> None:
    load(SEGMENTS)
    (tmp_path / "d.mp4").unlink()
    text = (tmp_path / "reelwright.yaml").read_text().replace("videos.csv", "videos.csv, missing: skip")
    (tmp_path / "reelwright.yaml").write_text(text)
    assert data_warnings(load_dataset(load_pipeline(tmp_path / "reelwright.yaml"))) == ()


def test_the_same_content_in_two_splits_is_said(load: Load) -> None:
    (found,) = data_warnings(load(SEGMENTS, contents={"a": "same", "c": "same"}))
    assert found.startswith("videos: 1 contents are in several splits: 'a' (train) = 'c' (test). Scores of a split")


OUTSIDE = {
    "behind": (
        "segments",
        [*SEGMENTS, ("a", 12, 14, "cut"), ("a", 14, 15, "cut")],
        "2 labels of 1 videos lie wholly or partly outside .*: 'a' (12.0 to 14.0 s and 1 more; the video",
    ),
    "over the end": ("segments", [*SEGMENTS, ("c", 9, 11, "cut")], "'c' (9.0 to 11.0 s; the video is"),
    "step": ("steps", [(name, 12, "cut") for name in SPLITS], "4 labels of 4 videos lie .*'d' (12.0 s; the video"),
    "time": ("times", [(name, 12, "cut") for name in SPLITS], "4 labels of 4 videos lie"),
    "frame": (
        "frames",
        [*((name, 0, "cut") for name in SPLITS), ("b", 100, "cut")],
        "labels: frames that their videos do not have: 'b' (frame 100 of 100 frames). Frames count from 0",
    ),
}


@pytest.mark.parametrize(("kind", "lines", "expected"), OUTSIDE.values(), ids=OUTSIDE)
def test_labels_outside_a_video_are_said(load: Load, kind: str, lines: list[tuple[object, ...]], expected: str) -> None:
    (found,) = data_warnings(load(lines, kind=kind))
    for part in expected.split(".*"):
        assert part in found


STARTS = {"a": 3600.0, "b": 3600.0, "c": 1.4}


def test_labels_that_count_from_0_of_a_video_that_does_not_are_said_with_the_way_out(load: Load) -> None:
    found = load(SEGMENTS, starts=STARTS)
    way_out = "Set labels.time_origin: first_frame to count them from the first frame"
    assert data_warnings(found) == (
        f"labels: the video's own times start at 3600.0 s; labels seem to count from 0: 'a', 'b'. {way_out}",
        f"labels: the video's own times start at 1.4 s; labels seem to count from 0: 'c'. {way_out}",
    )
    moved = load(SEGMENTS, starts=STARTS, settings=", time_origin: first_frame")
    assert data_warnings(moved) == ()
    assert moved.labels.of("a").segments == ((3600.0, 3604.0, 0),)
    assert moved.labels.of("d").segments == ((0.0, 4.0, 0),)


PIPELINE = """
videos: {manifest: videos.csv}
labels: {segments: labels.csv}
stages:
  rows: {uses: features, fps: 1}
  train: {uses: train, embeddings: [rows], task: per_row, window: {length: 2}, model: {name: linear}, epochs: 1,
          val_splits: []}
  alike: {uses: train, embeddings: [rows], task: video, window: {length: 2}, model: {name: linear}, epochs: 1,
          val_splits: [test], labels: {column: kind}}
"""


class Noting(SilentObserver):
    """Keeps what was warned of, and whether anything had been planned before."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def warned(self, texts) -> None:
        self.texts += texts


def test_every_run_says_it_before_it_runs_and_so_does_the_plan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(0)
    for name in SPLITS:
        np.save(tmp_path / f"{name}.npy", random.random((4, 3), dtype=np.float32))
    (tmp_path / "d.npy").write_bytes((tmp_path / "a.npy").read_bytes())
    kinds = {"a": "x", "b": "y", "c": "x"}
    write_rows(
        tmp_path / "videos.csv",
        [
            {"video_id": name, "path": f"{name}.npy", "split": split, "kind": kinds.get(name, "")}
            for name, split in SPLITS.items()
        ],
    )
    lines = [dict(zip(TABLES["segments"], line, strict=True)) for line in (*SEGMENTS, ("a", 2, 4, "pour"))]
    write_rows(tmp_path / "labels.csv", lines)
    (tmp_path / "reelwright.yaml").write_text(PIPELINE)
    project = Project.open(tmp_path / "reelwright.yaml")
    for _ in range(2):
        observer = Noting()
        result = project.run(observer=observer, until=["rows"])
        assert result.exit_code == 0
        assert result.warnings == tuple(observer.texts) == project.planner().warnings
        leak, unlabelled = observer.texts
        assert "'a' (train) = 'd' (test)" in leak
        assert "split test have no label: 'd'" in unlabelled  # of the labels of one node
    show_plan(project.file, RunOptions(), as_json=False)
    assert capsys.readouterr().err == f"warning: {leak}\nwarning: {unlabelled}\n"


def test_a_table_with_a_header_alone_is_refused(load: Load, tmp_path: Path) -> None:
    load(SEGMENTS)
    (tmp_path / "labels.csv").write_text(",".join(TABLES["segments"]) + "\n", encoding="utf-8")
    with pytest.raises(InputError, match="a header and not a single row, so no video would have a label"):
        load_dataset(load_pipeline(tmp_path / "reelwright.yaml"))


@pytest.mark.parametrize(
    ("is_test_read", "expected"), [(False, {"train": "'a'"}), (True, {"train": "'a'", "test": "'d'"})]
)
def test_labels_are_missed_where_they_are_read_alone(
    load: Load, tmp_path: Path, is_test_read: bool, expected: dict[str, str]
) -> None:
    load([("a", 0, 4, "cut"), ("c", 0, 4, "cut")])
    write_rows(tmp_path / "own.csv", [{"video_id": "b", "start_seconds": 0, "stop_seconds": 4, "label": "cut"}])
    learn = "uses: train, embeddings: [rows], task: per_row, window: {length: 2}, model: {name: linear}, val_splits: []"
    nodes = ["rows: {uses: features, fps: 1}", f"own: {{{learn}, labels: {{segments: own.csv}}}}"]
    nodes += [f"other: {{{learn}, train_splits: [test]}}"] if is_test_read else []
    path = tmp_path / "reelwright.yaml"
    path.write_text("\n  ".join([path.read_text().replace("stages: {}", "stages:").rstrip(), *nodes]), encoding="utf-8")
    missed = [text for text in Project.open(path).planner().warnings if "no label" in text]
    assert len(missed) == len(expected)
    for split, video in expected.items():
        assert any(f"split {split} have no label: {video}" in text for text in missed)
