"""Read arrays out of files as data: .npy, .npz, .pt, .h5, .mat. Nothing in a file is ever executed or unpickled."""

from __future__ import annotations

import contextlib
import functools
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reelwright.stages.features.matlab import MatlabReader
from reelwright.storage.errors import ItemError, ReelwrightError, nearest
from reelwright.storage.tables.feature_files import FEATURE_SUFFIXES

Array = npt.NDArray[Any]
Lazy = Callable[[], Array]  # reads one array of an open file

# What the libraries raise over damaged files, each seen when bytes of good ones were changed at random.
_UNREADABLE = (
    *(OSError, EOFError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError),
    *(RuntimeError, MemoryError, SyntaxError, tokenize.TokenError, struct.error, zlib.error, zipfile.BadZipFile),
)
WHOLE = ""  # the name of the array in a file that holds just one


@contextlib.contextmanager
def open_arrays(path: Path) -> Iterator[Mapping[str, Lazy]]:
    """The numeric arrays of a file by name, read when called; a file that is one array has it under ``WHOLE``.

    The block is to read arrays and nothing else: what goes wrong in it is taken for the file's fault.

    Raises ItemError for another ending, a damaged file, a missing package, or what could only be read by running code.
    """
    opener = OPENERS.get(path.suffix.lower())
    if opener is None:
        raise ItemError(
            "not_features",
            f"{path.name} is no file of features: allowed are "
            f"{', '.join(sorted(FEATURE_SUFFIXES))}. Videos go to embed.",
        )
    try:
        with opener(path) as arrays:
            yield arrays
    except ReelwrightError:
        raise
    except _UNREADABLE as error:
        raise ItemError("unreadable", f"{path} cannot be read as {path.suffix}: {_reason(error)}") from error


def choose(arrays: Mapping[str, Lazy], key: str | None, *, besides: str | None, path: Path) -> Lazy:
    """The array named ``key``, or the only one besides ``besides``. Raises ItemError that names those there are."""
    names = [name for name in arrays if name != besides]
    shown = ", ".join(repr(name) for name in names[:12]) + (", ..." if len(names) > 12 else "")
    if key is not None and key in arrays:
        return arrays[key]
    if key is not None:
        raise ItemError(
            "no_array", f"{path.name} has no array {key!r}.{nearest(key, names)} It has: {shown or 'none'}."
        )
    if len(names) == 1:
        return arrays[names[0]]
    raise ItemError(
        "which_array",
        f"{path.name} holds {len(names)} arrays ({shown}): name one with `key`. A file with a video under each name is "
        "taken apart first: `reelwright import-features FILE --members FOLDER`.",
    )


@contextlib.contextmanager
def _npy(path: Path) -> Iterator[Mapping[str, Lazy]]:
    array = np.load(path, allow_pickle=False)  # not mapped: a file cut meanwhile would kill the process
    if not isinstance(array, np.ndarray):  # a .npz under the name of a .npy
        raise ValueError("it is an archive of arrays; name it .npz")  # noqa: TRY004 - the file is at fault, not a caller
    yield {WHOLE: lambda: array}


@contextlib.contextmanager
def _npz(path: Path) -> Iterator[Mapping[str, Lazy]]:
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        if isinstance(file, np.ndarray):
            raise ValueError("it is a single array; name it .npy")  # noqa: TRY004 - the file is at fault, not a caller
        yield {name: partial(file.__getitem__, name) for name in file.files}


@contextlib.contextmanager
def _torch(path: Path) -> Iterator[Mapping[str, Lazy]]:
    import pickle

    import torch

    try:
        # weights_only: tensors and plain containers; every other class or function in the file is refused unseen.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that of pickles which torch did not write: they are refused, and told so
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ItemError(
            "not_data",
            f"{path.name} holds more than tensors, and reading that could run code, so nothing was loaded "
            f"({_reason(error)}). Save the tensor alone, or as .npy.",
        ) from error
    named = loaded if isinstance(loaded, Mapping) else {WHOLE: loaded}
    tensors = {str(name): value for name, value in named.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise ValueError(f"it holds no tensor but {type(loaded).__name__}")
    yield {name: partial(_of_tensor, value, path) for name, value in tensors.items()}


@contextlib.contextmanager
def _hdf5(path: Path, *, is_matlab: bool = False) -> Iterator[Mapping[str, Lazy]]:
    h5py = _package("h5py", path)
    with h5py.File(path, "r") as file:
        names: list[str] = []

        def note(name: str, entry: Any) -> None:
            # A dataset may point into other files; those are not ours to open.
            if isinstance(entry, h5py.Dataset) and entry.dtype.kind in "fiub" and not entry.external:
                names.append(name)

        file.visititems(note)  # hard links only: soft and external ones are not followed
        # MATLAB writes columns first, and HDF5 shows them the other way round.
        yield {name: partial(_of_dataset, file[name], is_matlab) for name in names}


_matlab_reader = functools.cache(MatlabReader)


@contextlib.contextmanager
def _matlab(path: Path) -> Iterator[Mapping[str, Lazy]]:
    _package("scipy.io", path)
    values = _matlab_reader().read(path)
    if values is not None:
        yield {name: partial(np.asarray, value) for name, value in values.items()}
        return
    with _hdf5(path, is_matlab=True) as arrays:
        yield {name: read for name, read in arrays.items() if not name.startswith("#")}  # MATLAB's own book-keeping


def _of_tensor(tensor: Any, path: Path) -> Array:
    """Sparse and quantized ones become plain; bfloat16 and float8, which NumPy lacks, float32, which holds them all.

    Raises ItemError for one that has no plain form, as a nested one or one without values (meta).
    """
    import torch

    try:
        plain = tensor.detach()
        plain = plain.dequantize() if plain.is_quantized else plain.to_dense()
        is_known = plain.dtype in {torch.float16, torch.float32, torch.float64} or not plain.is_floating_point()
        values: Array = (plain if is_known else plain.float()).resolve_conj().resolve_neg().numpy()
    except (RuntimeError, TypeError) as error:
        raise ItemError(
            "not_numbers",
            f"{path.name} holds a tensor ({tensor.layout}, {tensor.dtype}, {tensor.device}) that cannot be read as an "
            f"array: {_reason(error)}. Save a plain one: torch.save(tensor.float().cpu(), path).",
        ) from error
    return values


def _of_dataset(dataset: Any, is_matlab: bool) -> Array:
    values: Array = dataset[()]
    return values.T if is_matlab else values


def _package(name: str, path: Path) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        raise ItemError(
            "no_package",
            f"{path.name}: {path.suffix} needs the package {package}, which is not installed: "
            "pip install 'reelwright[features]'.",
        ) from None


def _reason(error: BaseException) -> str:
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return (
        "it holds Python objects, which are not read because that could run code"
        if "allow_pickle" in text or "Python objects" in text
        else text
    )


OPENERS: dict[str, Callable[[Path], contextlib.AbstractContextManager[Mapping[str, Lazy]]]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".pt": _torch,
    ".pth": _torch,
    ".h5": _hdf5,
    ".hdf5": _hdf5,
    ".mat": _matlab,
}
