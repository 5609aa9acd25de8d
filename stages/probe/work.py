"""Probe: rows of stored videos and their labels -> metrics.json; the folder is written in one step."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from reelwright.models.metrics.embedded_videos import EmbeddedVideo
from reelwright.stages.base.config import parse_config
from reelwright.stages.base.work import Reporter, Work
from reelwright.stages.datasets.labelled import LabelledVideo, distinct_videos, payload_videos
from reelwright.stages.probe.config import ProbeConfig
from reelwright.stages.probe.tasks import headline, measured
from reelwright.storage.arrays.embeddings import EmbeddingRows, EmbeddingStore
from reelwright.storage.arrays.spans import Spans, row_labels
from reelwright.storage.errors import StageError
from reelwright.storage.files import replacing_folder
from reelwright.storage.store import Store
from reelwright.storage.tables.annotations import UNKNOWN, Annotation


def run(work: Work, reporter: Reporter) -> dict[str, Any]:
    """Write `Store.report(key)`: metrics.json with all numbers of all tasks, and why a task has none.

    Returns the scores (see `tasks.TASKS`), `num_videos` and `num_labelled` of the videos that are measured. Raises
    StageError when none of these has rows, when no task can be done, or where rows cannot be measured.
    """
    config = parse_config(ProbeConfig, dict(work.config), where=work.node)
    store = EmbeddingStore(Store.at(work.store).embeddings(work.inputs["embeddings"][0].key))
    output = config.output or _only_output(store, node=work.node)
    try:
        train = _embedded(work, config, store, output, splits=config.train_splits) if config.is_learnt else []
        test = _embedded(work, config, store, output, splits=config.splits)
        if not test:
            raise StageError(f"{work.node}: no video of the splits {', '.join(config.splits)} has rows")
        results, skipped = _results(config, train, test, reporter)
    except (ValueError, IndexError) as error:
        raise StageError(f"{work.node}: {error}") from error
    if not results:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in skipped.items())
        raise StageError(f"{work.node}: nothing can be measured. {reasons}")
    scores = {shown: value for name, found in results.items() for shown, value in headline(name, found).items()}
    summary = {"num_videos": len(test), "num_labelled": sum(video.has_labels for video in test), **scores}
    written = {
        "key": work.key,
        "embeddings": work.inputs["embeddings"][0].key,
        "output": output,
        "classes": list(work.payload["classes"]),
        "headline": summary,
        "tasks": results,
        "skipped": skipped,
    }
    with replacing_folder(Store.at(work.store).report(work.key)) as folder:
        text = json.dumps(written, indent=1, allow_nan=False, ensure_ascii=False)
        (folder / "metrics.json").write_text(text + "\n", encoding="utf-8")
    return summary


def _results(
    config: ProbeConfig, train: list[EmbeddedVideo], test: list[EmbeddedVideo], reporter: Reporter
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Numbers of the tasks, and the reasons of those without any."""
    results: dict[str, dict[str, Any]] = {}
    skipped: dict[str, str] = {}
    reporter.total(len(config.tasks), "tasks")
    for name in config.tasks:
        found, reason = measured(name, config, train, test)
        if reason:
            skipped[name] = reason
            reporter.note(f"{name} is left out: {reason}")
        else:
            results[name] = found
        reporter.advance(1)
    return results, skipped


def _only_output(store: EmbeddingStore, *, node: str) -> str:
    outputs = list(store.spec["outputs"])
    if len(outputs) == 1 or "pooled" in outputs:
        return "pooled" if "pooled" in outputs else str(outputs[0])
    raise StageError(f"{node}: several outputs are stored; set output to one of {', '.join(outputs)}")


def _embedded(
    work: Work, config: ProbeConfig, store: EmbeddingStore, output: str, *, splits: tuple[str, ...]
) -> list[EmbeddedVideo]:
    """The videos of some splits that have rows; each content once, but in compat."""
    videos = (
        payload_videos(work.payload, splits=splits) if config.compat else distinct_videos(work.payload, splits=splits)
    )
    present = set(store.digests())
    return [
        _video(video, store.rows(video.digest), work.payload, output, config)
        for video in videos
        if video.digest in present
    ]


def _video(
    video: LabelledVideo, stored: EmbeddingRows, payload: Mapping[str, Any], output: str, config: ProbeConfig
) -> EmbeddedVideo:
    rows_TD = stored.output(output).astype(np.float64)
    if rows_TD.ndim != 2:
        raise StageError(
            f"output {output!r} has rows of shape {stored.row_shape(output)}; probe needs (D,). Set output"
        )
    if config.normalize:
        lengths = np.linalg.norm(rows_TD, axis=1, keepdims=True)
        rows_TD /= np.where(lengths > 0, lengths, 1.0)
    spans, label = stored.spans, video.annotation.label
    return EmbeddedVideo(
        name=video.video_id,
        rows=rows_TD,
        labels=_phases(video.annotation, spans, background=payload["background"]),
        seconds=(spans.start_seconds + spans.stop_seconds) / 2,
        action="" if label == UNKNOWN else payload["classes"][label],
    )


def _phases(annotation: Annotation, spans: Spans, *, background: int) -> npt.NDArray[np.int64] | None:
    """Labels of rows; None for a video of which none are known. The video's own label is an action, no phase."""
    if not (annotation.segments or annotation.times or annotation.frames):
        return None
    return row_labels(annotation, spans, background=background)
