"""docs/python.md and the notebooks: every code block and every cell runs."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))


def _run(codes: list[str], *, where: str) -> dict[str, object]:
    """Run one after the other, in one namespace; a mistake is told with its place."""
    names: dict[str, object] = {"__name__": where}
    for number, code in enumerate(codes):
        exec(compile(code, f"{where}[{number}]", "exec"), names)
    return names


def test_every_block_of_the_page_runs(finished: Path, copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "python.md").read_text(encoding="utf-8"), re.DOTALL)
    (copied / "new").mkdir()
    shutil.copyfile(finished / "d.mp4", copied / "new" / "d.mp4")
    monkeypatch.chdir(copied)
    names = _run(blocks, where="python.md")
    assert "nothing_to_do" in blocks[0]
    assert names["result"].nothing_to_do
    assert (copied / "model" / "model.json").is_file()


def test_there_are_two_notebooks_and_none_has_outputs() -> None:
    assert len(NOTEBOOKS) == 2
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_of_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    names = _run(["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"], where=path.stem)
    assert len(names["project"].labels()) == 12
