"""What a unit of work reads of a store in a bucket, brought to this machine before the work begins.

Runs, tables and reports come as wholes, embeddings that the work itself reads many at once. All other rows come video
by video when they are read: a node that reads a run does not need the frames it was trained on.
"""

from __future__ import annotations

from collections.abc import Iterator

from reelwright.stages.registry import config_model
from reelwright.stages.work import InputRef, Work
from reelwright.storage.bringing import items_at_hand, look_again, refresh
from reelwright.storage.store import Store


def bring_inputs(work: Work) -> None:
    """Nothing happens for a store in a folder. Raises StoreError, ConfigError."""
    store = Store.at(work.store)
    if store.url is None:
        return
    look_again(store.root)
    folders = {"run": store.run, "predictions": store.predictions, "steps": store.steps, "scores": store.report}
    for ref in _references(work):
        produces = config_model(ref.stage, where=ref.node).produces
        if produces in folders:
            refresh(folders[produces](ref.key), skip=_is_only_for_training)
    digests = [item.digest for item in work.items] or [video["digest"] for video in work.payload.get("videos", ())]
    for ref in (ref for refs in work.inputs.values() for ref in refs):
        if config_model(ref.stage, where=ref.node).produces == "embeddings":
            items_at_hand(store.embeddings(ref.key), digests)
    own = config_model(work.stage, where=work.node)
    if own.kind == "run":
        refresh(store.run(work.key))  # an interrupted one goes on, wherever it was begun


def _references(work: Work) -> Iterator[InputRef]:
    waiting = [ref for refs in work.inputs.values() for ref in refs]
    while waiting:
        ref = waiting.pop()
        yield ref
        waiting += [inner for refs in ref.inputs.values() for inner in refs]


def _is_only_for_training(name: str) -> bool:
    return name.startswith(("checkpoints/", "events."))
