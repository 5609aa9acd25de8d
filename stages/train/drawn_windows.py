"""Windows with labels: their classes and heads, those with a known target, and how an epoch draws from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from reelwright.models.blocks.heads import Head
from reelwright.stages.base.work import Work
from reelwright.stages.datasets.labelled import (
    KnownRows,
    LabelledVideo,
    LabelledWindows,
    check_classes,
    check_reach,
    distinct_videos,
    label_space,
    label_windows,
    left_out_warnings,
    no_windows,
)
from reelwright.stages.datasets.sampling.clips import ClipSampling, DrawnClips, clip_sampling
from reelwright.stages.datasets.sampling.densities import rows_at, windows_miss_events
from reelwright.stages.datasets.sampling.draws import (
    EpochSampler,
    balanced_weights,
    event_weights,
    per_video_weights,
)
from reelwright.stages.datasets.sampling.settings import WHOLE, EventSettings
from reelwright.stages.datasets.sampling.windows import WindowShape
from reelwright.stages.datasets.tasks.labels import LabelSpace
from reelwright.stages.datasets.tasks.registry import TASKS
from reelwright.stages.datasets.tasks.task import Task
from reelwright.stages.fit.config import LearningSettings
from reelwright.stages.fit.processes.world import World
from reelwright.stages.train.config import SHAPE_FIELDS, WindowedSettings
from reelwright.stages.train.window_batches import LabelledBatches
from reelwright.storage.errors import ConfigError, InputError, nearest


def window_labels(work: Work, config: WindowedSettings) -> LabelSpace:
    """The classes that windows are labelled with."""
    return replace(label_space(work.payload, node=work.node), of_window=config.labels_of_window)


def window_heads(config: WindowedSettings, labels: LabelSpace, *, where: str) -> list[Head]:
    """Those of task heads. Raises InputError where the labels have none, ConfigError for weights of others."""
    if not TASKS[config.task].has_heads:
        return []
    if not labels.heads:
        raise InputError(
            f"{where}: task is heads, but the labels are of one kind. Give labels.columns, a column of the manifest "
            "for each head, or choose another task."
        )
    names = [name for name, _ in labels.heads]
    for name in config.head_weights:
        if name not in names:
            raise ConfigError(
                f"{where}: head_weights: no head {name!r}.{nearest(name, names)} Heads: {', '.join(names)}."
            )
    weights = {name: config.head_weights.get(name, 1.0) for name in names}
    smoothing = config.loss.label_smoothing
    return [Head(name=n, num_classes=k, weight=weights[n], label_smoothing=smoothing) for n, k in labels.heads]


def window_facts(config: WindowedSettings, heads: Sequence[Head]) -> dict[str, Any]:
    """What config.yaml says of task, its heads and windows, beside the model."""
    return {
        "task": config.task,
        "labels_of_window": config.labels_of_window,
        "window": config.window.model_dump(include=set(SHAPE_FIELDS)),
        "clips": config.window.model_dump(include={"sampling", "segments", "segment_rule"}),
        **({"heads": [asdict(head) for head in heads]} if heads else {}),
    }


B = TypeVar("B", bound=LabelledBatches)


@dataclass(frozen=True, kw_only=True)
class WindowSampling:
    """Which windows there are, and which of them an epoch takes."""

    shape: WindowShape
    kind: str = "grid"  # as `window.sampling` has it
    clips: ClipSampling | None = None  # of the kinds that take clips
    seed: int = 0
    per_epoch: int | None = None
    repeats: int = 1  # of each, side by side
    density: EventSettings = field(default_factory=EventSettings)  # of kind events

    @classmethod
    def of(cls, config: WindowedSettings, *, repeats: int = 1) -> WindowSampling:
        """As the settings say."""
        window = config.window
        shape = WindowShape(**window.model_dump(include=set(SHAPE_FIELDS)))
        return cls(
            shape=shape,
            kind=window.sampling,
            clips=clip_sampling(window.sampling, shape, segments=window.segments, segment_rule=window.segment_rule),
            seed=config.seed,
            per_epoch=window.per_epoch,
            repeats=repeats,
            density=window.events,
        )

    @property
    def is_whole(self) -> bool:
        """Whether each clip stands for all of its video, however short that is."""
        return self.clips is not None and self.clips.kind in WHOLE


@dataclass(frozen=True, kw_only=True)
class WindowData:
    """What is learned from and validated on."""

    train: LabelledWindows
    draws: EpochSampler  # of train, in an epoch
    val: LabelledWindows
    counts: npt.NDArray[np.int64]  # (K,) targets of train by class
    shape: WindowShape

    def train_batches(self, make: Callable[..., B], config: LearningSettings, world: World) -> B:
        """Batches to learn from: what ``make``, a kind of `LabelledBatches`, makes of the windows."""
        return self._batches(make, self.train, config, world, draws=self.draws, drop_last=config.drop_last)

    def val_batches(self, make: Callable[..., B], config: LearningSettings, world: World) -> B | None:
        """Batches to validate on; None without any window."""
        return self._batches(make, self.val, config, world) if len(self.val) else None

    def _batches(
        self, make: Callable[..., B], of: LabelledWindows, config: LearningSettings, world: World, **how: Any
    ) -> B:
        return make(
            windows=of.windows,
            targets=of.targets,
            shape=self.shape,
            batch_size=config.batch_size,
            world=world,
            **how,
        )


def find_windows(
    work: Work,
    rows: KnownRows,
    *,
    config: LearningSettings,
    sampling: WindowSampling,
    task: Task,
    note: Callable[[str], None],
) -> WindowData:
    """The windows of ``config.train_splits`` and ``val_splits``; ``note`` is told what is left out or amiss.

    Raises InputError where there is nothing to learn from, or what there is cannot be scored or balanced.
    """
    train_videos = distinct_videos(work.payload, splits=config.train_splits)
    val_videos = distinct_videos(work.payload, splits=config.val_splits)
    shape, clips = sampling.shape, sampling.clips
    try:
        train, draws = drawn_windows(train_videos, rows, sampling=sampling, task=task)
        val = label_windows(val_videos, rows, shape=shape, task=task, clips=clips)
        counts = task.counts(train.targets)
        task.check_validation(val.targets)
        warning = check_classes(counts, task.labels, balanced_by=_balanced_by(config, sampling))
    except InputError as error:
        raise InputError(f"{work.node}: {error}") from error
    if warning:
        note(warning)
    note(f"{len(train)} windows to train on, {len(val)} to validate on")
    if not sampling.is_whole:
        is_drawn = sampling.kind != "grid"
        for line in left_out_warnings(train_videos, val_videos, rows, shape=shape, clips=clips, is_drawn=is_drawn):
            note(line)
    problem = windows_miss_events(sampling.density, shape) if sampling.kind == "events" else None
    if problem is not None:
        note(f"warning: window.events: {problem}")
    return WindowData(train=train, draws=draws, val=val, counts=counts, shape=shape)


def drawn_windows(
    videos: Sequence[LabelledVideo], rows: KnownRows, *, sampling: WindowSampling, task: Task
) -> tuple[LabelledWindows, EpochSampler]:
    """Candidates to train on, and what an epoch takes of them. Raises InputError where there is nothing to draw."""
    shape = sampling.shape
    found = label_windows(videos, rows, shape=shape, task=task, clips=sampling.clips)
    if len(found) == 0:
        raise no_windows(videos, rows, shape)
    if not sampling.is_whole:
        check_reach(videos, rows, shape)
    draws = EpochSampler(seed=sampling.seed, per_epoch=sampling.per_epoch, repeats=sampling.repeats)
    num_rows = [len(spans.start_seconds) for spans in rows.spans]
    if sampling.clips is not None:
        return found, replace(draws, clips=DrawnClips(sampling.clips, np.array(num_rows)))
    if sampling.kind == "grid":
        return found, draws
    every_start = WindowShape(length=shape.length, dilation=shape.dilation, short=shape.short)
    every = label_windows(videos, rows, shape=every_start, task=task)
    weights = None  # of kinds all and random
    if sampling.kind == "per_video":
        weights = per_video_weights(every.windows)
    elif sampling.kind == "balanced":
        weights = balanced_weights(every.targets)
    elif sampling.kind == "events":
        events = event_rows(videos, rows)
        weights = event_weights(every.windows, num_rows, every_start, events=events, how=sampling.density)
    per_epoch = sampling.per_epoch or (None if sampling.kind == "all" else len(found))
    return every, replace(draws, per_epoch=per_epoch, weights=weights)


def _balanced_by(config: LearningSettings, sampling: WindowSampling) -> str | None:
    """The setting that wants all classes alike, if there is one."""
    if sampling.kind == "balanced":
        return "window.sampling: balanced"
    return "loss.class_weights: balanced" if config.loss.is_balanced else None


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
