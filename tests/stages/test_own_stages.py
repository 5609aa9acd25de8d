"""Stages of other packages: found by entry point, and run as their source is now."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from reelwright.stages.base import plugin_source
from reelwright.stages.base.registry import all_stages, check_stage, config_model, load, stage_of, stage_plugin
from reelwright.storage.errors import ConfigError
from tests.slow.test_own_stage import PACKAGE


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the toy package on the path; what was imported of it is forgotten afterwards."""
    for name, text in PACKAGE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "toy_stage"]:
        plugin_source._served.pop(name, None)
        del sys.modules[name]


def test_it_stands_in_the_table(site: Path) -> None:
    assert stage_of("count_rows").node == "counts"
    assert "count_rows" in all_stages()
    assert config_model("count_rows", where="test").produces == "scores"
    assert stage_plugin("train") is None


def test_it_runs_as_its_source_is_now_and_as_its_key_says(site: Path) -> None:
    first, run = stage_plugin("count_rows"), load("toy_stage.work:run")
    assert first is not None
    made_of = {"plugins": {"stage": first.material()}}
    check_stage("count_rows", made_of)
    assert load("toy_stage.work:run") is run
    work = site / "toy_stage" / "work.py"
    work.write_text(work.read_text().replace("def run(work, reporter):", "def run(work, reporter, more=1):"))
    with pytest.raises(ConfigError, match=r"stage count_rows \(toy_stage:COUNT\) is not what the plan was made of"):
        check_stage("count_rows", made_of)
    assert load("toy_stage.work:run").__defaults__ == (1,)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (
            "toy_stage/__init__.py",
            "Stage(",
            "Stage2(",
            r"offers a stage count_rows .*, which cannot be imported: NameError",
        ),
        ("toy_stage/__init__.py", "COUNT = Stage", "COUNT = print", r"which is NoneType, not a .*Stage"),
        ("toy_stage/config.py", '"count_rows"', '"rows"', r"'count_rows' has settings that say they are of 'rows'"),
    ],
)
def test_one_that_is_broken_is_told(site: Path, file: str, old: str, new: str, message: str) -> None:
    text = (site / file).read_text()
    assert old in text
    (site / file).write_text(text.replace(old, new, 1) if "print" not in new else "COUNT = None\n")
    with pytest.raises(ConfigError, match=message):
        config_model("count_rows", where="test")
    assert config_model("train", where="test").produces == "run"
