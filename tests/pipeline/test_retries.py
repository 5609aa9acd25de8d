"""Videos that fail: tried once a run, again with `retries`, left alone without `retry_failed`; attempts are counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from reelwright.pipeline.project import Project
from reelwright.pipeline.run.results import all_failures
from reelwright.pipeline.run.runner import RunResult
from tests.small_project import read_rows, write_rows, write_video


@pytest.fixture
def failing(copied: Path) -> Path:
    """The finished project and one more video of 0.2 s, which ends before decoding is to start (`run`)."""
    write_video(copied / "f.mp4", seed=9, num_frames=2)
    rows = read_rows(copied / "videos.csv")
    write_rows(copied / "videos.csv", [*rows, {"video_id": "f", "path": str(copied / "f.mp4"), "split": "test"}])
    return copied


def run(folder: Path, **options: object) -> RunResult:
    project = Project.open(folder / "reelwright.yaml", overrides=["frames.start=1", "videos.quarantine_after=null"])
    return project.run(until=["frames"], **options)


def attempts(folder: Path) -> dict[str, int]:
    planner = Project.open(
        folder / "reelwright.yaml", overrides=["frames.start=1", "videos.quarantine_after=null"]
    ).planner()
    return {failure.video_ids[0]: failure.row.attempts for failure in all_failures(planner)}


@pytest.mark.slow
def test_a_failed_video_is_tried_once_a_run_unless_told_otherwise(failing: Path) -> None:
    first = run(failing)
    assert first.exit_code == 3
    assert [(failure.video_ids, failure.node) for failure in first.failures] == [(("f",), "frames")]
    once = attempts(failing)["f"]

    left = run(failing, retry_failed=False)
    assert left.exit_code == 3
    assert [node.state for node in left.nodes] == ["up to date"]
    assert [failure.video_ids for failure in left.failures] == [("f",)]
    assert attempts(failing) == {"f": once}

    again = run(failing)
    assert again.exit_code == 3
    assert attempts(failing) == {"f": 2 * once}

    thrice = run(failing, retries=2)
    assert thrice.exit_code == 3
    assert attempts(failing) == {"f": 5 * once}


@pytest.mark.slow
def test_without_retry_new_videos_are_still_done(failing: Path) -> None:
    run(failing)
    write_video(failing / "g.mp4", seed=10)
    rows = read_rows(failing / "videos.csv")
    write_rows(failing / "videos.csv", [*rows, {"video_id": "g", "path": str(failing / "g.mp4"), "split": "test"}])
    before = attempts(failing)
    result = run(failing, retry_failed=False)
    assert [(node.state, node.num_done) for node in result.nodes] == [("ran", 1)]
    assert result.exit_code == 3
    assert attempts(failing) == before


@pytest.mark.slow
def test_a_video_that_cannot_be_probed_is_left_alone_too(failing: Path) -> None:
    (failing / "f.mp4").write_text("not a video")
    assert run(failing).exit_code == 3
    left = run(failing, retry_failed=False)
    assert left.exit_code == 3
    assert [(failure.node, failure.row.cause) for failure in left.failures] == [("videos", "not_a_video")]
