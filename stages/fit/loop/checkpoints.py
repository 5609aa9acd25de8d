"""Checkpoints: weights as safetensors, all else that a resume needs as tensors and plain values; no code in either.

checkpoints/best-9.safetensors            best weights so far, those after update 9
checkpoints/epoch-10.safetensors          weights that stay, where asked for
checkpoints/last/weights-12.safetensors   weights after update 12
checkpoints/last/mean-12.safetensors      their running mean (EMA), if there is one
checkpoints/last/objective-12.safetensors buffers of the objective (a queue), if it has any
checkpoints/last/state.pt                 the rest, naming its weights files; replaced in one step, after the weights

The progress in state.pt names the best weights too (`best_update`). So a run that is killed between two files goes on
with the best value, its epoch and its weights of one moment: weights that the checkpoint does not name are removed.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from reelwright.storage.errors import StageError, StoreError
from reelwright.storage.files import remove, replacing

_NAMED = 3  # differing tensors that a message names


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a resume needs: sets of weights by name (`weights`, `mean`, `objective`), tensors and plain values."""

    update: int
    weights: Mapping[str, Mapping[str, Tensor]]
    state: Mapping[str, Any]

    def fill(self, module: nn.Module, path: Path, *, kind: str = "weights") -> None:
        """Give ``module`` its tensors; ``path`` is for messages. Raises StageError where they are not the module's."""
        _fill(module, dict(self.weights.get(kind, {})), path)


def save_state(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write tensors by name in one step. Raises StoreError when it cannot be done; what was there stays."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    _writing(path, lambda temporary: save_file(tensors, temporary, metadata={"format": "pt"}))


def save_weights(path: Path, module: nn.Module) -> None:
    """Write the module's state in one step. Raises StoreError when it cannot be written; what was there stays."""
    save_state(path, module.state_dict())


def load_weights(path: Path, module: nn.Module, *, prefix: str = "") -> None:
    """Fill ``module`` with the weights of a file of `save_weights`: those that begin with ``prefix``, without it.

    Raises StoreError for a damaged file, StageError where names or shapes are not the module's.
    """
    stored = _read(path)
    _fill(module, {name.removeprefix(prefix): value for name, value in stored.items() if name.startswith(prefix)}, path)


def save_last(folder: Path, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint in ``folder``. Raises StoreError when it cannot be written; the one before stays."""
    files = {kind: f"{kind}-{checkpoint.update}.safetensors" for kind in checkpoint.weights}
    for kind, name in files.items():
        save_state(folder / name, checkpoint.weights[kind])
    state = {**checkpoint.state, "update": checkpoint.update, "files": files}
    _writing(folder / "state.pt", lambda temporary: torch.save(state, temporary))
    for old in folder.glob("*.safetensors"):
        if old.name not in files.values():
            remove(old)


def load_last(folder: Path) -> Checkpoint | None:
    """The checkpoint in ``folder``; None when there is none.

    Only tensors and plain values are read: a file that holds anything else is refused (StoreError), never executed.
    """
    path = folder / "state.pt"
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        files, update = dict(state["files"]), int(state["update"])
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, KeyError, TypeError) as error:
        raise StoreError(
            f"{path} is no checkpoint of ours or is damaged ({(str(error).splitlines() or [''])[0]}). "
            f"Remove {folder} to train from the beginning."
        ) from error
    weights = {kind: _read(folder / name) for kind, name in files.items()}
    return Checkpoint(update=update, weights=weights, state=state)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise StoreError(f"{path} is no readable safetensors file ({error}). Remove it and train again.") from error


def _fill(module: nn.Module, found: dict[str, Tensor], path: Path) -> None:
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


def _writing(path: Path, write: Any) -> None:
    try:
        with replacing(path) as temporary:
            write(temporary)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise StoreError(
            f"the checkpoint {path} cannot be written ({error}); the one before is intact. "
            "Make room or mend the permissions, then run again: training goes on from there."
        ) from error
