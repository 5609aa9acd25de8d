"""The tensors of a TorchScript archive, such as OpenAI's CLIP, read as data: no code in it is run.

The archive is a zip file: `data.pkl` says which module holds which tensors, `data/N` are their bytes, `code/` is left
alone. Of the pickle only a fixed list of names is known, each of them a function or class of this file.
"""

from __future__ import annotations

import pickle
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Final

import torch
from torch import Tensor

from reelwright.storage.errors import InputError

_DTYPES: Final = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_MODULES = "__torch__"  # package of the classes that an archive defines itself
_DEEPEST = 100  # modules inside modules
_DAMAGED = (zipfile.BadZipFile, zlib.error, OSError, RuntimeError, ValueError)  # what reading a zip file raises of one


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive: a zip file with code beside its tensors. False where it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.split("/", 1)[-1] == "constants.pkl" for name in archive.namelist())
    except _DAMAGED:
        return False


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Parameters and buffers by name, on the CPU, in the dtypes of the file.

    Raises InputError for a damaged file, and one that refers to anything but modules, tensors and plain containers.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            (data,) = [name for name in archive.namelist() if name.split("/", 1)[-1] == "data.pkl"]
            root = data.removesuffix("data.pkl")
            if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
                raise InputError(f"weights {path.name!r} are of a big-endian machine, which is not read.")
            with archive.open(data) as file:
                module = _Unpickler(file, lambda key: archive.read(f"{root}data/{key}")).load()
        return dict(_tensors(module, ""))
    except _RefusedError as error:
        raise InputError(
            f"weights {path.name!r} hold more than modules and tensors, and nothing was loaded ({error}). Save the "
            "state dict alone, best with safetensors.torch.save_file."
        ) from error
    except (*_DAMAGED, pickle.UnpicklingError, struct.error, EOFError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"weights {path.name!r} are no readable TorchScript archive: {error}.") from error


class _RefusedError(Exception):
    """What an archive of weights has no use for."""


class _Module:
    """A module of the archive: its attributes, and nothing that could be called."""


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: IO[bytes], read: Callable[[str], bytes]) -> None:
        super().__init__(file)
        self._read = read
        self._storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        """What a name of the pickle means here. Raises _RefusedError for one that is not listed."""
        if module.partition(".")[0] == _MODULES:
            return type(name, (_Module,), {})
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        known = _KNOWN.get(f"{module}.{name}")
        if known is None:
            raise _RefusedError(f"it refers to {module}.{name}")
        return known

    def persistent_load(self, pid: Any) -> Tensor:
        """The numbers of a storage, flat."""
        kind, dtype, key, _, count = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise _RefusedError(f"it refers to a {kind!r}")
        if key not in self._storages:
            self._storages[key] = torch.frombuffer(bytearray(self._read(str(key))), dtype=dtype)
        if len(self._storages[key]) != count:
            raise _RefusedError(f"storage {key} has {len(self._storages[key])} numbers in place of {count}")
        return self._storages[key]


def _rebuilt(storage: Tensor, offset: int, size: Sequence[int], stride: Sequence[int], *_: object) -> Tensor:
    return torch.as_strided(storage, tuple(size), tuple(stride), offset).clone()


def _first(value: Any, *_: object) -> Any:
    return value


_KNOWN: Final[dict[str, Any]] = {
    "collections.OrderedDict": OrderedDict,
    "torch._utils._rebuild_tensor_v2": _rebuilt,
    "torch._utils._rebuild_parameter": _first,
    **{
        f"torch.jit._pickle.{name}": _first
        for name in ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist", "restore_type_tag")
    },
}


def _tensors(module: Any, prefix: str, depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    if depth > _DEEPEST:
        raise _RefusedError("its modules lie inside each other without an end")
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        elif isinstance(value, _Module):
            yield from _tensors(value, f"{prefix}{name}.", depth + 1)
