"""The pages of probe and render in a real browser: they render, the console is silent, nothing is asked for."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PIL import Image

from reelwright.pipeline.project import Project
from tests.stages.evaluate.test_browser import CHROMIUM, OWN_HOSTS, browse

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")]

NODES = """  scores: {uses: probe, embeddings: embed, fractions: [0.5, 1], splits: [test, train]}
  pictures: {uses: render, embeddings: embed}
"""


@pytest.fixture(scope="module")
def drawn(finished: Path) -> Project:
    path = finished / "drawn.yaml"
    text = (finished / "reelwright.yaml").read_text(encoding="utf-8")
    path.write_text(text[: text.index("  train:\n")] + NODES, encoding="utf-8")
    project = Project.open(path)
    assert project.run().exit_code == 0
    return project


@pytest.mark.parametrize("width", [500, 1400])
@pytest.mark.parametrize(("node", "page"), [("scores", "report.html"), ("pictures", "index.html")])
def test_pages_open_quietly(drawn: Project, tmp_path: Path, node: str, page: str, width: int) -> None:
    picture = tmp_path / "page.png"
    file = drawn.report(node) / page
    log, urls = browse(file, tmp_path, f"--screenshot={picture}", f"--window-size={width},3000")
    assert "CONSOLE" not in log
    assert {url for url in urls if urlsplit(url).hostname not in OWN_HOSTS} == set()
    with Image.open(picture) as image:
        assert image.width == width
        assert len(image.convert("RGB").resize((64, 64)).getcolors(4096) or []) > 20
