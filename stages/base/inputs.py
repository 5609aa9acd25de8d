"""What a unit of work reads: of a store in a bucket, brought to this machine first; of files, what its key is made of.

Runs, tables and reports come as wholes, embeddings that the work itself reads many at once. All other rows come video
by video when they are read: a node that reads a run does not need the frames it was trained on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from reelwright.stages.base.config import parse_config
from reelwright.stages.base.registry import check_stage, config_model, stage_of
from reelwright.stages.base.work import RUN_WEIGHTS, InputRef, Work
from reelwright.storage.errors import InputError
from reelwright.storage.kinds import KINDS
from reelwright.storage.ledger.digest_cache import Snapshot
from reelwright.storage.results.runs import RunFolder
from reelwright.storage.store import Store


def bring_inputs(work: Work) -> None:
    """Nothing is brought for a store in a folder. Raises StoreError, and ConfigError where its stage has changed."""
    check_stage(work.stage, work.spec)
    store = Store.at(work.store)
    if store.url is None:
        return
    store.backend.forget()
    for ref in behind(work):
        produces = config_model(ref.stage, where=ref.node).produces
        if not KINDS[produces].is_rows:
            store.backend.pull(store.output(produces, ref.key), skip=_is_only_for_training)
    digests = [item.digest for item in work.items] or [video["digest"] for video in work.payload.get("videos", ())]
    for ref in (ref for refs in work.inputs.values() for ref in refs):
        if config_model(ref.stage, where=ref.node).produces == "embeddings":
            store.backend.ensure_items(store.embeddings(ref.key), digests)
    if stage_of(work.stage).trains:
        store.backend.pull(store.run(work.key))  # an interrupted one goes on, wherever it was begun


def behind(work: Work) -> list[InputRef]:
    """Every node that ``work`` comes from, the first ones first, each once."""
    found: dict[str, InputRef] = {}

    def visit(ref: InputRef) -> None:
        for refs in ref.inputs.values():
            for inner in refs:
                visit(inner)
        found.setdefault(ref.node, ref)

    for refs in work.inputs.values():
        for ref in refs:
            visit(ref)
    return list(found.values())


@contextlib.contextmanager
def unchanged_sources(work: Work, *, of: InputRef | None = None) -> Iterator[None]:
    """Files that the settings name (weights, times, a procedure) are in the block what their digests in the key say.

    ``of`` an input: the files that its own settings name. Read them inside, and write nothing there. Raises InputError
    where one is not, before the block or after it.
    """
    node = work if of is None else of
    digests = work.spec.get("inputs", {}) if of is None else of.files
    config = parse_config(config_model(node.stage, where=node.node), dict(node.config), where=node.node)
    snapshots = [_checked(Path(path), digests.get(name)) for name, path in config.sources().items()]
    hub = config.hub_weights()
    if hub is not None and Store.at(work.store).weights(hub).is_file():  # else they are fetched in the block
        snapshots.append(_checked(Store.at(work.store).weights(hub), digests.get("weights")))
    yield
    for snapshot in snapshots:
        if not snapshot.is_same():
            raise InputError(snapshot.changed_message)


@contextlib.contextmanager
def unchanged_run(store: Store, run: InputRef) -> Iterator[RunFolder]:
    """The folder of a run, whose weights are in the block those by which it stands in the key of its user.

    Read them inside. Raises InputError where they are not, before the block or after it.
    """
    folder = RunFolder(store.run(run.key))
    with unchanged_file(folder.weights, run.files.get(RUN_WEIGHTS)):
        yield folder


@contextlib.contextmanager
def unchanged_file(path: Path, digest: str | None) -> Iterator[None]:
    """A file is in the block what ``digest``, that of the key, says (None: what it was before); raises InputError.

    One that is not there is told by who reads it.
    """
    snapshot = _checked(path, digest) if path.is_file() else None
    yield
    if snapshot is not None and not snapshot.is_same():
        raise InputError(snapshot.changed_message)


def _checked(path: Path, digest: str | None) -> Snapshot:
    """The file as it is now; ``digest`` is that in the key, None in work that was put together by hand."""
    try:
        snapshot = Snapshot.of(path)
        found = snapshot.digest() if digest is not None else None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}. Put it back, then run again") from None
    if digest != found:
        raise InputError(f"{path} changed after the plan was made of it, so nothing was read; run again.")
    return snapshot


def _is_only_for_training(name: str) -> bool:
    return name.startswith(("checkpoints/", "events."))
