"""The features stage: files of features into an embedding store, each committed as soon as its rows are there."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from reelwright.stages.base.config import parse_config
from reelwright.stages.base.inputs import unchanged_sources
from reelwright.stages.base.work import Reporter, VideoItem, Work
from reelwright.stages.embed.sink import LAYOUT, OutputRows, StoreSink
from reelwright.stages.features.config import FeaturesConfig
from reelwright.stages.features.rows import Array, read_features, times_by_video
from reelwright.storage.arrays.embedding_writer import EmbeddingWriter, RowLayout
from reelwright.storage.arrays.embeddings import EmbeddingStore
from reelwright.storage.arrays.spans import Spans
from reelwright.storage.bucket.download_cache import local_file
from reelwright.storage.errors import InputError, ItemError
from reelwright.storage.ledger.digest_cache import Snapshot
from reelwright.storage.ledger.items import ItemLedger, ItemRow
from reelwright.storage.store import Store
from reelwright.storage.tables.text_tables import read_columns

_LOOKED_AT = 16  # files that say how wide rows are, where neither `dim` nor the store does


def run_items(work: Work, reporter: Reporter) -> None:
    """Import ``work.items``; every one ends as a row of the node's ledger, done or failed.

    Raises InputError or StoreError before any file is imported where that can be seen.
    """
    config = parse_config(FeaturesConfig, dict(work.config), where=work.node)
    store = Store.at(work.store)
    ledger = ItemLedger(store.node(work.key))
    with unchanged_sources(work):
        times = _times(config)
    reporter.total(len(work.items), "files")
    shape = _row_shape(store.embeddings(work.key), work.items, config, times)
    layout = RowLayout(outputs={config.output: shape}, **config.model_dump(include=LAYOUT))
    attributes = {"spec": dict(work.spec), "encoder": "imported features"}
    writer = EmbeddingWriter.create(store.embeddings(work.key), attributes, layout=layout)
    sink = StoreSink(writer, ledger=ledger, reporter=reporter)
    for item in work.items:
        started = time.perf_counter()
        try:
            num_rows = _import(item, config, sink, shape=shape, times=times.get(item.video_id))
        except ItemError as error:
            sink.discard(item.digest)
            sink.fail(ItemRow(digest=item.digest, status=error.status, cause=error.cause, message=str(error)))
        else:
            seconds = round(time.perf_counter() - started, 4)
            sink.finish(ItemRow(digest=item.digest, status="ok", rows=num_rows, seconds=seconds, backend="features"))
        reporter.advance(1)
    ledger.compact()


def _import(
    item: VideoItem, config: FeaturesConfig, sink: StoreSink, *, shape: tuple[int, ...], times: Array | None
) -> int:
    rows, spans = _read(item, config, times=times)
    if rows.shape[1:] != shape:
        raise ItemError(
            "other_shape",
            f"{Path(item.path).name} has rows of {rows.shape[1:]}, the store under these settings has {shape}. "
            f"Features of another kind need settings of their own: set `dim: {rows.shape[-1]}`, or `transposed`.",
        )
    sink.discard(item.digest)  # what an interrupted run left; files are read whole, so nothing is gained by going on
    sink.begin(item.digest, num_rows=len(rows))
    sink.rows(item.digest, OutputRows(0, {config.output: rows}, spans))
    return len(rows)


def _read(item: VideoItem, config: FeaturesConfig, *, times: Array | None) -> tuple[Array, Spans]:
    """What the file held when it had the item's digest. Raises ItemError (changed) where it holds something else."""
    path = local_file(item.path)
    try:
        snapshot = Snapshot.of(path)
        # Which of both an item has is not said; they are never equal, and the quick one costs next to nothing.
        is_same = item.digest == snapshot.digest(quick=True) or item.digest == snapshot.digest()
    except OSError as error:
        raise ItemError("unreadable", f"{path} cannot be read: {error.strerror}. Is it there still?") from None
    if not is_same:
        raise ItemError("changed", snapshot.changed_message)
    found = read_features(path, config, times=times)
    snapshot.check()
    return found


def _row_shape(
    path: Path, items: tuple[VideoItem, ...], config: FeaturesConfig, times: Mapping[str, Array]
) -> tuple[int, ...]:
    """Of the rows that the store has already; else that of most of the first files that can be read."""
    if (path / "zarr.json").exists():
        return tuple(EmbeddingStore(path).spec["outputs"][config.output])
    found: Counter[tuple[int, ...]] = Counter()
    problems: list[str] = []
    for item in items:
        try:
            rows, _ = read_features(local_file(item.path), config, times=times.get(item.video_id))
            found[rows.shape[1:]] += 1
        except ItemError as error:
            problems.append(str(error))
        if sum(found.values()) == _LOOKED_AT:
            break
    if not found:
        raise InputError(f"none of the {len(items)} files of features can be imported", problems[:5])
    return found.most_common(1)[0][0]


def _times(config: FeaturesConfig) -> Mapping[str, Array]:
    if config.times is None:
        return {}
    path = Path(config.times)
    columns = read_columns(path, required=["video_id", "start_seconds"]).cells
    try:
        return times_by_video(columns, path=path)
    except ItemError as error:
        raise InputError(str(error)) from None
