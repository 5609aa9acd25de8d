"""The blocks of code of the pages, and what stands before each of them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
_README = "tested: tests/docs/test_ten_minutes.py"  # its commands; the demo of it takes minutes
_ALL = re.compile(r"^<!-- all blocks (.*?) -->$", re.MULTILINE)
_BLOCK = re.compile(r"(?:^<!-- ([^>]*?) -->\n)?^( *)```(\w*)\n(.*?)^\2```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One block; ``note`` is the comment on the line before it, or that on top of the page."""

    page: Path
    line: int
    language: str
    text: str
    note: str

    @property
    def where(self) -> str:
        """For people."""
        return f"{self.page.relative_to(ROOT).as_posix()}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """What stands behind ``$``, lines that go on joined, with `echo` alone left out."""
        text = self.text.replace("\\\n", " ")
        return [line[2:].strip() for line in text.splitlines() if line.startswith("$ ") and "echo $?" not in line]

    @property
    def exit_codes(self) -> list[int]:
        """Of each of `commands`: 0, or what the page shows behind ``echo $?``."""
        codes: list[int] = []
        lines = self.text.replace("\\\n", " ").splitlines()
        for line, after in zip(lines, [*lines[1:], ""], strict=True):
            if line.startswith("$ echo $?"):
                codes[-1] = int(after)
            elif line.startswith("$ "):
                codes.append(0)
        return codes


def blocks(*languages: str) -> list[Block]:
    """All blocks of these languages."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        of_all = _ALL.search(text)
        usual = of_all[1] if of_all else _README if page.name == "README.md" else ""
        for match in _BLOCK.finditer(text):
            note, _, language, body = match.groups()
            line = text.count("\n", 0, match.start(3)) + 1
            found.append(Block(page, line, language, body, note or usual))
    return [block for block in found if block.language in languages]


def words_of(command: str) -> list[list[str]]:
    """The words of each `reelwright ...` in a line of a shell, without comments and redirections."""
    parts = re.split(r"\s*(?:&&|\|\||\||;)\s*", re.sub(r"\s#.*$", "", command))
    words = [shlex.split(part) for part in parts if part.strip()]
    return [part[1:] for part in words if part and part[0] == "reelwright"]
