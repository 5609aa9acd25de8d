"""Make files and find their truth, in threads: what follows is all done by other processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.decode_matrix.compare import Subject, subject
from tests.decode_matrix.lab import NUM_THREADS, Case, Lab
from tests.decode_matrix.truth import find_truth


def names_of(cases: Mapping[str, Case]) -> list[str]:
    """The cases that are compared, without those that are only parts of others."""
    return [name for name, case in cases.items() if not case.is_part]


def foreign_cases(paths: Sequence[Path]) -> dict[str, Case]:
    """Cases of files that are there already, whose pictures carry no numbers."""

    def case(path: Path) -> Case:
        return Case(
            name=path.name,
            codec="",
            structure="a file of yours",
            make=lambda _lab, link: link.symlink_to(path.resolve()),
            has_numbers=False,
            is_truncated="trunc" in path.name,
        )

    return {path.name: case(path) for path in paths}


def prepare(folder: Path, cases: Mapping[str, Case], names: Sequence[str]) -> dict[str, Subject]:
    """Files and truth of ``names``, kept in ``folder``."""
    lab = Lab(folder / "files", cases)
    (folder / "pixels").mkdir(exist_ok=True)

    def one(name: str) -> Subject:
        path, pixels = lab.path(name), folder / "pixels" / f"{name}.rgb"
        return subject(cases[name], path, find_truth(path, pixels, has_numbers=cases[name].has_numbers))

    with ThreadPoolExecutor(NUM_THREADS) as threads:
        return {found.case.name: found for found in threads.map(one, names)}
