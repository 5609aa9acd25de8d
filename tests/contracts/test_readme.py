"""The README's tree names every room with the first line of its docstring.

`python -m tests.contracts.test_readme` prints it.
"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("cli", "pipeline", "stages", "models", "storage")


def tree() -> str:
    """One line a room: its folder and the first line of its docstring. Each has one."""
    lines = []
    for package in PACKAGES:
        lines.append(f"{package}/")
        for path in sorted((ROOT / package).rglob("__init__.py")):
            text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
            assert text, f"{path} says nothing of its room"
            if path.parent != ROOT / package:
                lines.append(_line(path.parent.relative_to(ROOT / package).as_posix(), text.splitlines()[0]))
    return "\n".join(lines)


def _line(name: str, summary: str) -> str:
    return f"  {name:<28} {summary.rstrip('.')}"


def test_the_tree_of_the_readme_is_true() -> None:
    assert tree() in (ROOT / "README.md").read_text(encoding="utf-8"), "run: python -m tests.contracts.test_readme"


def test_nothing_is_left_to_fill_in() -> None:
    assert "@@" not in (ROOT / "README.md").read_text(encoding="utf-8")


if __name__ == "__main__":
    print(tree())
