"""Are these the rows that a run was trained on? Others of as many features give answers too, and wrong ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from reelwright.stages.base.work import InputRef
from reelwright.storage.arrays.embeddings import EmbeddingStore
from reelwright.storage.errors import ConfigError
from reelwright.storage.results.runs import RunFolder
from reelwright.storage.store import Store

_ROWS = ("embeddings", "frames")  # inputs, along which frames become rows


def check_trained_on(
    refs: Sequence[InputRef], run: InputRef, values: Mapping[str, Any], *, store: Store, where: str
) -> None:
    """Raise ConfigError where rows are of another encoder than those that the run was trained on, as far as is known.

    ``values`` are the run's config.yaml. Other frames of the same encoder (another rate, say) are welcome. The model in
    a finetune run reads the rows of the encoder beside it.
    """
    trained = values["inputs"].get("embeddings", [])
    if not trained:
        if len(refs) != 1 or not _is_own(refs[0], run, values, store):
            raise ConfigError(
                f"{where}: the model of run {run.node} reads the rows of the run's own encoder, not "
                f"{', '.join(ref.node for ref in refs)}. Give embeddings that are made of frames with run: {run.node}"
            )
        return
    if len(refs) != len(trained):
        raise ConfigError(
            f"{where}: run {run.node} was trained on {len(trained)} embeddings ({', '.join(e['node'] for e in trained)}"
            f"), these are {len(refs)}. Give as many, in the same order"
        )
    for ref, known in zip(refs, trained, strict=True):
        own, wanted = _made_by(ref.key, ref.config, store), _made_by(known["key"], known["config"], store)
        if any(own[name] != wanted[name] for name in own.keys() & wanted.keys()):
            raise ConfigError(
                f"{where}: {ref.node} has rows of {_text(own)}; run {run.node} was trained on those of "
                f"{_text(wanted)}. Give the embeddings that it was trained on, in the same order"
            )


def rate_notes(refs: Sequence[InputRef], run: InputRef, values: Mapping[str, Any]) -> Iterator[str]:
    """A warning where frames come at another rate than those that the run was trained on, as far as both are known.

    Single rows, and segments of whole videos, are of no rate.
    """
    window = values.get("window") or {}  # runs that learn from views of whole videos have none
    if window.get("length") == 1 or values.get("clips", {}).get("sampling") == "segments":
        return
    trained = [entry for name in _ROWS for entry in values["inputs"].get(name, ())]
    own, wanted = _rate([asdict(ref) for ref in refs]), _rate(trained)
    if None not in (own, wanted) and own != wanted:
        yield (
            f"warning: {refs[0].node} is of {own}, but run {run.node} was trained on {wanted}: a window spans another "
            "time than in training"
        )


def _rate(entries: Sequence[Mapping[str, Any]]) -> str | None:
    """How the nearest decode node takes frames, in words."""
    for entry in entries:
        if entry["stage"] == "decode":
            config = entry["config"]
            found = [f"{name} {config[name]:g}" for name in ("fps", "stride") if config.get(name) is not None]
            return found[0] if found else "all frames"
    behind = [other for entry in entries for name in _ROWS for other in entry["inputs"].get(name, ())]
    return _rate(behind) if behind else None


def _made_by(key: str, config: Mapping[str, Any], store: Store) -> dict[str, Any]:
    """Encoder and weights of stored rows; of those that are not here the encoder alone, as far as it was named."""
    if store.backend.ensure_local(store.embeddings(key) / "zarr.json"):
        spec = EmbeddingStore(store.embeddings(key)).spec
        return {name: spec.get(name) for name in ("encoder", "weights_digest")}
    return {"encoder": config["encoder"]} if config.get("encoder") else {}


def _text(made_by: Mapping[str, Any]) -> str:
    return ", weights ".join(str(value) for value in made_by.values())


def _is_own(ref: InputRef, run: InputRef, values: Mapping[str, Any], store: Store) -> bool:
    """Whether rows are what a finetune run's model sees of frames, stored with the run or with its frozen encoder."""
    if run.key in {entry.key for entry in ref.inputs.get("run", ())}:
        return True
    spec = EmbeddingStore(store.embeddings(ref.key)).spec
    if values.get("output", "pooled") not in spec["outputs"]:  # pooled is then not behind the model's own layers
        return False
    from reelwright.models.blocks.weights import remap_state_dict, state_digest
    from reelwright.stages.embed.encoding.encoder import RUN_PREFIX  # with timm, which nothing else here needs
    from reelwright.stages.embed.encoding.weight_files import read_weights

    weights = read_weights(RunFolder(store.run(run.key)).weights)
    own = state_digest(remap_state_dict(weights, prefix=f"{RUN_PREFIX}model.", key_map=None))
    return bool(spec.get("weights_digest") == own)
