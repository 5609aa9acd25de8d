r"""Predict: sliding-window scores of each video into the cache, and the published tables with names and targets.

embeddings --------------------+
frames -> spatial encoder -----+-> rows of a video -> windows -> scores -> predictions/<spec key>/<digest>.parquet
stored frames -------------------> clips ----------------/    \-> outputs -> attention/<spec key>.zarr/<digest>/
                      edits of attention ---------------------/
"""

from __future__ import annotations

import time
from pathlib import Path

from reelwright.stages.base.config import parse_config
from reelwright.stages.base.devices import deterministic_results, pick_device
from reelwright.stages.base.inputs import unchanged_run
from reelwright.stages.base.unit import cached_model
from reelwright.stages.base.work import Reporter, Work, ledger_of
from reelwright.stages.datasets.attention_edits import read_edits
from reelwright.stages.datasets.stored_rows import failed_row, read_video
from reelwright.stages.embed.encoding.clip_models import frames_seen
from reelwright.stages.embed.encoding.preprocess import data_config_from, geometry_of
from reelwright.stages.fit.trained_on import check_trained_on, rate_notes
from reelwright.stages.predict.config import PredictConfig
from reelwright.stages.predict.kept import KeptOutputs
from reelwright.stages.predict.loaded_run import LoadedRun, VideoRows, load_clip_run, load_run, predicted_shape
from reelwright.stages.predict.publishing import publish_tables
from reelwright.stages.predict.scorer import Scorer
from reelwright.stages.predict.sink import ScoreWriter
from reelwright.storage.arrays.embeddings import EmbeddingStore
from reelwright.storage.errors import ConfigError, ItemError, StoreError
from reelwright.storage.ledger.items import ItemRow
from reelwright.storage.results.runs import RunFolder
from reelwright.storage.store import Store

CLIP_FRAMES = 64  # of a forward pass of a network that sees clips


def run_items(work: Work, reporter: Reporter) -> None:
    """Score ``work.items``; every one ends as a row of the node's ledger, done, skipped or failed.

    Raises ConfigError, StoreError or StageError before any video is touched where that can be seen.
    """
    config = parse_config(PredictConfig, dict(work.config), where=work.node)
    store = Store.at(work.store)
    run = load_for(work, config)
    ledger = ledger_of(work)
    scorer = scorer_for(run, config)
    if config.keep:
        described = {"spec": work.spec, "window": vars(scorer.shape)}
        scorer.keep(store.attention(work.key), described, config.keep)
    edits = None if config.edit_attention is None else read_edits(work)
    if edits is not None:
        scorer.edit(edits)
    writer = ScoreWriter(
        scorer,
        folder=store.predictions(work.key),
        ledger=ledger,
        reporter=reporter,
        batch_size=1 if config.deterministic else config.batch_size,
        names={item.digest: item.video_id for item in work.items},
    )
    _note_rates(work, reporter)
    with deterministic_results(config.deterministic):
        if work.inputs.get("frames"):
            from reelwright.stages.predict.frames import score_clips, score_frames

            if run.sees is None:
                score_frames(work, config, scorer, writer=writer, reporter=reporter)
            else:
                score_clips(work, config, scorer, writer=writer, reporter=reporter)
        elif run.sees is not None:
            raise ConfigError(f"{work.node}: the run sees clips of frames, and there are none. Give frames.")
        elif config.precision is not None:
            raise ConfigError(f"{work.node}: precision is of encoders of frames, and there are none. Give frames.")
        elif config.is_cropped:
            raise ConfigError(f"{work.node}: crops and short_side are of frames, and there are none. Give frames.")
        else:
            _score_embeddings(work, run, kept=scorer.kept, writer=writer, reporter=reporter)
        writer.flush()
    for line in writer.left_out.warnings():
        reporter.note(line)
    for line in () if edits is None else edits.warnings({item.digest for item in work.items}):
        reporter.note(line)
    ledger.compact()


def _note_rates(work: Work, reporter: Reporter) -> None:
    (run,) = work.inputs["run"]
    refs = work.inputs.get("frames") or work.inputs.get("embeddings", ())
    for note in rate_notes(refs, run, RunFolder(Store.at(work.store).run(run.key)).config()):
        reporter.note(note)


def prepare(work: Work, reporter: Reporter) -> None:
    """Load the trained model, to be kept for the units of work that follow."""
    del reporter
    load_for(work, parse_config(PredictConfig, dict(work.config), where=work.node))


def load_for(work: Work, config: PredictConfig) -> LoadedRun:
    """The run of a predict node on its device. Raises as `load_run` and `load_clip_run`."""
    store, (run,), device = Store.at(work.store), work.inputs["run"], pick_device(config.device)
    folder = RunFolder(store.run(run.key))

    def load() -> LoadedRun:
        if frames_seen(folder.config()) is None:
            with unchanged_run(store, run):
                return load_run(folder, device=device, plugins=work.plugins)
        return load_clip_run(run, store=store, device=device, plugins=work.plugins)

    return cached_model(f"predict {work.key}", load)


def scorer_for(run: LoadedRun, config: PredictConfig) -> Scorer:
    """The scorer of a run. Of clips, whose frames all go through the network, a batch has `frame_batch_size` frames."""
    number, precision = config.batch_size, "fp32"
    if run.sees is not None:
        length = predicted_shape(config.window, run.window).length
        number = max(1, min(number, (config.frame_batch_size or CLIP_FRAMES) // length))
        precision = config.precision or "fp32"
    return Scorer(run, config.window, batch_size=number, precision=precision)


def publish(work: Work, folder: Path) -> None:
    """Write the published tables into ``folder`` (predictions/<node key>) from the cached scores of ``work.key``."""
    store = Store.at(work.store)
    if work.config.get("edit_attention") is not None:
        read_edits(work)  # names may have changed since: a copy under another name
    run = work.inputs["run"][0].key
    publish_tables(
        work, folder, cache=store.predictions(work.key), run=run, run_values=RunFolder(store.run(run)).config()
    )


def _score_embeddings(
    work: Work, run: LoadedRun, *, kept: KeptOutputs | None, writer: ScoreWriter, reporter: Reporter
) -> None:
    refs = work.inputs.get("embeddings", ())
    if not refs:
        raise ConfigError(f"{work.node}: nothing to predict from; give embeddings or frames.")
    store, (of_run,) = Store.at(work.store), work.inputs["run"]
    check_trained_on(refs, of_run, RunFolder(store.run(of_run.key)).config(), store=store, where=work.node)
    stores = [EmbeddingStore(store.embeddings(ref.key)) for ref in refs]
    if kept is not None and (seen := stores[0].spec.get("preprocessing")) is not None:
        kept.see(geometry_of(data_config_from(seen)).to_plain())
    reporter.total(len(work.items), "videos")
    for item in work.items:
        started = time.perf_counter()
        try:
            rows, spans = read_video(stores, item.digest, output=run.output, keeps_positions=run.keeps_positions)
        except (ItemError, StoreError) as error:
            writer.fail(failed_row(item.digest, error))
        else:
            row = ItemRow(digest=item.digest, status="ok", seconds=time.perf_counter() - started)
            writer.add(VideoRows(item.digest, rows, spans), row)
        reporter.advance(1)
