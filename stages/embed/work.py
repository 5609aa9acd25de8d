"""The embed stage: the videos of one node into its embedding store, each committed as soon as its rows are there."""

from __future__ import annotations

from reelwright.stages.base.devices import deterministic_results
from reelwright.stages.base.unit import cached_model
from reelwright.stages.base.work import Reporter, Work, ledger_of
from reelwright.stages.decode.processes.attempts import num_cores, num_workers
from reelwright.stages.decode.processes.child import started_ahead
from reelwright.stages.embed.encoding.encoder import LoadedEncoder, encoder_of
from reelwright.stages.embed.encoding.forward import ForwardPass, row_shapes
from reelwright.stages.embed.sink import LAYOUT, StoreSink
from reelwright.stages.embed.videos import (
    attributes_of,
    embed_videos,
    expected_rows,
    frame_input,
    made_with,
    prepare_forward,
)
from reelwright.stages.embed.views import views_of
from reelwright.storage.arrays.embedding_writer import EmbeddingWriter, RowLayout
from reelwright.storage.store import Store


def run_items(work: Work, reporter: Reporter) -> None:
    """Embed ``work.items``; every one ends as a row of the node's ledger, done or failed.

    Raises ConfigError, InputError and StoreError before any video is touched.
    """
    frames = frame_input(work)
    task = "store_tasks" if frames.frames_store else "tasks"
    # so many are surely needed, however the encoder turns out
    num_ahead = num_workers(frames.decode.workers or max(1, num_cores() // 2), len(work.items))
    with started_ahead(num_ahead, module=f"reelwright.stages.decode.{task}"):
        loaded, forward = ready(work, reporter)
        writer = open_writer(work, loaded, forward)
        config, ledger = loaded.config, ledger_of(work)
        with deterministic_results(config.deterministic):
            embed_videos(
                work.items,
                loaded=loaded,
                forward=forward,
                frames=frames,
                sink=StoreSink(writer, ledger=ledger, reporter=reporter),
                reporter=reporter,
                shard_rows=writer.layout.rows_per_shard() if config.deterministic else None,
                selection=views_of(loaded, where=work.node),
            )
        ledger.compact()


def prepare(work: Work, reporter: Reporter) -> None:
    """Load the encoder and put it on its device, to be kept for the units of work that follow."""
    ready(work, reporter)


def ready(work: Work, reporter: Reporter) -> tuple[LoadedEncoder, ForwardPass]:
    """The encoder of the node, and its forward pass on its device."""

    def make() -> tuple[LoadedEncoder, ForwardPass]:
        loaded = encoder_of(work)
        tuning = Store.at(work.store).root / "tuning"
        views_of(loaded, where=work.node)  # refused before any video is touched
        num_views = None if loaded.config.views is None else loaded.config.views.num
        forward = prepare_forward(
            loaded,
            loaded.config,
            tuning=tuning,
            note=reporter.note,
            num_views=num_views,
            num_rows=expected_rows(work, loaded),
        )
        return loaded, forward

    return cached_model(f"embed {work.key}", make)


def open_writer(work: Work, loaded: LoadedEncoder, forward: ForwardPass) -> EmbeddingWriter:
    """The node's embeddings, for writing."""
    config = loaded.config
    shapes = dict(forward.row_shapes or row_shapes(loaded.encoder, loaded.data_config, where=work.node))
    if config.views is not None:
        shapes = {name: (config.views.num, *shape) for name, shape in shapes.items()}
    return EmbeddingWriter.create(
        Store.at(work.store).embeddings(work.key),
        attributes_of(loaded, work.spec),
        layout=RowLayout(outputs=shapes, **config.model_dump(include=LAYOUT)),
        item_attributes=made_with(forward),
    )
