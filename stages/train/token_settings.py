"""What goes with models that learn from stored tokens of two experts (CAST's last blocks), checked before any work."""

from __future__ import annotations

from collections.abc import Sequence

from reelwright.models.encoders.outputs import INPUT, parse_output
from reelwright.stages.fit.network_config import ModelSettings

OF_EMBEDDINGS = ("space", "time", "space_args", "time_args", "every", "pixels")  # options that the embed nodes say


def check_tokens(model: ModelSettings, *, num_embeddings: int, output: str, length: int, per_row: bool) -> None:
    """ValueError where train cannot learn the last blocks of CAST, of a model that is such a one."""
    if num_embeddings != 2:
        raise ValueError(
            f"model {model.name} learns from the tokens of two experts, but embeddings names {num_embeddings} embed "
            "nodes; give that of the spatial expert first and that of the temporal one second"
        )
    options = model.options()
    given = [name for name in OF_EMBEDDINGS if name in options]
    if given:
        raise ValueError(f"model.{given[0]} is what the embed nodes say; leave it out")
    if options.get("source", "tokens") != "tokens":
        raise ValueError("model.source: frames reads pictures, train reads stored rows; use finetune")
    if options.get("top") is None:
        raise ValueError("model.top: give the number of last blocks that learn, such as 3; the others are stored")
    if options.get("experts", "frozen") != "frozen":
        raise ValueError("model.experts: trained needs frames, train reads what frozen blocks gave; use finetune")
    _check_output(output, int(options["top"]))
    if length != 1:
        raise ValueError(f"window.length is {length}, but a stored row is a whole clip; set window.length: 1")
    if per_row:
        raise ValueError(f"task: per_row has an answer for every row, model {model.name} for a clip; choose video")


def check_experts(model: ModelSettings | None, experts: Sequence[str]) -> None:
    """ValueError where finetune cannot make a model of the encoders of the embed nodes ``experts``."""
    if not experts:
        return
    assert model is not None
    if not model.joins_tokens:
        raise ValueError(f"experts are of model cast, not of {model.name}; leave them out")
    if len(experts) != len(("space", "time")):
        raise ValueError(
            f"experts names {len(experts)} embed nodes; give that of the spatial expert and that of the temporal one"
        )
    given = [name for name in OF_EMBEDDINGS[:4] if name in model.options()]
    if given:
        raise ValueError(f"model.{given[0]} is what the nodes of experts say; leave it out")


def _check_output(output: str, top: int) -> None:
    """ValueError for one that does not enter the last ``top`` blocks, as far as its name says."""
    parsed = parse_output(output)
    if parsed.form != INPUT or (parsed.layer is not None and parsed.layer < 0 and parsed.layer != -top):
        wanted = f"block-{top}.input" if top else "block12.input (behind the last of 12)"
        raise ValueError(
            f"output is {output!r}, but model.top is {top}; what enters the last {top} blocks is {wanted}, which both "
            "embed nodes need among their outputs"
        )
