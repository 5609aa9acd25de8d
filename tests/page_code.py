"""The code blocks of a page of docs/, as the files that their first line names."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
_BLOCK = re.compile(r"^```(?:python|yaml)\n# (\S+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def files_of(page: str) -> dict[str, str]:
    """File name -> content."""
    return dict(_BLOCK.findall((DOCS / page).read_text(encoding="utf-8")))


def write_files(page: str, folder: Path) -> None:
    """Write the files into a folder."""
    for name, text in files_of(page).items():
        (folder / name).write_text(text, encoding="utf-8")
