"""Read .mat files before version 7.3 in a killable process, because SciPy's reader crashes over damaged ones."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reelwright.stages.decode.processes.pool import Task, WorkerPool

FUNCTION = "reelwright.stages.features.matlab:load"  # that the process runs


class MatlabReader:
    """The process, started when it is needed, and again after it died."""

    def __init__(self) -> None:
        self.pool = WorkerPool(1)
        weakref.finalize(self, self.pool.close).atexit = False  # the process ends with this one

    def read(self, path: Path) -> dict[str, npt.NDArray[Any]] | None:
        """The numeric arrays by name, sparse ones as plain; None of version 7.3, which is HDF5.

        Raises ValueError for a damaged file.
        """
        task = Task(name=path.name, function=FUNCTION, arguments={"path": str(path.absolute())})
        ((_, messages, ended),) = self.pool.run([task])
        if ended.status == "crashed":
            raise ValueError("it crashed its reader, so it is damaged")
        if ended.status != "ok":
            raise ValueError(ended.message)
        # copies: the arrays may lie in memory that the process fills again
        arrays = [dict(zip(each.body["names"], map(np.array, each.arrays), strict=True)) for each in messages]
        return arrays[0] if arrays else None


def load(*, path: str) -> Iterator[tuple[dict[str, Any], list[npt.NDArray[Any]]]]:
    """Runs in the process: names and arrays; nothing of version 7.3."""
    import scipy.io
    import scipy.sparse

    try:
        values = scipy.io.loadmat(path)
    except NotImplementedError:
        return
    arrays = {
        name: value.toarray() if scipy.sparse.issparse(value) else value
        for name, value in values.items()
        if not name.startswith("__") and (scipy.sparse.issparse(value) or isinstance(value, np.ndarray))
    }
    numbers = {name: array for name, array in arrays.items() if array.dtype.kind in "fiub"}
    yield {"names": list(numbers)}, list(numbers.values())
