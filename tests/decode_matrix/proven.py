"""Which backends give FFmpeg's frames for which kinds of files: what `readers/proven.py` may say.

`python -m tests.decode_matrix.proven` makes the files of the matrix and prints the table to put there.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

import numpy as np

from reelwright.stages.decode.readers import BACKENDS
from reelwright.stages.decode.readers.pyav import PyavReader
from reelwright.stages.decode.timing.index import FrameIndex
from reelwright.stages.decode.timing.packets import read_index
from reelwright.storage.errors import ItemError
from tests.decode_matrix.cases import CHANGES_SIZE, all_cases
from tests.decode_matrix.lab import Lab
from tests.decode_matrix.matrix import names_of

FAST = ("decord", "torchcodec")
_WORTH_IT = ("yuv420p", "yuvj420p")  # formats that are common enough for a second decoder
_ENDINGS = (".mp4", ".mov", ".mkv", ".webm")


def compared(backend: str, path: Path, index: FrameIndex) -> bool:
    """Whether ``backend`` gives, sequentially and sought in several ways, the frames that FFmpeg decodes."""
    truth = PyavReader(path, index)
    frames = {number: frame.copy() for number, frame in truth.read(range(index.num_frames))}
    truth.close()
    count = index.num_frames
    ways = (range(count), range(0, count, 31), range(0, count, 7), range(min(13, count - 1), count, 10), [count - 1])
    for numbers in ways:
        try:
            reader = getattr(import_module(f"reelwright.stages.decode.readers.{backend}"), BACKENDS[backend])(
                path, index
            )
            if not all(np.array_equal(frame, frames[number]) for number, frame in reader.read(numbers)):
                return False
            reader.close()
        except ItemError:
            return False
    return True


def suited(path: Path) -> FrameIndex | None:
    """The index of a file that a fast backend may read at all."""
    try:
        index = read_index(path)
    except ItemError:
        return None
    is_even = index.height % 2 == index.width % 2 == 0
    return index if index.origin == "packets" and is_even and not index.ended_early else None


def kinds(paths: Iterable[Path], *, only: frozenset[str] | None = None) -> dict[str, dict[str, list[bool]]]:
    """Backend -> kind -> how each file of that kind compared."""
    found: dict[str, dict[str, list[bool]]] = {backend: {} for backend in FAST}
    for path in paths:
        index = suited(path)
        if index is not None and (index.kind in only if only is not None else index.pixel_format in _WORTH_IT):
            for backend in FAST:
                found[backend].setdefault(index.kind, []).append(compared(backend, path, index))
    return found


def files(folder: Path) -> list[Path]:
    """The files of the matrix that may be of a proven kind, made in ``folder``.

    Without those whose frames change their size, which is found out while they are read.
    """
    cases = all_cases()
    lab = Lab(folder, cases)
    names = [name for name in names_of(cases) if cases[name].structure != CHANGES_SIZE]
    return [lab.path(name) for name in names if name.endswith(_ENDINGS)]


def main() -> None:
    """Print the table."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="decode-matrix-") as folder:
        for backend, found in kinds(files(Path(folder))).items():
            print(f"{backend}:")
            for kind, results in sorted(found.items()):
                print(
                    f'    "{kind}",'
                    if all(results)
                    else f"    # {kind}: {results.count(False)} of {len(results)} differ"
                )


if __name__ == "__main__":
    main()
