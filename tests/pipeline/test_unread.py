"""Videos whose content is not known: nothing is planned, answered or thrown away as if they were not there."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from reelwright.cli.main import app
from reelwright.pipeline.plan.graph import FRESH, STALE, WAITING
from reelwright.pipeline.plan.why import explain_video
from reelwright.pipeline.project import Project, SilentObserver
from reelwright.pipeline.run import reading
from reelwright.pipeline.run.reading import read_videos
from reelwright.pipeline.run.runner import open_planner
from reelwright.pipeline.upkeep.gc import Limits, sweep
from reelwright.pipeline.upkeep.verify import reachable
from reelwright.storage.errors import InputError, StoreError
from tests.small_project import read_rows, write_project, write_rows, write_video

COUNT = "videos: 1 changed on disk and not read yet"


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small project, run without the training video b, then with it: two sets of outputs lie in its store."""
    folder = write_project(tmp_path_factory.mktemp("unread"))
    rows = read_rows(folder / "videos.csv")
    write_rows(folder / "videos.csv", [row for row in rows if row["video_id"] != "b"])
    assert Project.open(folder / "reelwright.yaml").run().exit_code == 0
    write_rows(folder / "videos.csv", rows)
    assert Project.open(folder / "reelwright.yaml").run().exit_code == 0
    shutil.copytree(folder, folder.with_name("unread_kept"))
    return folder


@pytest.fixture
def project(ran: Path) -> Project:
    """Up to date; what a test did to its videos and its store before is undone."""
    for name in ("a", "b", "d"):
        shutil.copyfile(ran.with_name("unread_kept") / f"{name}.mp4", ran / f"{name}.mp4")
    opened = Project.open(ran / "reelwright.yaml")
    read_videos(opened.file, SilentObserver(), jobs=1)
    assert all(plan.state == FRESH for plan in opened.status())
    return opened


def touch(project: Project, name: str) -> None:
    os.utime(project.file.folder / f"{name}.mp4", ns=(1, 1))


def states(project: Project) -> dict[str, str]:
    return {plan.node.name: plan.state for plan in project.status()}


def test_a_touched_video_is_not_left_out_of_the_plan(project: Project) -> None:
    touch(project, "b")
    assert states(project) == {
        "frames": STALE,
        "embed": STALE,
        "train": WAITING,
        "predict": WAITING,
        "scores": WAITING,
    }
    plans = {plan.node.name: plan for plan in project.status()}
    assert plans["frames"].reasons == plans["embed"].reasons == plans["train"].reasons == (COUNT,)
    assert {plan.key for plan in plans.values()} == {""}
    assert plans["frames"].spec_key


def test_a_touched_video_that_a_run_does_not_learn_from_leaves_the_run_as_it_is(project: Project) -> None:
    touch(project, "d")
    assert states(project) == {"frames": STALE, "embed": STALE, "train": FRESH, "predict": STALE, "scores": WAITING}


def test_answers_are_of_the_touched_files_content(project: Project) -> None:
    """They were those of the run without b, under whose key everything lies in the store too."""
    before = {
        "report": project.report("scores"),
        "predictions": project.predictions("predict").folder,
        "trained": project.trained("train").path,
        "record": project.record("train"),
        "embeddings": sorted(project.embeddings("embed")),
    }
    touch(project, "b")
    again = Project.open(project.file.path)
    assert {
        "report": again.report("scores"),
        "predictions": again.predictions("predict").folder,
        "trained": again.trained("train").path,
        "record": again.record("train"),
        "embeddings": sorted(again.embeddings("embed")),
    } == before
    assert all(state == FRESH for state in states(again).values())  # what was read is remembered


@pytest.mark.parametrize("name", ["predict", "scores", "train", "embed", "frames"])
def test_another_content_is_refused_until_it_is_read(project: Project, name: str) -> None:
    write_video(project.file.folder / "b.mp4", seed=77)
    answer = {
        "predict": project.predictions,
        "scores": project.report,
        "train": project.trained,
        "embed": project.embeddings,
        "frames": project.frames,
    }[name]
    with pytest.raises(StoreError, match=r"videos: 1 changed on disk and not read yet|waits for (train|predict)"):
        answer(name)
    assert project.record(name) is None


def test_status_and_dry_run_say_so_and_never_that_all_is_up_to_date(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(project, "b")
    monkeypatch.chdir(project.file.folder)
    shown = CliRunner().invoke(app, ["status", "--exit-code"])
    assert shown.exit_code == 1
    assert f"{COUNT}: `run` reads them first" in shown.stdout
    assert "up to date" not in shown.stdout
    assert "up to date" not in CliRunner().invoke(app, ["run", "-n"]).stdout
    assert CliRunner().invoke(app, ["report"]).exit_code == 0


def test_what_reads_a_touched_video_is_reached_by_verify_and_gc(project: Project, monkeypatch) -> None:
    """`gc` too where the video changes again after it was read."""
    reached = {plan.key for plan in project.status()}
    touch(project, "b")
    assert reached <= reachable(open_planner(project.file, read=True)).names["outputs"].keys()
    touch(project, "a")
    with monkeypatch.context() as patch:
        patch.setattr("reelwright.pipeline.upkeep.gc.read_videos", lambda *_, **__: None)
        found = sweep([project.file], SilentObserver(), limits=Limits(guard_seconds=0))
    gone = {garbage.path.name for garbage in found.going}
    assert reached.isdisjoint(gone)
    assert not {item.digest for item in project.planner(read=True).dataset.all_items} & gone


def test_a_file_that_changes_while_it_is_read_is_named_before_any_work(project: Project, monkeypatch) -> None:
    path = project.file.folder / "b.mp4"
    write_video(path, seed=78)
    load = reading.load

    def then_changed(entry: str):
        def index(*arguments, **options) -> None:
            load(entry)(*arguments, **options)
            write_video(path, seed=79)

        return index

    monkeypatch.setattr(reading, "load", then_changed)
    with pytest.raises(InputError, match=r"1 videos changed while they were read. Run again(?s:.*)b: .*b\.mp4"):
        project.run(jobs=1)


def test_what_is_to_be_read_though_it_did_not_change_is_told_from_what_did(project: Project) -> None:
    store, overrides = project.file.store, ["videos.digest=quick"]
    quick = Project.open(project.file.path, overrides=overrides).planner()
    assert quick.dataset.unread_counts(quick.dataset.new) == ["videos: 5 to be read again (videos.digest was another)"]
    assert "another videos.digest" in explain_video(quick, "frames", "b").reasons[0]
    store.videos.unlink()
    touch(project, "b")
    planner = project.planner()
    assert planner.dataset.unread_counts(planner.dataset.new) == [
        "videos: 1 changed on disk and not read yet",
        "videos: 4 to be read again (what was known of them is gone from the store)",
    ]
    assert "what was known of it is gone" in explain_video(planner, "frames", "a").reasons[0]


def test_what_was_done_and_is_gone_with_its_records_is_not_called_new(project: Project) -> None:
    nodes = project.file.store.root / "nodes"
    nodes.rename(nodes.with_name("kept"))
    try:
        planner = project.planner()
        reasons = {plan.node.name: plan.reasons for plan in planner.plans()}
        assert reasons["frames"] == reasons["embed"] == ("gone from the store: 5 of 5 videos",)
        assert reasons["train"] == ("its record is gone from the store",)
        assert explain_video(planner, "frames", "b").reasons == ("gone from the store",)
    finally:
        nodes.with_name("kept").rename(nodes)
