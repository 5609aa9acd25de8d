"""Probe: rows of stored videos and their labels -> metrics.json and report.html, written in one step."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from reelwright.models.metrics.probes.embedded_videos import EmbeddedVideo
from reelwright.stages.base.config import parse_config
from reelwright.stages.base.work import InputRef, Reporter, Work
from reelwright.stages.datasets.embedded import chosen_output, embedded_videos
from reelwright.stages.datasets.labelled import distinct_videos, payload_videos
from reelwright.stages.evaluate.provenance import left_out_notes
from reelwright.stages.probe.config import ProbeConfig
from reelwright.stages.probe.report import report_page
from reelwright.stages.probe.tasks import Probed, measured
from reelwright.storage.arrays.embeddings import EmbeddingStore
from reelwright.storage.errors import StageError
from reelwright.storage.files import replacing_folder
from reelwright.storage.store import Store


def run(work: Work, reporter: Reporter) -> dict[str, Any]:
    """Write `Store.report(key)`: metrics.json with all numbers of all tasks and why a task has none, and report.html.

    Returns the scores (see `tasks.TASKS`), `num_videos` and `num_labelled` of the videos that are measured,
    `intervals`: [low, high] by number, 95 % bootstrap intervals over videos (see `intervals`), and `beside`: the
    scores and intervals of the rows beside, by node. Raises StageError when no video has rows, when no task can be
    done, or where rows cannot be measured.
    """
    config = parse_config(ProbeConfig, dict(work.config), where=work.node)
    references = [*work.inputs["embeddings"], *work.inputs.get("beside", ())]
    reporter.total(len(config.tasks) * len(references), "tasks")
    try:
        stores = [EmbeddingStore(Store.at(work.store).embeddings(reference.key)) for reference in references]
        shared = set.intersection(*(set(store.digests()) for store in stores))
        probed = [
            _probed(work, config, reference, reporter, store=store, shared=shared)
            for reference, store in zip(references, stores, strict=True)
        ]
    except (ValueError, IndexError) as error:
        raise StageError(f"{work.node}: {error}") from error
    first, *beside = probed
    if not first.tasks:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in first.skipped.items())
        raise StageError(f"{work.node}: nothing can be measured. {reasons}")
    for note in left_out_notes(work):
        reporter.note(note)
    num_labelled = sum(video.has_labels for video in first.videos)
    summary: dict[str, Any] = {"num_videos": len(first.videos), "num_labelled": num_labelled, **first.scores}
    summary |= {"intervals": first.intervals} if first.intervals else {}
    if beside:
        summary["beside"] = {
            each.reference.node: {**each.scores, **({"intervals": each.intervals} if each.intervals else {})}
            for each in beside
        }
    written = {
        "key": work.key,
        **first.plain(),
        "classes": list(work.payload["classes"]),
        "headline": summary,
        **({"beside": {each.reference.node: each.plain() for each in beside}} if beside else {}),
    }
    with replacing_folder(Store.at(work.store).report(work.key)) as folder:
        text = json.dumps(written, indent=1, allow_nan=False, ensure_ascii=False)
        (folder / "metrics.json").write_text(text + "\n", encoding="utf-8")
        if config.report:
            reporter.note("pictures of rows for the report")
            (folder / "report.html").write_text(report_page(work, config, probed), encoding="utf-8")
    return summary


def _probed(
    work: Work,
    config: ProbeConfig,
    reference: InputRef,
    reporter: Reporter,
    *,
    store: EmbeddingStore,
    shared: Collection[str],
) -> Probed:
    """Measure the rows of one node: of the videos ``shared`` by all, by digest, each content once (but in compat)."""
    is_beside = reference.node != config.embeddings
    named = None if is_beside and config.output not in store.spec["outputs"] else config.output
    output = chosen_output(store, named, node=f"{work.node}: {reference.node}" if is_beside else work.node)
    listed = payload_videos if config.compat else distinct_videos

    def videos(splits: tuple[str, ...]) -> list[EmbeddedVideo]:
        chosen = [video for video in listed(work.payload, splits=splits) if video.digest in shared]
        return embedded_videos(store, chosen, work.payload, output=output, normalize=config.normalize)

    train = videos(config.train_splits) if config.is_learnt else []
    test = videos(config.splits)
    if not test:
        raise StageError(f"{work.node}: no video of the splits {', '.join(config.splits)} has rows")
    tasks: dict[str, dict[str, Any]] = {}
    skipped: dict[str, str] = {}
    for name in config.tasks:
        found, reason = measured(name, config, train, test)
        if reason:
            skipped[name] = reason
            if not is_beside:
                reporter.note(f"{name} is left out: {reason}")
        else:
            tasks[name] = found
        reporter.advance(1)
    return Probed(reference=reference, output=output, videos=test, tasks=tasks, skipped=skipped)
