"""What is told of nodes, videos and runs is of this file and node, as it is now."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from reelwright.cli.main import app
from reelwright.pipeline.inspect.comparison import mixed_targets, run_rows
from reelwright.pipeline.plan.history import History
from reelwright.pipeline.project import Project, SilentObserver
from reelwright.pipeline.run.reading import read_videos
from reelwright.stages.fit.optim.names import check_optimizer
from reelwright.storage.errors import ConfigError, StoreError, nearest


def invoke(folder: Path, *words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [*words, "-c", str(folder / "reelwright.yaml")])
    message = "" if result.exception is None or isinstance(result.exception, SystemExit) else str(result.exception)
    return result.exit_code, result.stdout, result.stderr + message


def test_a_change_is_told_against_what_this_file_had_last_found_or_made(copied: Path) -> None:
    """Another experiment on the file ran in between; then the first settings were a hit."""
    path = copied / "reelwright.yaml"
    assert Project.open(path, overrides=["train.epochs=3"]).run(until="train").exit_code == 0
    assert Project.open(path).run().nothing_to_do
    plan = Project.open(path, overrides=["train.seed=5"]).planner().plan("train")
    assert plan.reasons == ("spec.seed: 0 -> 5",)


def test_logs_tell_of_a_video_that_could_not_be_read(copied: Path) -> None:
    (copied / "bad.mp4").write_bytes(b"not a video")
    with (copied / "videos.csv").open("a", encoding="utf-8") as file:
        file.write(f"bad,{copied / 'bad.mp4'},train\n")
    file_of = Project.open(copied / "reelwright.yaml").file
    assert "its content is not read, `run` reads it first" in invoke(copied, "logs", "bad")[1]
    read_videos(file_of, SilentObserver(), jobs=1)
    code, message, _ = invoke(copied, "logs", "bad")
    assert code == 0
    assert message.startswith("bad in videos: failed, 0 rows, 1 attempts (")
    assert json.loads(CliRunner().invoke(app, ["logs", "bad", "--json", "-c", str(file_of.path)]).stdout)[0]["row"]


def test_reports_that_are_not_there_are_not_printed(copied: Path) -> None:
    project = Project.open(copied / "reelwright.yaml")
    folder = project.report("scores")
    assert invoke(copied, "report")[:2] == (0, f"scores: {folder / 'report.html'}\n")
    (folder / "report.html").unlink()
    code, message, why = invoke(copied, "report")
    assert (code, message) == (1, "")
    assert "report.html is gone. `reelwright run --force scores` writes it again" in why
    shutil.rmtree(folder)
    code, message, why = invoke(copied, "report", "scores")
    assert (code, message) == (1, "")
    assert "node 'scores' is not finished: its output is gone from the store. Run it first" in why
    other = Project.open(project.file.path, overrides=["frames.stop=1.6"])
    with pytest.raises(StoreError, match="node 'predict' has not run yet: waits for train"):
        other.predictions("predict")
    with pytest.raises(StoreError, match="node 'scores' has not run yet: waits for predict"):
        other.report("scores")


def test_runs_that_are_scored_on_other_labels_are_told_apart(copied: Path) -> None:
    path = copied / "reelwright.yaml"
    history = History.of(Project.open(path).file.store)
    assert mixed_targets(run_rows(history)) == []
    text = (copied / "segments.csv").read_text(encoding="utf-8")
    (copied / "segments.csv").write_text(text.replace("d,1,2,blue", "d,1.5,2,blue"), encoding="utf-8")
    assert Project.open(path, overrides=["train.epochs=1"]).run().exit_code == 0
    rows = run_rows(History.of(Project.open(path).file.store))
    assert mixed_targets(rows) == ["scores"]
    assert len({row.targets["scores"] for row in rows}) == 2
    _, table, note = invoke(copied, "compare")
    assert "scores on" in table.splitlines()[0]
    assert "these runs are scored on different videos or labels" in note


def test_renamed_videos_are_the_same_targets(copied: Path) -> None:
    path = copied / "reelwright.yaml"
    for name in ("videos.csv", "segments.csv"):
        text = (copied / name).read_text(encoding="utf-8")
        (copied / name).write_text(text.replace("\nd,", "\nz,"), encoding="utf-8")
    assert Project.open(path, overrides=["train.epochs=1"]).run().exit_code == 0
    assert mixed_targets(run_rows(History.of(Project.open(path).file.store))) == []


# --- names


def test_one_name_is_a_list_of_one(copied: Path) -> None:
    project = Project.open(copied / "reelwright.yaml", overrides="train.epochs=2")
    assert [node.node for node in project.run(until="embed").nodes] == ["frames", "embed"]
    assert [node.node for node in project.run(only="embed").nodes] == ["embed"]
    with pytest.raises(ConfigError, match=r"no node 'trian'\. Did you mean 'train'\?"):
        project.run(until="trian")
    with pytest.raises(ConfigError, match=r"run has no option 'untill'\. Did you mean 'until'\?"):
        project.run(untill="train")


@pytest.mark.parametrize("stage", ["decode", "embed", "predict", "steps", "evaluate"])
def test_processes_that_share_batches_are_asked_of_training_alone(stage: str) -> None:
    refused = CliRunner().invoke(app, [stage, "--nproc", "2"])
    assert refused.exit_code == 2
    assert "No such option: --nproc" in refused.stderr


@pytest.mark.parametrize(
    ("name", "hint"),
    [("adawm", "adamw"), ("adamww", "adamw"), ("adma", "adam"), ("sdg", "sgd"), ("lokahead", None), ("lamp", "lamb")],
)
def test_the_common_optimizer_is_meant_where_several_are_near(name: str, hint: str | None) -> None:
    with pytest.raises(ValueError, match="is not known") as error:
        check_optimizer(name, {}, ())
    assert (f"Did you mean '{hint}'?" in str(error.value)) == (hint is not None)


def test_an_option_that_is_refused_is_not_suggested() -> None:
    fields = ("lr", "momentum", "weight_decay")
    with pytest.raises(ValueError, match="no option of adamw") as error:
        check_optimizer("adamw", {"momentm": 0.9}, fields)
    assert "Did you mean" not in str(error.value)
    with pytest.raises(ValueError, match=r"Did you mean 'weight_decay'\?"):
        check_optimizer("adamw", {"wieght_decay": 0.1}, fields)


@pytest.mark.parametrize(
    ("name", "known", "meant"),
    [("stirde", ["strides", "stride"], "stride"), ("ab", [], None), ("fps", ["fsp", "fp"], "fsp"), ("zz", ["a"], None)],
)
def test_nearest(name: str, known: list[str], meant: str | None) -> None:
    assert nearest(name, known) == ("" if meant is None else f" Did you mean {meant!r}?")
