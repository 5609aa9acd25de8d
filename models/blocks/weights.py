"""Put a state dict into a module, strictly and with readable errors, and name its content by a digest."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import blake3
import torch
from torch import Tensor, nn

from reelwright.models.encoders.base import Encoder

_LISTED = 5  # names of each kind in an error message


@dataclass(frozen=True)
class LoadReport:
    """What `load_weights` did, by names of the module's (missing) or the file's (unexpected) entries."""

    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]
    # The last three hold only names that an `ignore` pattern excused.


def remap_state_dict(
    state: Mapping[str, Tensor], *, prefix: str | None, key_map: Mapping[str, str] | None
) -> dict[str, Tensor]:
    """Rename the entries of `state`: keep only keys that start with `prefix`, without it, then apply `key_map`.

    `key_map` maps regular expressions to replacements, applied to every key in order with `re.sub`.
    Raises ValueError when no key has the prefix, a pattern is malformed, or two keys end up equal.
    """
    renamed: dict[str, Tensor] = {}
    for key, tensor in state.items():
        if prefix is not None and not key.startswith(prefix):
            continue
        new_key = _map_key(key.removeprefix(prefix or ""), key_map or {})
        if new_key in renamed:
            raise ValueError(
                f"key_map gives two entries the name {new_key!r} (one of them was {key!r}); make it more specific."
            )
        renamed[new_key] = tensor
    if state and not renamed:
        message = f"no entry starts with prefix {prefix!r}; the entries start like {', '.join(list(state)[:_LISTED])}."
        raise ValueError(message)
    return renamed


def _map_key(key: str, key_map: Mapping[str, str]) -> str:
    for pattern, replacement in key_map.items():
        try:
            key = re.sub(pattern, replacement, key)
        except re.error as error:
            message = f"key_map {pattern!r}: {replacement!r} is not a regular expression and replacement: {error}."
            raise ValueError(message) from error
    return key


def load_weights(module: nn.Module, state: Mapping[str, Tensor], *, ignore: Sequence[str] = ()) -> LoadReport:
    """Copy `state` into `module`, converting dtypes (float16 into float32 is exact).

    Every entry must match by name and shape, except those that an fnmatch pattern in `ignore` excuses: these keep
    their value. For an Encoder the names are those of its bare `model`, with or without `model.` in front.
    As in torch, a file without BatchNorm's `num_batches_tracked` counters is complete.
    Raises ValueError with up to five names of each kind when something does not match; `module` is then unchanged.
    """
    target, state = _unwrap(module, state)
    own = target.state_dict()
    shared = [key for key in own if key in state]
    mismatched = [key for key in shared if own[key].shape != state[key].shape]
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in own]
    _refuse_problems(own, state, ignore, {"missing": missing, "unexpected": unexpected, "mismatched": mismatched})
    matched = [key for key in shared if key not in mismatched and not _is_ignored(key, ignore)]
    target.load_state_dict({key: state[key] for key in matched}, strict=False)
    return LoadReport(tuple(matched), tuple(missing), tuple(unexpected), tuple(mismatched))


def _unwrap(module: nn.Module, state: Mapping[str, Tensor]) -> tuple[nn.Module, Mapping[str, Tensor]]:
    if not isinstance(module, Encoder):
        return module, state
    if state and all(key.startswith("model.") for key in state):
        state = {key.removeprefix("model."): tensor for key, tensor in state.items()}
    return module.model, state


def _is_ignored(key: str, ignore: Sequence[str]) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in ignore)


def _refuse_problems(
    own: Mapping[str, Tensor], state: Mapping[str, Tensor], ignore: Sequence[str], found: Mapping[str, list[str]]
) -> None:
    describe = {
        "missing": lambda key: f"{key} {tuple(own[key].shape)}",
        "unexpected": lambda key: f"{key} {tuple(state[key].shape)}",
        "mismatched": lambda key: f"{key} (model {tuple(own[key].shape)}, file {tuple(state[key].shape)})",
    }
    lines = []
    for kind, keys in found.items():
        problems = [key for key in keys if not _is_ignored(key, ignore)]
        if problems:
            more = f" and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
            lines.append(f"{len(problems)} {kind}: {', '.join(map(describe[kind], problems[:_LISTED]))}{more}")
    if lines:
        raise ValueError(
            f"the weights do not fit the model: {'; '.join(lines)}. Rename with `prefix` or `key_map`, or `ignore`."
        )


def state_digest(state: Mapping[str, Tensor]) -> str:
    """blake3 (hex, 64 characters) over name, dtype, shape and bytes of every tensor, sorted by name.

    Equal content gives an equal digest on any device and in any order of entries. Raises ValueError for an entry that
    is no dense tensor.
    """
    hasher = blake3.blake3()
    for name in sorted(state):
        tensor = state[name]
        if not isinstance(tensor, Tensor) or tensor.layout is not torch.strided:
            raise ValueError(
                f"entry {name!r} is no dense tensor but {type(tensor).__name__}; only dense tensors have a digest."
            )
        # One line of JSON in front says how many bytes follow, so no two states share a byte stream.
        hasher.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode() + b"\n")
        # As bytes: numpy knows no bfloat16.
        hasher.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return hasher.hexdigest()
