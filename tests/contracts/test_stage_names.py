"""A stage is one folder and one line of the table: pipeline and commands name none, but by what it declares."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from reelwright.stages.base.registry import all_stages, produced_by, stage_of, usual_nodes

ROOT = Path(__file__).parents[2]

# module -> words in it that are no names of stages though stages are called so, or name the command's own stage
ALLOWED = {
    "contents": {"features", "train", "steps"},  # a block of videos, a split, a kind of labels
    "data": {"evaluate"},  # the times of thumbnails, for sheets of frames
    "dataset": {"features", "steps"},  # what is in files, for messages; a kind of labels
    "history": {"steps"},  # an output kind
    "importing": {"features"},  # the command of this stage
    "preparing": {"train", "steps"},  # a split; the folder with the procedures to start from
    "project": {"steps"},  # an output kind
    "own_data": {"train"},  # a split
    "run_tables": {"summary"},  # the page of several runs lies beside that of several seeds
    "sample_data": {"train"},  # a split
    "parts": {"decode"},  # what makes frames tells how long a video takes
}


def named(source: str) -> Iterator[str]:
    """Stages that code names: as a text, as the module of an import, or within a text as such a module."""
    for entry in ast.walk(ast.parse(source)):
        if isinstance(entry, ast.Constant) and isinstance(entry.value, str):
            yield from {entry.value} & set(all_stages())
            yield from re.findall(r"reelwright\.stages\.(\w+)", entry.value)
        elif isinstance(entry, ast.ImportFrom) and entry.module and entry.module.startswith("reelwright.stages."):
            yield entry.module.split(".")[2]


@pytest.mark.parametrize("folder", ["pipeline", "cli"])
def test_no_stage_is_named_outside_its_folder(folder: str) -> None:
    found = {
        (path.relative_to(ROOT).as_posix(), name)
        for path in sorted((ROOT / folder).rglob("*.py"))
        for name in named(path.read_text(encoding="utf-8"))
        if name in all_stages() and name not in ALLOWED.get(path.stem, set())
    }
    assert found == set()


def test_the_search_finds_what_it_looks_for() -> None:
    source = (
        'from reelwright.stages.decode.config import X\nload("reelwright.stages.embed.work:run")\nSTAGES = {"train"}'
    )
    assert sorted(named(source)) == ["decode", "embed", "train"]


@pytest.mark.parametrize("stage", [name for name, entry in all_stages().items() if entry.node is not None])
def test_a_stage_brings_the_nodes_that_it_needs(stage: str) -> None:
    nodes = usual_nodes(stage)
    assert list(nodes)[-1] == stage_of(stage).node
    assert list(nodes.values())[-1]["uses"] == stage
    seen: set[str] = set()
    for name, block in nodes.items():
        read = [block[field] for field in stage_of(block["uses"]).reads]
        assert {entry for given in read for entry in ([given] if isinstance(given, str) else given)} <= seen
        seen.add(name)
    frames_are_read = stage in {"decode", "pretrain", "finetune"}  # by more than what can take them as they come
    assert ("materialize" in nodes["frames"]) != frames_are_read


def test_a_stage_that_is_not_known_here_makes_nothing() -> None:
    assert (produced_by("nope"), produced_by("pretrain")) == ("", "run")
