"""Checkpoints: weights as safetensors, all else that a resume needs as tensors and plain values; no code in either.

checkpoints/best.safetensors          best weights so far
checkpoints/last/weights-12.safetensors   weights after update 12
checkpoints/last/state.pt             the rest, naming its weights file; replaced in one step, after the weights
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from reelwright.storage.errors import StageError, StoreError
from reelwright.storage.files import remove, replacing

_NAMED = 3  # differing tensors that a message names


def save_weights(path: Path, module: nn.Module) -> None:
    """Write the module's state in one step. Raises StoreError when it cannot be written; what was there stays."""
    state = {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}
    _writing(path, lambda temporary: save_file(state, temporary, metadata={"format": "pt"}))


def load_weights(path: Path, module: nn.Module, *, prefix: str = "") -> None:
    """Fill ``module`` with the weights of a file of `save_weights`: those that begin with ``prefix``, without it.

    Raises StoreError for a damaged file, StageError where names or shapes are not the module's.
    """
    try:
        stored = load_file(path)
    except (SafetensorError, OSError) as error:
        raise StoreError(f"{path} is no readable safetensors file ({error}). Remove it and train again.") from error
    found = {name.removeprefix(prefix): value for name, value in stored.items() if name.startswith(prefix)}
    wanted = module.state_dict()
    differing = sorted(
        name
        for name in wanted.keys() | found.keys()
        if name not in wanted or name not in found or wanted[name].shape != found[name].shape
    )
    if differing:
        raise StageError(
            f"{path} holds the weights of another model: {len(differing)} tensors differ by name or shape, "
            f"such as {', '.join(differing[:_NAMED])}. Train with --force, or give the settings it was made with."
        )
    module.load_state_dict(found)


def save_last(folder: Path, module: nn.Module, state: dict[str, Any]) -> None:
    """Replace the checkpoint in ``folder``; ``state`` holds tensors and plain values and has an entry ``update``."""
    weights = folder / f"weights-{state['update']}.safetensors"
    save_weights(weights, module)
    _writing(folder / "state.pt", lambda temporary: torch.save({**state, "weights": weights.name}, temporary))
    for old in folder.glob("weights-*.safetensors"):
        if old != weights:
            remove(old)


def load_last(folder: Path, module: nn.Module) -> dict[str, Any] | None:
    """Fill ``module`` from the checkpoint in ``folder`` and return its state; None when there is none.

    Only tensors and plain values are read: a file that holds anything else is refused (StoreError), never executed.
    """
    path = folder / "state.pt"
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise StoreError(
            f"{path} is no checkpoint of ours or is damaged ({str(error).splitlines()[0]}). "
            f"Remove {folder} to train from the beginning."
        ) from error
    load_weights(folder / state["weights"], module)
    return state


def _writing(path: Path, write: Any) -> None:
    try:
        with replacing(path) as temporary:
            write(temporary)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise StoreError(
            f"the checkpoint {path} cannot be written ({error}); the one before is intact. "
            "Make room or mend the permissions, then run again: training goes on from there."
        ) from error
