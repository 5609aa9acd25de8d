"""Every block of code of the README and of docs/ is tried, or says why not.

YAML is read by what reads pipeline files, to the options of models. The commands of all console blocks must exist, with
their options. Console and Python blocks have a comment before them:

    <!-- run: empty -->          run here, in an empty folder; `small`: with a project; `finished`: after its run
    <!-- tested: tests/... -->   by a test that names the page
    <!-- not run: why -->

`<!-- all blocks ... -->` on top of a page is of all blocks without a comment of their own.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from pydantic import TypeAdapter, ValidationError

from reelwright.cli.main import app
from reelwright.pipeline.config.cluster import ClusterSettings
from reelwright.pipeline.config.pipeline_file import load_pipeline
from reelwright.pipeline.plan.graph import build_graph
from reelwright.stages.base.config import parse_config
from reelwright.stages.base.registry import all_stages, config_model
from reelwright.stages.index.config import LabelsConfig, VideosConfig
from tests import forks
from tests.docs.pages import PAGES, ROOT, Block, blocks, words_of
from tests.small_project import write_project

COMMANDS = typer.main.get_command(app)
RUN = [block for block in blocks("console", "python") if block.note.startswith("run:")]


def where(block: Block) -> str:
    return block.where


def test_the_pages_have_blocks_of_every_kind() -> None:
    assert len(PAGES) > 25
    assert {len(blocks(kind)) > 0 for kind in ("yaml", "console", "python", "toml", "")} == {True}


@pytest.mark.parametrize("block", blocks("console", "python"), ids=where)
def test_a_block_is_run_or_says_why_not(block: Block) -> None:
    kind, _, text = block.note.partition(": ")
    assert kind in {"run", "tested", "not run"}, f"{block.where}: write <!-- not run: why --> before it, or run it"
    if kind == "run":
        assert text in {"empty", "small", "finished"}
    elif kind == "tested":
        test = ROOT / text
        assert block.page.name.removesuffix(".md") in test.read_text(encoding="utf-8"), f"{text} reads no such page"
    else:
        assert len(text.split()) >= 3, f"{block.where}: that is no reason"


@pytest.mark.parametrize("block", blocks(""), ids=where)
def test_code_says_its_language(block: Block) -> None:
    assert not re.search(r"^(\$|>>>|import|from) ", block.text, re.MULTILINE), f"{block.where}: write ```console"


@pytest.mark.parametrize("block", blocks("console"), ids=where)
def test_commands_and_their_options_exist(block: Block) -> None:
    commands = [words for line in block.commands for words in words_of(line)]
    for words in commands:
        _resolve(COMMANDS, words)
    targets = re.findall(r"^[a-z-]+(?=:.*##)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for line in block.commands:
        assert not line.startswith("make ") or line.split()[1] in targets


def _resolve(command: Any, words: list[str]) -> None:
    """Parse the words as the command line does, and run nothing."""
    context = command.make_context("reelwright", list(words), resilient_parsing=True)
    if hasattr(command, "list_commands"):
        name, *rest = [*context._protected_args, *context.args]  # `prepare ucf101` is `prepare dataset ucf101`
        inner = command.get_command(context, name)
        assert inner is not None, f"no command is called {name!r}"
        _resolve(inner, rest)
        return
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    given = [word.partition("=")[0] for word in words if re.match(r"-[-a-zA-Z]", word)]
    assert {name for name in given if name not in known and name not in context.help_option_names} == set(), words


@pytest.mark.parametrize("block", blocks("yaml"), ids=where)
def test_yaml_is_read(block: Block, tmp_path: Path) -> None:
    if block.note.startswith("not run: "):
        return
    content = yaml.safe_load(block.text)
    assert isinstance(content, dict)
    if "stages" in content and "videos" in content:
        path = tmp_path / "reelwright.yaml"
        path.write_text(block.text, encoding="utf-8")
        file = load_pipeline(path)
        assert set(build_graph(file).nodes) == set(file.nodes)
        return
    _read_piece(content, block.where)


def _read_piece(content: Mapping[str, Any], where_: str) -> None:
    """A part of a pipeline file: blocks, or nodes, or settings of a node."""
    readers = {"videos": VideosConfig, "labels": LabelsConfig, "cluster": ClusterSettings}
    for name, value in content.items():
        if name in readers and isinstance(value, dict):
            parse_config(readers[name], value, where=where_)
        elif name == "stages":
            _read_piece(value, where_)
        elif name == "store":
            assert isinstance(value, str)
        elif isinstance(value, dict) and "uses" in value:
            _read_node(value, where_)
        else:
            _read_setting(name, value, where_)


def _read_node(value: Mapping[str, Any], where_: str) -> None:
    settings = {key: entry for key, entry in value.items() if key not in {"uses", "seeds"}}  # seeds: seed, each
    parse_config(config_model(value["uses"], where=where_), settings, where=where_)


def _read_setting(name: str, value: Any, where_: str) -> None:
    """A setting of some stage by itself, read as that of the first stage that has it and takes it."""
    owners = [model for stage in all_stages() if name in (model := config_model(stage, where=where_)).model_fields]
    assert owners, f"{where_}: {name} is no setting of any stage"
    taken = [owner for owner in owners if not _refused(owner, name, value)]
    assert taken, f"{where_}: {name}: {_refused(owners[0], name, value)}"


def _refused(owner: Any, name: str, value: Any) -> str:
    try:
        TypeAdapter(owner.model_fields[name].annotation).validate_python(value)
    except ValidationError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("block", blocks("toml"), ids=where)
def test_toml_is_read(block: Block) -> None:
    assert tomllib.loads(block.text)


@pytest.mark.parametrize("block", blocks("python"), ids=where)
def test_python_is_python(block: Block) -> None:
    compile(block.text, block.where, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each note."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("empty", "small", "finished")}
    write_project(folders["small"])
    write_project(folders["finished"])
    if any(block.note == "run: finished" for block in RUN):
        done = forks.run("run", cwd=folders["finished"])
        assert done.returncode == 0, done.stderr
    return folders


@pytest.mark.slow
@pytest.mark.parametrize("block", RUN, ids=where)
def test_it_runs(block: Block, projects: dict[str, Path]) -> None:
    folder = projects[block.note.removeprefix("run: ")]
    if block.language == "python":
        done = forks.run(cwd=folder, code=block.text)
        assert done.returncode == 0, done.stderr
        return
    shown = block.text.splitlines()
    for line, code in zip(block.commands, block.exit_codes, strict=True):
        (words,) = words_of(line)
        done = forks.run(*words, cwd=folder)
        assert done.returncode == code, f"{line}: {done.returncode}\n{done.stderr}"
        after = shown[shown.index(f"$ {line}") + 1 :] if f"$ {line}" in shown else []
        first = after[0] if after and not after[0].startswith(("$ ", "...")) else ""
        said = done.stdout + done.stderr
        assert _plain(first) in _plain(said), f"{line} says {said!r}, the page {first!r}"


def _plain(text: str) -> str:
    """Words without numbers, sizes and paths, which differ from run to run."""
    words = [word for word in text.split() if not re.search(r"[\d/]", word)]
    return " ".join(word for word in words if word not in {"B", "kB", "MB", "GB", "s", "min"})
