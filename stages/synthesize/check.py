"""A set of synthetic videos in a store against its ledger: what is missing, altered or foreign."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from reelwright.stages.synthesize.ledger import FRAME_STORE, LOCK, TABLES, digest_of, listed
from reelwright.storage.integrity.check import ALTERED, MISSING, Problem, strange


def check_set(folder: Path) -> Iterator[Problem]:
    """Every sample, and every file that is none; what is not right is made again by the next run."""
    made = [made for made in listed(folder).values() if made.paths]
    for sample in made:
        gone = [path for path in sample.paths if not (folder / path).exists()]
        if gone:
            yield Problem(folder / gone[0], MISSING, "is not there; the next run makes it again")
        elif digest_of(folder, sample.paths) != sample.digest:
            yield Problem(folder / sample.paths[0], ALTERED, "its bytes are not those that were made")
    ours = {folder / path for sample in made for path in sample.paths} | {folder / name for name in TABLES}
    ours.add(folder / FRAME_STORE / "zarr.json")
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        if path.is_file() and ours.isdisjoint((path, *path.parents)) and path.parent != folder / LOCK:
            yield strange(path)
