"""The folder of an exported model: `model.json` has the digest of every file, as it was when it was written."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from reelwright.storage.digests import file_digest
from reelwright.storage.errors import InputError

EXPORTED = "model.json"


def exported_above(path: Path) -> Path | None:
    """The folder of the exported model that a file is in, at most two folders deep; None where it is in none."""
    return next((folder for folder in path.parents[:3] if (folder / EXPORTED).is_file()), None)


def exported_names(folder: Path) -> dict[str, str]:
    """Digest of each file by its place in the folder. Raises InputError where `model.json` is damaged."""
    try:
        return dict(json.loads((folder / EXPORTED).read_text(encoding="utf-8"))["files"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder / EXPORTED} is damaged: {error!r}. Export the model again") from error


def check_exported(folder: Path, names: Iterable[str]) -> None:
    """Raise InputError for one of the files ``names`` that is not as it was exported."""
    files = exported_names(folder)
    for name in names:
        if not (folder / name).is_file() or file_digest(folder / name) != files.get(name):
            raise InputError(
                f"{folder / name} is not the file that was exported ({EXPORTED} has another digest): it is damaged, "
                "was changed or is gone. Export the model again"
            )
