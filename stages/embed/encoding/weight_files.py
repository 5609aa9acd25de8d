"""Read a file of weights as data: safetensors, or torch's own formats without running code."""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from reelwright.stages.embed.encoding.torchscript_files import is_torchscript, read_torchscript
from reelwright.storage.errors import InputError
from reelwright.storage.ledger.digest_cache import Snapshot

# Under which training code commonly saves weights.
NESTED_KEYS = ("state_dict", "model_state_dict", "model_state", "model", "module")


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors, .pth or .pt file by name, on the CPU, in the dtypes of the file.

    A state dict may lie under one of NESTED_KEYS (one level); of a TorchScript archive (OpenAI's CLIP) it is that of
    its modules. Raises InputError for a missing file, another suffix, a damaged file, one that changes while it is
    read, one that holds anything but tensors, or one that would run code (nothing is executed).
    """
    if not path.is_file():
        raise InputError(f"weights {str(path)!r}: there is no such file. Give hub, none, or a file that exists.")
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"weights {path.name!r}: suffix {path.suffix!r} is not known; allowed: {', '.join(READERS)}.")
    snapshot = Snapshot.of(path)
    tensors = reader(path)
    if not snapshot.is_same():
        raise InputError(snapshot.changed_message)
    return tensors


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"weights {path.name!r} are no readable safetensors file: {error}.") from error


def _read_torch(path: Path) -> dict[str, Tensor]:
    if is_torchscript(path):
        return read_torchscript(path)
    try:
        # weights_only: tensors and plain containers; every other class or function in the file is refused unseen, but
        # the settings that public training code (VideoMAE, CAST) saves beside them, which are plain data too.
        with torch.serialization.safe_globals([argparse.Namespace]):
            loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"weights {path.name!r} hold more than tensors, and loading that could run code, so nothing was loaded "
            f"({reason}). Save the state dict alone, best with safetensors.torch.save_file."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise InputError(f"weights {path.name!r} are no readable torch file: {error}.") from error
    return _state_dict(loaded, path.name)


def _state_dict(loaded: Any, name: str) -> dict[str, Tensor]:
    """The state dict in what was loaded: itself, or what lies under one of NESTED_KEYS."""
    if isinstance(loaded, Mapping):
        nested = next((loaded[key] for key in NESTED_KEYS if isinstance(loaded.get(key), Mapping)), loaded)
        if nested and all(isinstance(key, str) and isinstance(value, Tensor) for key, value in nested.items()):
            return dict(nested)
        found = ", ".join(f"{key}: {type(value).__name__}" for key, value in list(nested.items())[:5])
    else:
        found = type(loaded).__name__
    raise InputError(
        f"weights {name!r} hold no state dict (found {found or 'nothing'}); expected a mapping of names to tensors, "
        f"at the top or under {', '.join(NESTED_KEYS)}."
    )


READERS: dict[str, Callable[[Path], dict[str, Tensor]]] = {
    ".safetensors": _read_safetensors,
    ".pth": _read_torch,
    ".pt": _read_torch,
    ".pyth": _read_torch,
}
