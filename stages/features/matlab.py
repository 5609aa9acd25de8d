"""Read .mat files before version 7.3 in a process of its own, because SciPy's reader crashes over damaged ones.

us: a line {"path", "target"} --> it: arrays into the target, then a line {"names"} or {"kind", "error"}
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

COMMAND = (sys.executable, "-m", __spec__.name if __spec__ is not None else __name__)


class MatlabReader:
    """The process, started when it is needed, and again after it died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def read(self, path: Path) -> dict[str, npt.NDArray[Any]]:
        """The numeric arrays by name, sparse ones as plain.

        Raises NotImplementedError for version 7.3, which is HDF5, ValueError for a damaged file.
        """
        with tempfile.TemporaryDirectory(prefix="reelwright-mat-") as folder:
            target = Path(folder) / "arrays.npz"
            answer = self._ask({"path": str(path.absolute()), "target": str(target)})
            if answer is None:
                raise ValueError("it crashed its reader, so it is damaged")
            if "names" not in answer:
                raise (NotImplementedError if answer["kind"] == "NotImplementedError" else ValueError)(answer["error"])
            with np.load(target, allow_pickle=False) as file:
                return dict(zip(answer["names"], file.values(), strict=True))

    def _ask(self, question: dict[str, str]) -> dict[str, Any] | None:
        """What the process answers; None when it died over it."""
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            weakref.finalize(self, _end, self._process)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = ""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        if not line:
            _end(self._process)
            self._process = None
            return None
        answer: dict[str, Any] = json.loads(line)
        return answer


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def _load(path: str, target: str) -> list[str]:
    values = scipy.io.loadmat(path)
    arrays = {
        name: value.toarray() if scipy.sparse.issparse(value) else value
        for name, value in values.items()
        if not name.startswith("__") and (scipy.sparse.issparse(value) or isinstance(value, np.ndarray))
    }
    numbers = {name: array for name, array in arrays.items() if array.dtype.kind in "fiub"}
    np.savez(target, *numbers.values())  # without their names: `file` is one that savez has
    return list(numbers)


def _serve() -> None:
    """Answer until there are no more questions; what is not caught ends the process, which is an answer as well."""
    for line in sys.stdin:
        question = json.loads(line)
        answer: dict[str, Any]
        try:
            answer = {"names": _load(**question)}
        except (OSError, ValueError, TypeError, LookupError, NotImplementedError, MatReadError) as problem:
            answer = {"kind": type(problem).__name__, "error": str(problem) or type(problem).__name__}
        print(json.dumps(answer), flush=True)  # noqa: T201 - the answer


if __name__ == "__main__":
    import scipy.io
    import scipy.sparse
    from scipy.io.matlab import MatReadError

    _serve()
