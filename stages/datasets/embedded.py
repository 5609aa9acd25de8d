"""Stored rows of videos as measures and pictures take them: one output, with phases and times where they are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from reelwright.models.metrics.probes.embedded_videos import EmbeddedVideo
from reelwright.stages.datasets.labelled import LabelledVideo
from reelwright.storage.arrays.embeddings import EmbeddingRows, EmbeddingStore
from reelwright.storage.arrays.spans import row_labels
from reelwright.storage.errors import StageError
from reelwright.storage.tables.annotations import UNKNOWN


def chosen_output(store: EmbeddingStore, output: str | None, *, node: str) -> str:
    """``output``, or the only one that is stored, or pooled. Raises StageError where that is not clear."""
    stored = list(store.spec["outputs"])
    if output is not None:
        return output
    if len(stored) == 1 or "pooled" in stored:
        return "pooled" if "pooled" in stored else str(stored[0])
    raise StageError(f"{node}: several outputs are stored; set output to one of {', '.join(stored)}")


def embedded_videos(
    store: EmbeddingStore,
    videos: Sequence[LabelledVideo],
    payload: Mapping[str, Any],
    *,
    output: str,
    normalize: bool,
) -> list[EmbeddedVideo]:
    """Those of ``videos`` that have rows, in the same order; rows of unit length if so asked.

    Times are the middles of the rows' spans, actions the videos' own labels. Raises StageError for an output whose rows
    are not (D,), ValueError for rows that are not finite.
    """
    present = set(store.digests())
    return [
        _embedded(video, store.rows(video.digest), payload, output=output, normalize=normalize)
        for video in videos
        if video.digest in present
    ]


def _embedded(
    video: LabelledVideo, stored: EmbeddingRows, payload: Mapping[str, Any], *, output: str, normalize: bool
) -> EmbeddedVideo:
    rows_TD = stored.output(output).astype(np.float64)
    if rows_TD.ndim != 2:
        shape = stored.row_shape(output)
        raise StageError(f"output {output!r} has rows of shape {shape}; (D,) is needed. Set output")
    if normalize:
        lengths = np.linalg.norm(rows_TD, axis=1, keepdims=True)
        rows_TD /= np.where(lengths > 0, lengths, 1.0)
    spans, known = stored.spans, video.annotation
    has_phases = known.segments or known.times or known.frames  # the video's own label is an action, no phase
    return EmbeddedVideo(
        name=video.video_id,
        rows=rows_TD,
        labels=row_labels(known, spans, background=payload["background"]) if has_phases else None,
        seconds=(spans.start_seconds + spans.stop_seconds) / 2,
        action=known.video_label or ("" if known.label == UNKNOWN else payload["classes"][known.label]),
    )
