"""The user's pages: the tree of rooms is true, every link leads somewhere, the README stays short.

`python -m tests.contracts.test_readme` prints the tree for docs/rooms.md.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

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


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_tree_of_the_rooms_is_true() -> None:
    assert tree() in (ROOT / "docs" / "rooms.md").read_text(encoding="utf-8"), (
        "run: python -m tests.contracts.test_readme"
    )


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere_and_nothing_is_left_to_fill_in(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "@@" not in text
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    gone = [target for target in targets if target and not (page.parent / target).exists()]
    assert not gone


def test_every_page_can_be_reached_from_the_readme() -> None:
    seen, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in seen or not page.exists():
            continue
        seen.add(page)
        found = re.findall(r"\]\(([^)\s#]+\.md)", page.read_text(encoding="utf-8"))
        waiting += [(page.parent / target).resolve() for target in found if "://" not in target]
    assert set(PAGES) <= seen


if __name__ == "__main__":
    print(tree())
