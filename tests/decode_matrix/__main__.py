"""Run the matrix: python -m tests.decode_matrix [--only PATTERN] [--file PATH ...] [--reasons]."""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from tests.decode_matrix import table
from tests.decode_matrix.cases import all_cases
from tests.decode_matrix.compare import BACKENDS, compare
from tests.decode_matrix.matrix import foreign_cases, names_of, prepare


def main() -> None:
    """Print the table; the exit code is 1 where anything is silently wrong, lost or untold."""
    arguments = _arguments()
    cases = foreign_cases(arguments.file) if arguments.file else all_cases()
    names = [name for name in names_of(cases) if arguments.only is None or fnmatch(name, f"*{arguments.only}*")]
    with _folder(arguments.keep) as folder:
        started = time.perf_counter()
        subjects = prepare(folder, cases, names)
        print(f"{len(subjects)} files and their truth: {time.perf_counter() - started:.0f} s", flush=True)
        verdicts = {}
        for backend in arguments.backend or BACKENDS:
            started = time.perf_counter()
            verdicts[backend] = compare(list(subjects.values()), backend)
            print(f"{backend}: {time.perf_counter() - started:.0f} s", flush=True)
        print("\n".join(table.lines(subjects, verdicts)))
        found = {name: table.faults(name, verdicts) for name in subjects}
    if arguments.reasons:
        for name, reasons in found.items():
            print("\n".join([f"\n{name}", *(f"  {reason}" for reason in reasons)]) if reasons else "", end="")
        print()
    sys.exit(any(found.values()))


@contextlib.contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep
    else:
        with tempfile.TemporaryDirectory(prefix="decode-matrix-") as folder:
            yield Path(folder)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.decode_matrix", description=main.__doc__)
    parser.add_argument("--only", metavar="PATTERN", help="files whose name matches, as in 'h264*.ts'")
    parser.add_argument("--file", type=Path, nargs="+", help="these instead; small ones, with different pictures")
    parser.add_argument("--backend", action="append", choices=BACKENDS, help="only this one; may be given again")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where files are made, to be used again")
    parser.add_argument("--reasons", action="store_true", help="say of every fault what it is")
    return parser.parse_args()


if __name__ == "__main__":
    main()
