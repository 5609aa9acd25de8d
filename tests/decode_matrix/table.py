"""The table of the matrix as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from tests.decode_matrix.compare import FAULTS, LETTERS, MAX_DIFFERENCE, RIGHT, SAID, Subject, Verdict
from tests.decode_matrix.samplings import NAMES

Verdicts = Mapping[str, Mapping[str, Mapping[str, Verdict]]]  # backend -> file -> sampling


def lines(subjects: Mapping[str, Subject], verdicts: Verdicts) -> Iterator[str]:
    """A line for each file, then totals by structure and container, then those of all."""
    yield f"samplings, one letter each: {' '.join(NAMES)}"
    yield f"letters: {', '.join(f'{letter} {kind}' for kind, letter in LETTERS.items())}"
    yield "px: the largest difference of a pixel to ffmpeg's own picture"
    width = max(map(len, subjects), default=10)
    yield "  ".join([f"{'file':{width}}", f"{'structure':24}", "frames", *(f"{name:13}px " for name in verdicts)])
    for name, one in subjects.items():
        cells = [_cell(found[name]) for found in verdicts.values()]
        yield "  ".join([f"{name:{width}}", f"{one.case.structure:24}", f"{len(one.truth.numbers):6}", *cells])
    yield from _totals("structure", subjects, verdicts)
    yield from _totals("container", subjects, verdicts)
    yield from _totals("codec", subjects, verdicts)
    for backend, found in verdicts.items():
        kinds = Counter(verdict.kind for row in found.values() for verdict in row.values())
        num_other = sum(has_other_pixels(row["every"]) for row in found.values())
        cells = [f"{kinds[kind]} {kind}" for kind in LETTERS]
        yield f"{backend:12}" + ", ".join([*cells, f"{num_other} files with other pixels"])
    kinds = Counter(verdict.kind for found in verdicts.values() for row in found.values() for verdict in row.values())
    yield f"{'in all':12}" + ", ".join(f"{kinds[kind]} {kind}" for kind in LETTERS) + f" of {len(subjects)} files"


def faults(name: str, verdicts: Verdicts) -> list[str]:
    """What is wrong with one file, a line each."""
    rows = [
        f"{backend}, {sampling}: {verdict.kind}: {verdict.reason}"
        for backend, found in verdicts.items()
        for sampling, verdict in found[name].items()
        if verdict.kind in FAULTS
    ]
    pixels = [
        f"{backend}: pixels differ by up to {found[name]['every'].difference} of 255 from those of ffmpeg"
        for backend, found in verdicts.items()
        if has_other_pixels(found[name]["every"])
    ]
    return rows + pixels


def has_other_pixels(every: Verdict) -> bool:
    """Whether the pictures of a file that is whole are converted in another way."""
    return every.kind in (RIGHT, SAID) and (every.difference or 0) > MAX_DIFFERENCE


def _cell(row: Mapping[str, Verdict]) -> str:
    difference = row["every"].difference
    letters = "".join(LETTERS[row[name].kind] for name in NAMES)
    return f"{letters:12}{'-' if difference is None else difference:>4}"


def _totals(what: str, subjects: Mapping[str, Subject], verdicts: Verdicts) -> Iterator[str]:
    yield f"faults by {what} (silently wrong/lost/untold of all)"
    values = sorted({getattr(one.case, what) for one in subjects.values()})
    for value in values:
        names = [name for name, one in subjects.items() if getattr(one.case, what) == value]
        cells = []
        for found in verdicts.values():
            kinds = Counter(verdict.kind for name in names for verdict in found[name].values())
            cells.append("/".join(str(kinds[kind]) for kind in FAULTS) + f" of {sum(kinds.values())}")
        yield f"  {value:26}" + "".join(f"{cell:>20}" for cell in cells)
