"""The embed stage: rows of frames (stages/embed), or rows of rows with a run, each video as a whole.

stored rows -> pieces of the video -> model of the run -> pieces joined -> shards, each video committed when it is done

It lies above `fit`, which reads what a run is: `fit` itself reads weights of encoders with stages/embed.
"""

from __future__ import annotations

import time

from reelwright.stages.base.config import parse_config
from reelwright.stages.base.devices import deterministic_results
from reelwright.stages.base.unit import cached_model
from reelwright.stages.base.work import Reporter, VideoItem, Work, ledger_of
from reelwright.stages.datasets.stored_rows import StoredVideo, failed_row
from reelwright.stages.embed import work as of_frames
from reelwright.stages.embed.config import EmbedConfig
from reelwright.stages.embed.sink import LAYOUT, OutputRows, StoreSink
from reelwright.stages.embed.videos import versions
from reelwright.stages.embed_rows.row_model import RowModel, load_row_model
from reelwright.storage.arrays.embedding_writer import EmbeddingWriter, RowLayout
from reelwright.storage.arrays.embeddings import EmbeddingStore
from reelwright.storage.errors import ItemError, StoreError
from reelwright.storage.ledger.items import ItemRow
from reelwright.storage.results.runs import RunFolder
from reelwright.storage.store import Store


def run_items(work: Work, reporter: Reporter) -> None:
    """Embed ``work.items``; every one ends as a row of the node's ledger, done or failed.

    Raises ConfigError, InputError and StoreError before any video is touched where that can be seen.
    """
    if not work.inputs.get("embeddings"):
        for ref in work.inputs.get("run", ()):
            if "views" in RunFolder(Store.at(work.store).run(ref.key)).config():
                reporter.note(
                    f"these are rows of single frames; the model of run {ref.node}, which sees whole videos, makes its "
                    f"rows of them in an embed node with run: {ref.node}, embeddings: [{work.node}]"
                )
        of_frames.run_items(work, reporter)
        return
    loaded, ledger = _ready(work), ledger_of(work)
    sink = StoreSink(_open_writer(work, loaded), ledger=ledger, reporter=reporter)
    stores = [EmbeddingStore(Store.at(work.store).embeddings(ref.key)) for ref in work.inputs["embeddings"]]
    reporter.total(len(work.items), "videos")
    with deterministic_results(loaded.config.deterministic):
        for item in work.items:
            _embed(item, loaded, stores, sink)
            reporter.advance(1)
    ledger.compact()


def prepare(work: Work, reporter: Reporter) -> None:
    """Load the encoder or the run, to be kept for the units of work that follow."""
    if work.inputs.get("embeddings"):
        _ready(work)
    else:
        of_frames.prepare(work, reporter)


def _ready(work: Work) -> RowModel:
    config = parse_config(EmbedConfig, dict(work.config), where=work.node)
    return cached_model(f"embed {work.key}", lambda: load_row_model(work, config))


def _embed(item: VideoItem, loaded: RowModel, stores: list[EmbeddingStore], sink: StoreSink) -> None:
    started, digest = time.perf_counter(), item.digest
    try:
        video = StoredVideo.of(stores, digest, output=loaded.output)
        first = sink.begin(digest, num_rows=len(video))
        for start, outputs in loaded.embed(video, start=first):
            skipped, count = max(first - start, 0), len(next(iter(outputs.values())))
            if skipped < count:
                rows = {name: values[skipped:].astype(loaded.config.dtype) for name, values in outputs.items()}
                spans = video.spans.take(slice(start + skipped, start + count))
                sink.rows(digest, OutputRows(start + skipped, rows, spans))
    except (ItemError, StoreError) as error:
        row = failed_row(digest, error)
        sink.discard(digest)
        sink.fail(row)
    else:
        seconds = round(time.perf_counter() - started, 4)
        sink.finish(ItemRow(digest=digest, status="ok", rows=len(video), seconds=seconds, backend="run"))


def _open_writer(work: Work, loaded: RowModel) -> EmbeddingWriter:
    config = loaded.config
    layout = RowLayout(outputs=loaded.shapes, **config.model_dump(include=LAYOUT))
    attributes = {
        "spec": dict(work.spec),
        "encoder": f"{loaded.name} of a run",
        "kind": "rows",
        "weights_digest": loaded.weights_digest,
        "pieces": {"length": loaded.length, "overlap": loaded.overlap},
        "precision": config.precision,
    }
    return EmbeddingWriter.create(
        Store.at(work.store).embeddings(work.key), attributes, layout=layout, item_attributes={"versions": versions()}
    )
