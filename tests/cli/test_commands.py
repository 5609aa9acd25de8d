"""Commands as a person types them: what stands on stdout, and the exit codes."""

from __future__ import annotations

import json
import os
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from reelwright.cli.format import bytes_text, seconds_text, table_text
from reelwright.cli.main import COMMANDS, app
from tests import forks
from tests.cli.test_comparing import reelwright
from tests.small_project import PIPELINE


@pytest.mark.slow
def test_run_status_explain_show_and_a_broken_video(folder: Path) -> None:
    def reelwright(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        return forks.run(*arguments, cwd=folder, env={**os.environ, "NO_COLOR": "1", "COLUMNS": "120"})

    stale = reelwright(folder, "status", "--exit-code")
    assert stale.returncode == 1
    assert "videos: 5 new and not read yet: `run` reads them first" in stale.stdout
    (folder / "e.mp4").write_text("not a video")
    first = reelwright(folder, "run", "--json")
    assert first.returncode == 3, first.stderr
    message = json.loads(first.stdout)
    assert message["exit_code"] == 3
    assert [failure["video_ids"] for failure in message["failures"]] == [["e"]]
    second = reelwright(folder, "run")
    assert second.returncode == 3
    assert "not_a_video" in second.stdout
    assert reelwright(folder, "explain", "embed", "a").stdout.startswith("a in embed: up to date: ok, 10 rows")
    assert "unusable: not_a_video" in reelwright(folder, "explain", "embed", "e").stdout
    assert "weights: " in reelwright(folder, "explain", "train").stdout
    dry = reelwright(folder, "run", "-n", "-S", "frames.fps=2", "--json")
    states = {node["node"]: node["state"] for node in json.loads(dry.stdout)["nodes"]}
    assert states == {"frames": "stale", "embed": "stale", "train": "stale", "predict": "waiting", "scores": "waiting"}
    assert "report.html" in reelwright(folder, "report").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run"], "no reelwright.yaml or pipeline.yaml"),
        (["run", "-c", "gone.yaml"], "gone.yaml: no such pipeline file"),
        (["embed", "--videos", "x.docx"], "'x.docx': no such manifest"),
        (["init", "--recipe", "demp"], "no recipe 'demp'. Did you mean 'demo'?"),
        (["settings", "decoed"], "'decoed' is no stage. Did you mean 'decode'?"),
        (["nonsense"], "No such command"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_usage_exits_with_2(tmp_path: Path, arguments: list[str], message: str) -> None:
    done = reelwright(tmp_path, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stdout == ""


def test_the_demo_refuses_a_wrong_setting_before_it_makes_videos(tmp_path: Path) -> None:
    result = reelwright(tmp_path, "demo", "-S", "train.epoch=1")
    assert result.returncode == 2
    assert "epoch: unknown key. Did you mean 'epochs'?" in result.stderr
    assert [path.name for path in tmp_path.glob("demo/*")] == ["reelwright.yaml"]


def test_init_writes_a_file_that_is_read_and_never_overwrites(tmp_path: Path) -> None:
    assert reelwright(tmp_path, "init").returncode == 0
    again = reelwright(tmp_path, "init")
    assert again.returncode == 2
    assert "is there already" in again.stderr
    assert reelwright(tmp_path, "graph").stdout.splitlines()[1].strip().startswith("frames (decode)")


@pytest.mark.parametrize(("form", "part"), [("mermaid", "frames --> embed"), ("dot", '"frames" -> "embed";')])
def test_graphs(tmp_path: Path, form: str, part: str) -> None:
    (tmp_path / "reelwright.yaml").write_text(PIPELINE)
    assert part in reelwright(tmp_path, "graph", "--format", form).stdout


def test_a_graph_of_seeds_is_mermaid(tmp_path: Path) -> None:
    """Which takes no @ in the name of a node, nor a word of its own."""
    text = (
        PIPELINE.replace("uses: train", "uses: train\n    seeds: 2")
        .replace("embed:", "end:")
        .replace("[embed]", "[end]")
    )
    (tmp_path / "reelwright.yaml").write_text(text)
    lines = reelwright(tmp_path, "graph", "--format", "mermaid").stdout.splitlines()
    named = dict(line.strip().removesuffix('"]').split('["', 1) for line in lines if '["' in line)
    called = {text.partition("<br/>")[0]: name for name, text in named.items()}
    assert {"end", "train@0", "train@1", "scores"} <= called.keys()
    assert all(name.isidentifier() and name != "end" for name in called.values())
    assert f"  {called['train@1']} --> {called['predict@1']}" in lines


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (999, "999 B"), (1_536_000, "1.5 MB"), (2e12, "2.0 TB")])
def test_bytes(count: float, text: str) -> None:
    assert bytes_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (59.94, "59.9 s"), (75.3, "1 min 15 s"), (7260, "2 h 1 min")]
)
def test_seconds(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


def test_tables_align() -> None:
    assert table_text(("a", ">n"), [("x", "1"), ("long", "10")]) == "a      n\n----  --\nx      1\nlong  10"


@pytest.mark.parametrize("stage", ["decode", "embed", "pretrain", "train", "finetune", "predict", "steps", "evaluate"])
def test_every_stage_command_has_the_options_of_a_run(stage: str) -> None:
    command = get_command(app).get_command(None, stage)
    options = {name for parameter in command.params for name in parameter.opts}
    assert {"-c", "-S", "-n", "-k", "-j", "--videos", "--force", "--limit", "--executor", "--json"} <= options
    assert ("--nproc" in options) == (stage in {"pretrain", "train", "finetune"})
    assert all(getattr(parameter, "help", "") for parameter in command.params)


def test_a_command_is_found_alone_and_help_lists_all_in_order() -> None:
    group = get_command(app)
    assert group.get_command(None, "mean") is group.commands["mean"]
    assert list(group.commands) == ["mean"]
    fresh = get_command(app)
    names = fresh.list_commands(None)
    assert names[: len(COMMANDS)] == list(COMMANDS)
    assert {"decode", "embed", "train"} <= set(names[len(COMMANDS) :])
    assert all(fresh.get_command(None, name).name == name for name in names)
    assert fresh.get_command(None, "import_model") is None  # a stage without a command of its own


def test_the_version_is_the_installed_one_and_h_is_help() -> None:
    shown = CliRunner().invoke(app, ["--version"])
    assert (shown.exit_code, shown.stdout.split()[:2]) == (0, ["reelwright", version("reelwright") + ","])
    assert CliRunner().invoke(app, ["run", "-h"]).stdout == CliRunner().invoke(app, ["run", "--help"]).stdout
