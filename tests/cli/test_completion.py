"""What the shell offers, and that every command's help has an example that the command itself takes."""

from __future__ import annotations

import shlex
from pathlib import Path

import click
import pytest
import typer
from typer.testing import CliRunner

from reelwright.cli import completion
from reelwright.cli.main import EXAMPLES, app, example_of

PIPELINE = """
videos: {folder: videos}
stages:
  frames: {uses: decode}
  embed: {uses: embed, frames: frames, encoder: timm/test_resnet, weights: none}
"""
GROUP = typer.main.get_command(app)


@pytest.fixture
def context(tmp_path: Path) -> click.Context:
    (tmp_path / "reelwright.yaml").write_text(PIPELINE, encoding="utf-8")
    context = typer.Context(click.Command("run"))
    context.params["config"] = str(tmp_path / "reelwright.yaml")
    return context


def test_nodes_settings_stages_and_recipes(context: typer.Context) -> None:
    assert completion.complete_node(context, "") == ["frames", "embed"]
    assert completion.complete_node(context, "em") == ["embed"]
    assert completion.complete_setting(context, "frames.short") == ["frames.short_side="]
    assert "videos.folder=" in completion.complete_setting(context, "videos.")
    assert completion.complete_setting(context, "embed.clip") != []
    assert completion.complete_setting(context, "frames.fps=") == []
    assert [name for name, _ in completion.complete_recipe("de")] == ["default", "demo"]
    assert completion.complete_run(context, "fr") == [("frames", "decode")]


def test_settings_of_a_node_of_several_seeds_are_those_of_the_file(context: typer.Context, tmp_path: Path) -> None:
    file = tmp_path / "reelwright.yaml"
    embed = "{uses: embed, frames: frames, encoder: timm/resnet18, weights: none, seeds: 2}"
    file.write_text(f"videos: {{folder: .}}\nstages: {{frames: {{uses: decode}}, embed: {embed}}}", encoding="utf-8")
    assert completion.complete_node(context, "embed") == ["embed@0", "embed@1"]
    assert completion.complete_setting(context, "embed.weig") == ["embed.weights="]
    assert completion.complete_setting(context, "embed@") == []


def test_a_file_that_cannot_be_read_offers_nothing(context: typer.Context, tmp_path: Path) -> None:
    (tmp_path / "reelwright.yaml").write_text("stages: {a: {uses: nope}}", encoding="utf-8")
    assert completion.complete_node(context, "") == completion.complete_setting(context, "") == []
    assert completion.complete_run(context, "") == []


def test_a_damaged_record_takes_no_node_away(context: typer.Context, tmp_path: Path) -> None:
    record = tmp_path / ".reelwright" / "store" / "nodes" / ("0" * 32) / "record.json"
    record.parent.mkdir(parents=True)
    record.write_text("{", encoding="utf-8")
    assert completion.complete_run(context, "fr") == [("frames", "decode")]


def test_the_shell_is_offered_them(context: typer.Context) -> None:
    (name,) = GROUP.get_command(click.Context(GROUP), "settings").params[:1]  # type: ignore[attr-defined]
    assert [item.value for item in name.shell_complete(context, "cas")] == ["cast"]
    command = GROUP.get_command(click.Context(GROUP), "run")  # type: ignore[attr-defined]
    until = next(parameter for parameter in command.params if parameter.name == "until")
    assert [item.value for item in until.shell_complete(context, "fr")] == ["frames"]


def test_nodes_that_train_and_exported_models(
    context: typer.Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.json").touch()
    train = "\n  train: {uses: train, embeddings: [embed], model: {name: linear}}\n"
    (tmp_path / "reelwright.yaml").write_text(f"{PIPELINE.rstrip()}{train}", encoding="utf-8")
    for command, parameter, offered in (
        ("predict", "run", ["train", "model"]),
        ("export", "node", ["frames", "embed", "train"]),
        ("logs", "names", ["frames", "embed", "train"]),
    ):
        found = GROUP.get_command(click.Context(GROUP), command)  # type: ignore[attr-defined]
        context.command = found
        (asked,) = [each for each in found.params if each.name == parameter]
        assert [item.value for item in asked.shell_complete(context, "")] == offered


def commands() -> dict[str, click.Command]:
    """All commands by name, those in groups as ``data show``."""
    found: dict[str, click.Command] = {}
    GROUP.list_commands(click.Context(GROUP))  # type: ignore[attr-defined]
    for name, command in GROUP.commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        found |= {name: command} if inner is None else {f"{name} {own}": each for own, each in inner.items()}
    return found


@pytest.mark.parametrize("name", commands())
def test_every_command_has_an_example_that_it_takes(name: str) -> None:
    command = commands()[name]
    assert command.epilog == example_of(name)
    written = command.epilog.removeprefix("Example: ")
    assert written.startswith(f"reelwright {name}")
    command.make_context(name, shlex.split(written.removeprefix(f"reelwright {name}")))


def test_no_example_is_of_a_command_that_is_gone() -> None:
    assert set(EXAMPLES) <= set(commands())


@pytest.mark.parametrize(
    ("word", "offered"), [("prepare", {"dataset", "procedure", "detections"}), ("show", {"run", "explain"})]
)
def test_commands_below_a_command_and_all_behind_one_that_was(word: str, offered: set[str]) -> None:
    """A name that was once a command's is told to whoever runs it, not to whoever presses Tab."""
    typed = {"_REELWRIGHT_COMPLETE": "complete_bash", "COMP_WORDS": f"reelwright {word} ", "COMP_CWORD": "2"}
    found = CliRunner().invoke(app, [], prog_name="reelwright", env=typed)
    assert (found.exit_code, found.stderr) == (0, "")
    assert offered <= set(found.stdout.split())
