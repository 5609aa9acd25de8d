"""Quarantine: what failed often enough is left alone until its content changes or a person lets it go."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from reelwright.pipeline.plan import why
from reelwright.pipeline.project import Project
from reelwright.pipeline.run.results import Failure, all_failures
from reelwright.pipeline.run.runner import RunResult
from reelwright.pipeline.upkeep.quarantine import release
from reelwright.storage.errors import ConfigError
from reelwright.storage.ledger.items import ItemRow
from tests.cli.test_comparing import reelwright
from tests.pipeline.test_retries import failing  # noqa: F401 - the fixture
from tests.small_project import read_rows, write_rows, write_video

CALM = ["frames.start=1", "videos.quarantine_after=2"]


def opened(folder: Path, *overrides: str) -> Project:
    return Project.open(folder / "reelwright.yaml", overrides=[*CALM, *overrides])


def run(folder: Path, *overrides: str, **options: object) -> RunResult:
    return opened(folder, *overrides).run(until=["frames"], **options)


def failure(folder: Path) -> Failure:
    (found,) = all_failures(opened(folder).planner())
    return found


@pytest.fixture
def quarantined(failing: Path) -> Path:  # noqa: F811
    """The video f could not be decoded in two runs."""
    for _ in range(2):
        assert run(failing).exit_code == 3
    return failing


@pytest.mark.slow
def test_a_video_that_failed_often_enough_is_left_alone(quarantined: Path) -> None:
    found = failure(quarantined)
    assert (found.video_ids, found.is_quarantined) == (("f",), True)
    result = run(quarantined)
    assert result.exit_code == 3  # it is still told of
    assert result.nothing_to_do
    assert [each.is_quarantined for each in result.failures] == [True]
    assert failure(quarantined).row.attempts == found.row.attempts
    plan = opened(quarantined).planner().plan("frames")
    assert (plan.state, plan.todo, plan.failed) == ("up to date", (), ())
    assert plan.reasons == ("quarantined: 1",)
    assert found.row.digest not in plan.available


@pytest.mark.slow
def test_other_work_goes_on_beside_it(quarantined: Path) -> None:
    write_video(quarantined / "g.mp4", seed=10)
    rows = read_rows(quarantined / "videos.csv")
    write_rows(quarantined / "videos.csv", [*rows, {**rows[0], "video_id": "g", "path": str(quarantined / "g.mp4")}])
    result = run(quarantined)
    assert [(node.state, node.num_done) for node in result.nodes] == [("ran", 1)]
    assert result.exit_code == 3
    assert failure(quarantined).is_quarantined
    assert run(quarantined).nothing_to_do


@pytest.mark.slow
def test_a_run_may_try_it_again(quarantined: Path) -> None:
    before = failure(quarantined).row.attempts
    result = run(quarantined, retry_quarantined=True)
    assert [node.state for node in result.nodes] == ["ran"]
    assert failure(quarantined).row.attempts > before
    assert failure(quarantined).is_quarantined
    forced = run(quarantined, force=["frames"])
    assert forced.nodes[0].num_done == 5
    assert forced.exit_code == 3


@pytest.mark.slow
def test_the_setting_can_be_raised_and_is_not_in_the_key(quarantined: Path) -> None:
    key = opened(quarantined).planner().plan("frames").spec_key
    raised = opened(quarantined, "videos.quarantine_after=100")
    plan = raised.planner().plan("frames")
    assert (plan.spec_key, plan.state, len(plan.failed), plan.quarantined) == (key, "stale", 1, ())
    never = opened(quarantined, "videos.quarantine_after=null").planner().plan("frames")
    assert len(never.failed) == 1


@pytest.mark.slow
def test_released_it_is_tried_as_often_again(quarantined: Path) -> None:
    planner = opened(quarantined).planner()
    assert release(planner, ["a"]) == []
    with pytest.raises(ConfigError, match=r"no video .ff. in the manifest\. Did you mean"):
        release(planner, ["ff"])
    assert release(planner, ["f"]) == [("frames", "f")]
    assert failure(quarantined).row.attempts == 0
    assert [node.state for node in run(quarantined).nodes] == ["ran"]
    assert release(opened(quarantined).planner()) in ([], [("frames", "f")])


@pytest.mark.slow
def test_another_content_is_another_video(quarantined: Path) -> None:
    write_video(quarantined / "f.mp4", seed=11)
    result = run(quarantined)
    assert result.exit_code == 0
    assert [node.num_done for node in result.nodes] == [1]


@pytest.mark.slow
def test_a_video_that_cannot_be_read_is_quarantined_too(failing: Path) -> None:  # noqa: F811
    (failing / "f.mp4").write_text("not a video")
    attempts = []
    for _ in range(3):
        assert run(failing).exit_code == 3
        attempts.append(failure(failing).row.attempts)
    assert attempts == [1, 2, 2]
    assert (failure(failing).node, failure(failing).is_quarantined) == ("videos", True)
    run(failing, retry_quarantined=True)
    assert failure(failing).row.attempts == 3
    assert release(opened(failing).planner()) == [("videos", "f")]
    run(failing)
    assert failure(failing).row.attempts == 1
    write_video(failing / "f.mp4", seed=11)
    assert run(failing).exit_code == 0


def test_logs_status_and_explain_tell_of_it(quarantined: Path) -> None:
    """As a person types them."""
    (quarantined / "reelwright.yaml").write_text(
        (quarantined / "reelwright.yaml").read_text().replace("videos: {", "videos: {quarantine_after: 2, ")
    )
    given = ["-S", "frames.start=1"]
    attempts = failure(quarantined).row.attempts
    message = reelwright(quarantined, "logs", *given)
    assert message.returncode == 0, message.stderr
    assert f"quarantined after {attempts} attempts" in message.stdout
    (cause,) = json.loads(reelwright(quarantined, "logs", "--json", *given).stdout)["causes"]
    assert (cause["videos"], cause["quarantined"], cause["attempts"]) == (1, 1, attempts)
    status = reelwright(quarantined, "status", *given).stdout
    assert "quarantined: 1" in status
    assert "1 quarantined; `logs --release` or `run --retry-quarantined` tries them again:" in status
    (entry,) = json.loads(reelwright(quarantined, "status", "--json", *given).stdout)["quarantined"]
    assert (entry["video_ids"], entry["row"]["attempts"]) == (["f"], attempts)
    assert "quarantined after" in reelwright(quarantined, "explain", "frames", "f", *given).stdout
    assert reelwright(quarantined, "run", "--until", "frames", *given).returncode == 3
    assert failure(quarantined).row.attempts == attempts
    planner = opened(quarantined).planner()
    log = planner.file.store.logs(planner.plan("frames").spec_key) / "unit.log"  # as a worker leaves it
    log.parent.mkdir(parents=True)
    log.write_text(f"# unit\n# video {failure(quarantined).row.digest} f f.mp4\nno such codec\n", encoding="utf-8")
    of_node = reelwright(quarantined, "logs", "frames", *given).stdout
    assert f"quarantined after {attempts} attempts" in of_node
    for text in (of_node, reelwright(quarantined, "logs", "f", *given).stdout):
        assert f"  {log}\n  | # unit\n  | no such codec\n" in text
    assert reelwright(quarantined, "logs", "embed", *given).stdout == "no video failed in embed\n"
    both = reelwright(quarantined, "run", "--retry-quarantined", "--no-retry")
    assert (both.returncode, "give one of the two" in both.stderr) == (2, True)
    gone = reelwright(quarantined, "logs", "f", "--release", *given)
    assert gone.stdout == "f of frames is tried again by the next `run`\n"
    assert reelwright(quarantined, "logs", "--release", *given).stdout == "no video is quarantined\n"


@pytest.mark.parametrize("state", ["failed", "quarantined"])
def test_what_reads_rows_tells_why_it_has_none_of_a_video(state: str) -> None:
    """A report lists the videos that are in no number, with this reason."""
    row = ItemRow(digest="d", status="failed", cause="corrupt", message="no frame")
    config = SimpleNamespace(wanted_splits=lambda: None, kind="items")
    of_train = SimpleNamespace(wanted_splits=lambda: ("train",), kind="run")
    lists = {"wanted": (SimpleNamespace(digest="d"),), state: (row,)}
    none = {"wanted": (), "failed": (), "quarantined": (), "is_one_thing": False}
    parents = {"frames": (), "embed": ("frames",), "train": ("embed",), "predict": ("train", "embed")}
    nodes = {
        name: SimpleNamespace(name=name, config=of_train if name == "train" else config, parents=above)
        for name, above in parents.items()
    }
    plans = {name: SimpleNamespace(node=node, **none) for name, node in nodes.items()}
    vars(plans["frames"]).update(lists)
    video = SimpleNamespace(video_id="v", split="test")
    planner = SimpleNamespace(plan=plans.__getitem__, dataset=SimpleNamespace(videos=[video]))
    for name in ("embed", "predict"):  # of predict the run is no reason, which did not learn from it
        assert why._left_out(planner, plans[name], "v", "d") == "failed in frames: corrupt: no frame"
