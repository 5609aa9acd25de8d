"""Names of an encoder's outputs, without torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_FINAL_FORMS = ("pooled", "tokens", "map", "logits")
_LAYER_OUTPUT = re.compile(r"layer(-?\d+)\.(pooled|tokens|map)")
_BLOCK_INPUT = re.compile(r"block(-?\d+)\.(input)")
INPUT = "input"  # form of what enters a block of a transformer
OUTPUT_GRAMMAR = (
    "pooled, tokens, map, logits, layerK.pooled, layerK.tokens, layerK.map, of transformers blockK.input "
    "(K = 0, 1, ... or -1, -2, ...)"
)


@dataclass(frozen=True)
class OutputName:
    """One parsed output name: `form` of the last features, or of layer `layer` (None = the last features).

    Form `input` is the tokens that enter block `layer`, counted with one place behind the last block.
    """

    name: str
    form: str
    layer: int | None


def parse_output(name: str) -> OutputName:
    """Split `pooled` or `layer9.tokens` into its parts; ValueError with the grammar for anything else."""
    if name in _FINAL_FORMS:
        return OutputName(name, name, None)
    found = _LAYER_OUTPUT.fullmatch(name) or _BLOCK_INPUT.fullmatch(name)
    if found is None:
        raise ValueError(f"output {name!r} is not known; allowed: {OUTPUT_GRAMMAR}.")
    return OutputName(name, found[2], int(found[1]))


def parse_outputs(names: Sequence[str]) -> tuple[OutputName, ...]:
    """Parse all `names`, in order; ValueError when there is none, one is unknown, or one is named twice."""
    if isinstance(names, str) or not names:
        raise ValueError(f"outputs must be a list of at least one name, got {names!r}; allowed: {OUTPUT_GRAMMAR}.")
    if len(set(names)) != len(names):
        raise ValueError(f"outputs {list(names)} name one output twice; name each once.")
    return tuple(parse_output(name) for name in names)
