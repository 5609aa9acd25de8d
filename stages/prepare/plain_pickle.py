"""Read pickled lists of dictionaries of numbers, texts and tensors, and refuse everything else unseen.

A pickle is a program; this reader calls only three functions, which put data together. It
never imports or calls what a file names.
"""

from __future__ import annotations

import collections
import io
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from reelwright.storage.errors import InputError

_UNREADABLE = (pickle.UnpicklingError, EOFError, ValueError, TypeError, LookupError, AttributeError, RuntimeError)


def read_plain_pickle(path: Path) -> Any:
    """What is in the file: containers, numbers, texts and tensors. Raises InputError for anything else."""
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, about how it saved tensors inside pickles
            return _PlainUnpickler(file).load()
    except InputError:
        raise
    except _UNREADABLE as error:
        raise InputError(f"{path}: no readable pickle of plain data: {error}") from error


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        known = ALLOWED.get((module, name))
        if known is None:
            raise InputError(
                f"the pickle names {module}.{name}, and loading that could run code, so nothing was loaded. Save plain "
                "lists, numbers and tensors."
            )
        return known

    def persistent_load(self, pid: Any) -> Any:
        raise InputError(f"the pickle points outside of itself ({pid!r}); nothing was loaded")


def _storage(content: bytes) -> Any:
    """The values of a tensor, which torch saves inside the pickle as a file of its own."""
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch.storage", "_load_from_bytes"): _storage,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,  # noqa: SLF001 - shape and offset are checked there
}
