"""Estimates: hand-computed from records whose work is set by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from reelwright.pipeline.project import Project
from reelwright.pipeline.run.estimate import Estimate, estimates
from reelwright.storage.ledger.records import write_record
from tests.small_project import read_rows, write_rows, write_video

# five videos of 2 s each
WORK = {
    "frames": {"videos": 5, "video_seconds": 10.0, "rows": 50, "bytes": 5000, "seconds": 20.0},
    "embed": {"videos": 5, "video_seconds": 10.0, "rows": 50, "bytes": 1000, "seconds": 100.0},
    "train": {"videos": 3, "video_seconds": 6.0, "rows": 0, "bytes": 0, "seconds": 30.0},
    "predict": {"videos": 5, "video_seconds": 10.0, "rows": 35, "bytes": 300, "seconds": 5.0},
    "scores": {"videos": 2, "video_seconds": 4.0, "rows": 0, "bytes": 0, "seconds": 1.0},
}


def message(folder: Path, *overrides: str) -> dict[str, Estimate]:
    return estimates(Project.open(folder / "reelwright.yaml", overrides=overrides).planner())


@pytest.fixture
def known(copied: Path) -> Path:
    """The finished project, whose records say that it took round times."""
    planner = Project.open(copied / "reelwright.yaml").planner()
    for plan in planner.plans():
        assert plan.record is not None
        assert plan.record.work["videos"] == WORK[plan.node.name]["videos"]
        assert plan.record.work["video_seconds"] == WORK[plan.node.name]["video_seconds"]
        write_record(planner.file.store, replace(plan.record, work=WORK[plan.node.name]), project=planner.project)
    return copied


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], {}),
        (["train.epochs=6"], {"train": (90.0, None), "predict": (5.0, 300), "scores": (1.0, None)}),
        (["scores.topk=[1]"], {"scores": (1.0, None)}),
        (
            ["frames.fps=10"],
            {
                "frames": (20.0, 10000),  # decoding goes through all frames anyway, but twice as many are kept
                "embed": (200.0, 2000),
                "train": (30.0, None),
                "predict": (5.0, 300),
                "scores": (1.0, None),
            },
        ),
        (
            ["embed.precision=bf16"],  # nothing like it was run
            {"embed": (None, None), "train": (30.0, None), "predict": (5.0, 300), "scores": (1.0, None)},
        ),
    ],
    ids=["nothing to do", "epochs", "table", "rate", "other precision"],
)
def test_time_and_size(
    known: Path, overrides: list[str], expected: dict[str, tuple[float | None, float | None]]
) -> None:
    assert {name: (cost.seconds, cost.bytes) for name, cost in message(known, *overrides).items()} == expected


def test_a_training_that_went_on_is_reckoned_as_a_whole(known: Path) -> None:
    """Its last run did a quarter of it."""
    planner = Project.open(known / "reelwright.yaml").planner()
    record = planner.plan("train").record
    assert record is not None
    write_record(planner.file.store, replace(record, work={**WORK["train"], "share": 0.25}), project=planner.project)
    assert message(known, "train.epochs=6")["train"].seconds == pytest.approx(360.0)


def test_a_video_that_was_not_read_counts_as_one_of_average_length(known: Path) -> None:
    write_video(known / "f.mp4", seed=9)
    rows = read_rows(known / "videos.csv")
    write_rows(known / "videos.csv", [*rows, {"video_id": "f", "path": str(known / "f.mp4"), "split": "test"}])
    found = message(known)
    assert list(found) == ["frames", "embed", "predict", "scores"]
    embed = found["embed"]
    assert (embed.num_todo, embed.num_videos, embed.num_unread) == (1, 6, 1)
    assert (embed.seconds, embed.bytes) == (20.0, 200.0)


def test_nothing_is_said_where_nothing_is_known(folder: Path) -> None:
    found = message(folder)
    assert found["frames"].num_todo == 5
    assert {(cost.seconds, cost.bytes) for cost in found.values()} == {(None, None)}
