"""Key-frame sampling: which frames of a recording stand for which assembly state, from the state labels alone.

STORM-PSR (Hung et al. 2025): right after a completion the new state is to be seen, though nobody labelled those frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reelwright.models.systems.step_states import State, without_errors

Frames = npt.NDArray[np.int64]
ANCHORS = ("first", "last")


@dataclass(frozen=True)
class KeyFrames:
    """Frames of one recording; one may occur more than once."""

    frames: Frames  # (N,) in the order of the classes
    classes: Frames  # (N,) index of the state, from 1
    negatives: Frames  # (M,) background that looks nearly alike, class 0


def key_frames(
    rows: Sequence[tuple[int, State]],
    states: Sequence[State],
    *,
    num_frames: int,
    length: int = 20,
    exclude_errors: bool = True,
    negatives_from: str = "first",
) -> KeyFrames:
    """Frames f ... f + ``length`` - 1 of every row (frame f, state) whose state is among ``states``, and negatives.

    The class of ``states[i]`` is i + 1. With ``exclude_errors`` a row with a -1 gives nothing at all, else -1 is taken
    for 0. Negatives are the frames from 7 to 6 lengths before a row, also of rows whose state has no class: before its
    first frame (`first`, as the paper says) or before the last of its positives (`last`, as the public code does).
    Frames before 0 and from ``num_frames`` on are left out. Raises ValueError for an unknown ``negatives_from``.
    """
    if negatives_from not in ANCHORS:
        raise ValueError(f"negatives_from {negatives_from!r} is not known; choose {' or '.join(ANCHORS)}.")
    known = {tuple(state): index for index, state in reversed(list(enumerate(states, start=1)))}
    used = [(frame, state) for frame, state in rows if not (exclude_errors and -1 in state)]
    classed = sorted(((known.get(without_errors(state), 0), frame) for frame, state in used), key=lambda row: row[0])
    frames, classes, negatives = [_EMPTY], [_EMPTY], [_EMPTY]
    for class_id, frame in classed:
        own = np.arange(frame, max(frame, min(num_frames, frame + length)), dtype=np.int64)
        if class_id:
            frames.append(own)
            classes.append(np.full(len(own), class_id, dtype=np.int64))
        anchor = int(own[-1]) if negatives_from == "last" and len(own) else frame
        negatives.append(np.arange(max(0, anchor - 7 * length), max(0, anchor - 6 * length), dtype=np.int64))
    return KeyFrames(np.concatenate(frames), np.concatenate(classes), np.concatenate(negatives))


_EMPTY: Frames = np.empty(0, dtype=np.int64)
