"""Which frames pretrain learns from and of which state each is: plain arithmetic over labels and times.

label    s1 s1 s1 s1 s1 s2 s2 s2 s2 s2       rows of a video; s2 begins at row 5
class     1  1  .  .  .  2  2  .  .  .       key frames of 2 rows
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reelwright.models.systems.key_frames import key_frames
from reelwright.stages.datasets.labelled import LabelledVideo
from reelwright.stages.pretrain.config import PretrainConfig
from reelwright.storage.arrays.spans import Spans, row_labels
from reelwright.storage.errors import ConfigError, InputError, nearest
from reelwright.storage.tables.annotations import UNKNOWN, Annotation

BACKGROUND = 0  # class of frames of no state; states count from 1
IntArray = npt.NDArray[np.int64]
_IGNORED, _OTHER = -1, 0  # as states of one component, for `key_frames`


@dataclass(frozen=True)
class Examples:
    """N frames and the class of each; int64 (N,) each."""

    video: IntArray  # position of the video among those considered
    row: IntArray
    label: IntArray

    def __len__(self) -> int:
        return len(self.label)

    @classmethod
    def joined(cls, parts: Sequence[Examples]) -> Examples:
        """All of ``parts``, in their order."""
        empty = np.zeros(0, dtype=np.int64)
        columns = ([getattr(part, name) for part in parts] for name in ("video", "row", "label"))
        return cls(*(np.concatenate([empty, *column]) for column in columns))


@dataclass(frozen=True)
class StateClasses:
    """Names of the states, and what each label of the pipeline counts as: a class from 1, 0 (none) or -1 (ignored)."""

    names: tuple[str, ...]
    of_label: tuple[int, ...]


def state_classes(config: PretrainConfig, labels: Sequence[str], *, background: int) -> StateClasses:
    """The states among ``labels``. Raises ConfigError for a name that is no label, or where no state is left."""
    for name in config.states or ():
        if name not in labels:
            raise ConfigError(f"states: {name!r} is no label.{nearest(name, labels)} Labels: {', '.join(labels[:20])}")
    no_states = {*config.others, *config.ignored} | ({labels[background]} if background != UNKNOWN else set())
    names = config.states or tuple(name for name in labels if name not in no_states)
    if len(names) < 2:
        raise ConfigError(f"pretrain needs two states to tell apart; there are {', '.join(names) or 'none'}")
    numbers = {name: position for position, name in enumerate(names, start=1)} | dict.fromkeys(config.ignored, _IGNORED)
    return StateClasses(names, tuple(numbers.get(name, _OTHER) for name in labels))


def find_examples(
    videos: Sequence[LabelledVideo],
    rows: Mapping[str, tuple[int, Spans]],
    *,
    config: PretrainConfig,
    states: StateClasses,
    every_frame: bool = False,
) -> Examples:
    """The examples of ``videos``; ``rows`` has of each digest its position and where its rows lie.

    With ``every_frame`` (as of synthetic pictures) or sampling: all each frame is one.
    """
    is_dense = every_frame or config.sampling == "all"
    parts = []
    for video in videos:
        if video.digest in rows:
            position, spans = rows[video.digest]
            found = _all(video.annotation, spans, states) if is_dense else _key(video.annotation, spans, config, states)
            parts.append(Examples(np.full(len(found[0]), position, dtype=np.int64), *found))
    return Examples.joined(parts)


def label_starts(annotation: Annotation) -> list[tuple[float, int]]:
    """(seconds, label) at which each label begins, in order of time.

    Raises InputError for labels of single frames by number: nothing says how long they hold.
    """
    if annotation.frames:
        raise InputError("key frames need the times at which states begin; give rows with time_seconds, or segments")
    return sorted(annotation.times) or sorted((start, label) for start, _, label in annotation.segments)


def _key(
    annotation: Annotation, spans: Spans, config: PretrainConfig, states: StateClasses
) -> tuple[IntArray, IntArray]:
    """Rows and classes of key frames and of the background before them."""
    starts, num_rows = label_starts(annotation), len(spans.start_seconds)
    if not starts or num_rows == 0:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    times = np.array([time for time, _ in starts])
    # the first row that begins with the state or after it; a hair of time is rounding
    first = np.searchsorted(spans.start_seconds, times - 1e-6).tolist()
    seconds_per_row = (spans.stop_seconds[-1] - spans.start_seconds[0]) / num_rows
    listed = [(row, (states.of_label[label],)) for row, (_, label) in zip(first, starts, strict=True)]
    found = key_frames(
        [entry for entry in listed if entry[0] < num_rows],
        [(number,) for number in range(1, len(states.names) + 1)],
        num_frames=num_rows,
        length=max(1, round(config.key_frames.seconds / seconds_per_row)),
        exclude_errors=True,
        negatives_from=config.key_frames.negatives_from,
    )
    classes = np.concatenate([found.classes, np.full(len(found.negatives), BACKGROUND, dtype=np.int64)])
    return np.concatenate([found.frames, found.negatives]), classes


def _all(annotation: Annotation, spans: Spans, states: StateClasses) -> tuple[IntArray, IntArray]:
    labels = row_labels(annotation, spans)
    classes = np.array([*states.of_label, BACKGROUND], dtype=np.int64)[labels]  # the last one is UNKNOWN's
    used = np.flatnonzero(classes != _IGNORED)
    return used, classes[used]
