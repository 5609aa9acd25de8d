"""The built documentation: every page is in the navigation, nothing is loaded from outside, links lead somewhere."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import reelwright
from reelwright.stages.base.registry import STAGES
from tests.docs.pages import ROOT

BUILD = ROOT / "docs" / "build.py"


@pytest.fixture(scope="module")
def build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_build", BUILD)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_page_and_every_stage_is_in_the_navigation(build: ModuleType) -> None:
    pages = [page for _, _, page in build.navigation()]
    assert len(pages) == len(set(pages))
    written = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert written | set(build.TOP_PAGES) | {f"reference/{stage}.md" for stage in STAGES} <= set(pages)


def test_the_reference_has_every_setting_with_its_default(build: ModuleType) -> None:
    pages = build.reference()
    assert "| `window.length`<br><code>" in pages["train"]
    assert {name for name in STAGES if "| `seeds`<br><code>null</code>" in pages[name]} == {
        *("embed", "train", "finetune", "pretrain"),
    }
    assert "| `scene.camera.shake`<br><code>{}</code> |" in pages["augmentations"]
    assert "## `moco`" in pages["objectives"]
    assert "`predictor_hidden`" not in pages["objectives"].partition("## `moco`")[2].partition("## `byol`")[0]
    assert "## `reelwright data show`" in pages["commands"]
    assert "::: reelwright.pipeline.api.project.Project" in pages["python"]


def test_the_reference_reads_a_whole_package(
    build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its __init__.py what an editable installation calls `reelwright` would be found instead, and no more."""
    for name, folder in (("BUILD", tmp_path), ("DOCS", tmp_path / "docs"), ("SITE", tmp_path / "site")):
        monkeypatch.setattr(build, name, folder)
    build.gather()
    package = tmp_path / "api" / "reelwright"
    assert (package / "__init__.py").read_bytes() == Path(reelwright.__file__).read_bytes()
    assert {path.name for path in package.iterdir()} == {*build.PACKAGES, "__init__.py"}


def test_a_cell_of_a_table_stays_one_cell(build: ModuleType) -> None:
    assert build._cell("a | b, <int> and `x|y`, video_id") == "a \\| b, &lt;int> and `x\\|y`, video\\_id"
    assert build._table_line("| `a \\| b` | c |") == "| <code>a &#124; b</code> | c |"
    assert build._table_line("`a \\| b`") == "`a \\| b`"


@pytest.mark.parametrize(
    ("html", "problem"),
    [
        ('<script src="https://far.example/x.js"></script>', "page.html loads https://far.example/x.js"),
        ('<link rel="stylesheet" href="//far.example/x.css">', "page.html loads //far.example/x.css"),
        ('<img alt="a" src="gone.png">', "page.html: gone.png is not there"),
        ('<pre class="mermaid">', "page.html draws a diagram with Mermaid, which is loaded from outside"),
        ('<a href="https://far.example">far</a> <img src="here.png">', ""),
    ],
)
def test_what_comes_from_outside_or_is_not_there_is_found(
    build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, html: str, problem: str
) -> None:
    monkeypatch.setattr(build, "SITE", tmp_path)
    (tmp_path / "here.png").touch()
    (tmp_path / "page.html").write_text(html, encoding="utf-8")
    found = build.problems_of_site()
    assert [text[: len(problem)] for text in found] == ([problem] if problem else [])


@pytest.mark.slow
def test_the_documentation_is_built_without_a_warning() -> None:
    done = subprocess.run([sys.executable, str(BUILD)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    site = ROOT / "build" / "site"
    listed = (site / "llms.txt").read_text(encoding="utf-8")
    for page in ("start.md", "keys.md", "reference/train.md"):
        assert f"({page})" in listed
        assert (site / page).is_file()
    text = (site / "reference" / "python.html").read_text(encoding="utf-8")
    assert 'id="reelwright.pipeline.api.project.Project.run"' in text
