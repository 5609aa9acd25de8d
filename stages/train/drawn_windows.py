"""Which windows train looks at: the candidates with a known target, and how an epoch draws from them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reelwright.stages.sampling.clips import ClipSampling, DrawnClips, clip_sampling
from reelwright.stages.sampling.densities import EventDensity, rows_at
from reelwright.stages.sampling.draws import Candidates, Draws, sampling_weights
from reelwright.stages.sampling.windows import WindowShape
from reelwright.stages.tasks.task import Task
from reelwright.stages.train.config import TrainConfig
from reelwright.stages.train.labelled import (
    KnownRows,
    LabelledVideo,
    LabelledWindows,
    check_reach,
    label_windows,
    no_windows,
)
from reelwright.storage.errors import InputError


def drawn_windows(
    videos: Sequence[LabelledVideo], rows: KnownRows, *, config: TrainConfig, shape: WindowShape, task: Task
) -> tuple[LabelledWindows, Draws]:
    """Candidates to train on, and what an epoch takes of them. Raises InputError where there is nothing to draw."""
    window, clips = config.window, clips_of(config, shape)
    if clips is not None:
        return _drawn_clips(videos, rows, config=config, clips=clips, task=task)
    grid = label_windows(videos, rows, shape=shape, task=task)
    if len(grid) == 0:
        raise no_windows(videos, rows, shape)
    check_reach(videos, rows, shape)
    if window.sampling == "grid":
        return grid, Draws(seed=config.seed, per_epoch=window.per_epoch)
    every_start = WindowShape(length=shape.length, dilation=shape.dilation, short=shape.short)
    found = label_windows(videos, rows, shape=every_start, task=task)
    candidates = Candidates(
        windows=found.windows,
        num_rows=[len(spans.start_seconds) for spans in rows.spans],
        shape=every_start,
        targets=found.targets,
        events=event_rows(videos, rows) if window.sampling == "events" else (),
        density=event_density(config),
    )
    per_epoch = window.per_epoch or (None if window.sampling == "all" else len(grid))
    return found, Draws(seed=config.seed, per_epoch=per_epoch, weights=sampling_weights(window.sampling, candidates))


def clips_of(config: TrainConfig, shape: WindowShape) -> ClipSampling | None:
    """How clips are taken; None where there are windows."""
    window = config.window
    return clip_sampling(window.sampling, shape, segments=window.segments, segment_rule=window.segment_rule)


def _drawn_clips(
    videos: Sequence[LabelledVideo], rows: KnownRows, *, config: TrainConfig, clips: ClipSampling, task: Task
) -> tuple[LabelledWindows, Draws]:
    if clips.kind != "segments":
        check_reach(videos, rows, clips.shape)
    found = label_windows(videos, rows, shape=clips.shape, task=task, clips=clips)
    if len(found) == 0:
        raise no_windows(videos, rows, clips.shape)
    num_rows = np.array([len(spans.start_seconds) for spans in rows.spans])
    return found, Draws(seed=config.seed, per_epoch=config.window.per_epoch, clips=DrawnClips(clips, num_rows))


def event_density(config: TrainConfig) -> EventDensity:
    """The density that ``window.events`` describes."""
    events = config.window.events
    return EventDensity(
        kind=events.density,
        sigma_rows=events.sigma_rows,
        separation_rows=events.separation_rows,
        epsilon=events.epsilon,
    )


def event_rows(videos: Sequence[LabelledVideo], rows: KnownRows) -> list[list[float]]:
    """For each of ``rows.digests`` the rows at which a segment of its annotations starts or a step is completed.

    Raises InputError where no video has any: densities around events would all be flat.
    """
    times: dict[str, set[float]] = {digest: set() for digest in rows.digests}
    for video in videos:
        if video.digest in times:
            times[video.digest] |= {start for start, _, _ in video.annotation.segments}
            times[video.digest] |= {time for time, _ in video.annotation.steps}
    if not any(times.values()):
        raise InputError(
            "window.sampling is events, but no video to train on has a segment or a step. Annotate some, or choose "
            "random, per_video or balanced."
        )
    return [
        np.asarray(rows_at(sorted(times[digest]), spans.start_seconds), dtype=np.float64).tolist()
        for digest, spans in zip(rows.digests, rows.spans, strict=True)
    ]
