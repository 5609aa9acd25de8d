"""The embed stage: the videos of one node into its embedding store, each committed as soon as its rows are there."""

from __future__ import annotations

from reelwright.stages.base.config import parse_config
from reelwright.stages.base.devices import deterministic_results
from reelwright.stages.base.unit import held
from reelwright.stages.base.work import Reporter, Work, ledger_of
from reelwright.stages.decode.config import DecodeConfig
from reelwright.stages.embed.encoding.encoder import LoadedEncoder, load_encoder
from reelwright.stages.embed.encoding.forward import ForwardPass, row_shapes
from reelwright.stages.embed.sink import StoreSink
from reelwright.stages.embed.videos import FrameInput, attributes_of, embed_videos, prepare_forward, versions
from reelwright.stages.embed.views import views_of
from reelwright.storage.arrays.embedding_writer import EmbeddingWriter, RowLayout
from reelwright.storage.store import Store


def run_items(work: Work, reporter: Reporter) -> None:
    """Embed ``work.items``; every one ends as a row of the node's ledger, done or failed.

    Raises ConfigError, InputError and StoreError before any video is touched.
    """
    loaded, forward = ready(work, reporter)
    writer = open_writer(work, loaded)
    ledger = ledger_of(work)
    config = loaded.config
    with deterministic_results(config.deterministic):
        embed_videos(
            work.items,
            loaded=loaded,
            forward=forward,
            frames=frame_input(work),
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
        loaded = load_encoder(work)
        tuning = Store.at(work.store).root / "tuning"
        views_of(loaded, where=work.node)  # refused before any video is touched
        num_views = None if loaded.config.views is None else loaded.config.views.num
        forward = prepare_forward(loaded, loaded.config, tuning=tuning, note=reporter.note, num_views=num_views)
        return loaded, forward

    return held(f"embed {work.key}", make)


def open_writer(work: Work, loaded: LoadedEncoder) -> EmbeddingWriter:
    """The node's embeddings, for writing."""
    return EmbeddingWriter.create(
        Store.at(work.store).embeddings(work.key),
        attributes_of(loaded, work.spec),
        layout=_layout(loaded, where=work.node),
        item_attributes={"versions": versions()},
    )


def frame_input(work: Work) -> FrameInput:
    """Where the frames of ``work`` come from: its decode node, stored or decoded on the way."""
    (source,) = work.inputs["frames"]
    decode = parse_config(DecodeConfig, dict(source.config), where=source.node)
    store = Store.at(work.store)
    stored = store.frames(source.key) if decode.materialize else None
    return FrameInput(decode=decode, frames_store=stored, index=store.frame_index)


def _layout(loaded: LoadedEncoder, *, where: str) -> RowLayout:
    config = loaded.config
    shapes = row_shapes(loaded.encoder, loaded.data_config, where=where)
    if config.views is not None:
        shapes = {name: (config.views.num, *shape) for name, shape in shapes.items()}
    return RowLayout(
        outputs=shapes,
        dtype=config.dtype,
        codec=config.codec,
        chunk_bytes=config.chunk_bytes,
        shard_rows=config.shard_rows,
    )
