"""The runner: change one thing, see which nodes ran and how many videos they did."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from reelwright.pipeline.project import Project
from reelwright.pipeline.run.runner import RunResult
from reelwright.storage.errors import ConfigError
from tests import forks
from tests.small_project import read_rows, write_rows, write_video

NODES = ("frames", "embed", "train", "predict", "scores")
Ran = dict[str, int]  # nodes that ran -> videos they did


def run(folder: Path, *overrides: str, **options: object) -> RunResult:
    return Project.open(folder / "reelwright.yaml", overrides=overrides).run(**options)


def ran(result: RunResult) -> Ran:
    return {node.node: node.num_done for node in result.nodes if node.state == "ran"}


def edit(folder: Path, old: str, new: str, name: str = "reelwright.yaml") -> None:
    text = (folder / name).read_text(encoding="utf-8")
    assert old in text
    (folder / name).write_text(text.replace(old, new), encoding="utf-8")


def edit_manifest(folder: Path, change: Callable[[list[dict[str, str]]], list[dict[str, str]]]) -> None:
    write_rows(folder / "videos.csv", list(change(read_rows(folder / "videos.csv"))))


def test_a_second_run_does_nothing_and_each_change_does_just_its_work(folder: Path) -> None:
    """One long story, since each step needs the one before; the table says what each step must do."""
    first = run(folder)
    assert first.exit_code == 0, first
    assert ran(first) == {"frames": 5, "embed": 5, "train": 0, "predict": 5, "scores": 0}
    second = run(folder)
    assert second.nothing_to_do

    def add_video(rows: list[dict[str, str]]) -> list[dict[str, str]]:
        write_video(folder / "f.mp4", seed=9)
        return [*rows, {"video_id": "f", "path": "f.mp4", "split": "test"}]

    def rename(rows: list[dict[str, str]]) -> list[dict[str, str]]:
        return [{**row, "video_id": "a2" if row["video_id"] == "a" else row["video_id"]} for row in rows]

    def rename_labels() -> None:
        rows = read_rows(folder / "segments.csv")
        write_rows(
            folder / "segments.csv",
            [{**row, "video_id": "a2" if row["video_id"] == "a" else row["video_id"]} for row in rows],
        )

    def move(row: str) -> None:
        (folder / "sub").mkdir()
        shutil.move(folder / f"{row}.mp4", folder / "sub" / f"{row}.mp4")
        edit(folder, f"{row}.mp4", f"sub/{row}.mp4", "videos.csv")

    def replace(old: str, new: str, name: str = "reelwright.yaml") -> Callable[[], None]:
        return lambda: edit(folder, old, new, name)

    all_of = {"frames": 6, "embed": 6, "train": 0, "predict": 6, "scores": 0}
    steps: list[tuple[str, Callable[[], object], Ran]] = [
        ("a training setting", replace("epochs: 2", "epochs: 3"), {"train": 0, "predict": 5, "scores": 0}),
        ("back again: a hit", replace("epochs: 3", "epochs: 2"), {}),
        ("number of workers", replace("workers: 1", "workers: 2"), {}),
        ("batch size of embedding", replace("batch_size: 8, channels", "batch_size: 4, channels"), {}),
        ("a comment", replace("stages:", "# more\nstages:"), {}),
        ("the time of a file", (folder / "b.mp4").touch, {}),
        ("a file moved", lambda: move("c"), {}),
        ("an evaluate setting", replace("thumbnails: 0", "thumbnails: 0, topk: [1]"), {"scores": 0}),
        (
            "one more video",
            lambda: edit_manifest(folder, add_video),
            {"frames": 1, "embed": 1, "predict": 1, "scores": 0},
        ),
        ("a video renamed", lambda: (edit_manifest(folder, rename), rename_labels()), {"predict": 0, "scores": 0}),
        ("relabelled", replace("b,1,2,blue", "b,1.5,2,blue", "segments.csv"), {"train": 0, "predict": 6, "scores": 0}),
        ("the rate", replace("fps: 5", "fps: 2.5"), all_of),
    ]
    for name, change, expected in steps:
        change()
        result = run(folder)
        assert result.exit_code == 0, (name, result)
        assert ran(result) == expected, name


@pytest.mark.slow
def test_reasons_name_the_setting(folder: Path) -> None:
    run(folder)
    project = Project.open(folder / "reelwright.yaml", overrides=["frames.fps=2", "train.optimizer.lr=0.5"])
    plans = {plan.node.name: plan for plan in project.status()}
    assert "spec.fps: 5 -> 2" in plans["frames"].reasons
    assert "input frames: frames changed" in plans["embed"].reasons
    assert "spec.optimizer.lr: 0.001 -> 0.5" in plans["train"].reasons
    assert plans["predict"].reasons == ("waits for train",)
    edit_manifest(folder, lambda rows: rows[1:])
    plans = {plan.node.name: plan for plan in Project.open(folder / "reelwright.yaml").status()}
    assert plans["frames"].state == plans["embed"].state == "up to date"
    assert plans["train"].reasons == ("input embeddings: 1 of 3 videos gone",)


@pytest.mark.parametrize(
    ("name", "content", "cause"),
    [
        pytest.param("empty", b"", "empty_file", id="empty", marks=pytest.mark.slow),
        pytest.param("text", b"hello\n" * 50, "not_a_video", id="text"),
    ],
)
def test_one_broken_video_never_stops_the_others(folder: Path, name: str, content: bytes, cause: str) -> None:
    good = (folder / "b.mp4").read_bytes()
    (folder / "b.mp4").write_bytes(content)
    result = run(folder)
    assert result.exit_code == 3
    assert ran(result)["embed"] == 4
    assert [(failure.video_ids, failure.row.cause) for failure in result.failures] == [(("b",), cause)]
    assert run(folder).exit_code == 3
    (folder / "b.mp4").write_bytes(good)
    mended = run(folder)
    assert mended.exit_code == 0
    assert ran(mended)["frames"] == ran(mended)["embed"] == 1


@pytest.mark.slow
def test_only_until_force_and_limit(folder: Path) -> None:
    until = run(folder, until=["embed"])
    assert ran(until) == {"frames": 5, "embed": 5}
    forced = run(folder, force=["frames"], only=["frames"])
    assert ran(forced) == {"frames": 5}
    limited = run(folder, "frames.fps=2", limit=2)
    assert {node.node: (node.state, node.num_done) for node in limited.nodes}["frames"] == ("ran", 2)
    assert limited.exit_code == 1


def test_a_second_experiment_on_the_same_store_embeds_nothing(folder: Path) -> None:
    run(folder)
    text = (folder / "reelwright.yaml").read_text(encoding="utf-8")
    (folder / "second.yaml").write_text(text.replace("name: linear", "name: gru"), encoding="utf-8")
    result = Project.open(folder / "second.yaml").run()
    assert ran(result) == {"train": 0, "predict": 5, "scores": 0}


@pytest.mark.slow
def test_streaming_or_storing_frames_gives_the_same_embeddings(folder: Path) -> None:
    run(folder, until=["embed"])
    streamed = run(folder, "frames.materialize=false", until=["embed"])
    assert streamed.nothing_to_do


@pytest.mark.slow
def test_two_runs_at_once_share_the_work(folder: Path) -> None:
    """Started together, both end well, and no video is embedded twice."""
    code = (
        "import sys; from reelwright.pipeline.project import Project\n"
        "result = Project.open(sys.argv[1]).run(until=['embed'])\n"
        "print(result.exit_code, sum(node.num_done for node in result.nodes))"
    )
    started = [forks.start(str(folder / "reelwright.yaml"), cwd=folder, code=code) for _ in range(2)]
    message = [process.communicate(timeout=120)[0].split() for process in started]
    assert [code for code, _ in message] == ["0", "0"]
    assert sum(int(done) for _, done in message) == 10  # five decoded, five embedded, by one or the other


@pytest.mark.slow
def test_a_run_under_torchrun_is_refused_before_it_would_wait_for_itself(folder: Path, monkeypatch) -> None:
    project = Project.open(folder / "reelwright.yaml")
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("TORCHELASTIC_RUN_ID", "none")):
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=r"one of 2 processes .*`reelwright train --nproc 2` on one machine"):
        project.run()
    assert not project.file.store.root.exists()
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "0")
    assert project.run(until=["frames"]).exit_code == 0
