"""docs/plug-ins.md: its examples are short, pass the tests of the package, and are a pipeline without mistakes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from reelwright.pipeline.config.pipeline_file import load_pipeline
from reelwright.pipeline.run.checks import check_before_run
from reelwright.pipeline.run.results import RunOptions
from reelwright.pipeline.run.runner import open_planner
from tests import forks
from tests.page_code import files_of, write_files
from tests.small_project import write_rows

PAGE = "plug-ins.md"


def test_examples_are_short() -> None:
    code = {
        name: text for name, text in files_of(PAGE).items() if name.endswith(".py") and not name.startswith("test_")
    }
    assert set(code) == {"net.py", "loss.py", "metric.py", "tiny.py", "steadiness.py"}
    assert all(len([line for line in text.splitlines() if line.strip()]) <= 20 for text in code.values())


def test_examples_pass_the_tests_that_the_package_has_for_them(tmp_path: Path) -> None:
    write_files(PAGE, tmp_path)
    done = run_tests(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "17 passed" in done.stdout


def run_tests(folder: Path) -> subprocess.CompletedProcess[str]:
    code = "import pytest, sys; sys.exit(pytest.main(sys.argv[1:]))"
    arguments = ("-q", "-p", "no:cacheprovider", "--rootdir=.", "test_mine.py")
    return forks.run(*arguments, cwd=folder, code=code, env={**os.environ, "COLUMNS": "200"})


@pytest.mark.parametrize(
    ("file", "old", "new", "fails"),
    [
        (
            "net.py",
            "pool_mean(embedding, batch[",
            "pool_mean(self.body(batch['rows']), ~batch[",
            "test_padded_rows_change",
        ),
        ("loss.py", "if self.training:", "if True:", "test_evaluation_changes_nothing"),
        ("loss.py", '"fit": fit, ', "", "test_its_parts_add_up"),
        ("steadiness.py", "changes.sum() / len", "changes.sum() / 0 * len", "test_it_gives_names_and_finite_numbers"),
        ("tiny.py", "return {name: found[name] for name in self.outputs}", "return {}", "test_outputs_are_those"),
    ],
)
@pytest.mark.slow
def test_mistakes_in_them_are_found(tmp_path: Path, file: str, old: str, new: str, fails: str) -> None:
    write_files(PAGE, tmp_path)
    text = (tmp_path / file).read_text()
    assert old in text
    (tmp_path / file).write_text(text.replace(old, new))
    done = run_tests(tmp_path)
    assert f"{fails}" in done.stdout
    assert done.returncode == 1


def test_the_pipeline_file_has_no_mistakes(tmp_path: Path) -> None:
    write_files(PAGE, tmp_path)
    for name in "abc":
        (tmp_path / f"{name}.mp4").write_bytes(name.encode())
    splits = {"a": "train", "b": "train", "c": "test"}
    write_rows(tmp_path / "videos.csv", [{"path": f"{n}.mp4", "video_id": n, "split": s} for n, s in splits.items()])
    rows = [{"video_id": name, "start_seconds": 0, "stop_seconds": 1, "label": "x"} for name in "abc"]
    write_rows(tmp_path / "segments.csv", rows)
    assert check_before_run(open_planner(load_pipeline(tmp_path / "reelwright.yaml")), RunOptions()) == ()
