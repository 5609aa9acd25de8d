"""Attention that people edit: what a table says of times and boxes, as tensors beside the rows of each window.

    attention_edit.time   (B,T,2)       attention in time  M becomes M * [..., 0] + [..., 1], within [0, 1]
    attention_edit.space  (B,T,h,w,2)   attention in space S likewise

Models change attention before it gates what they see, and give what they used (models/blocks/attention_branch.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from reelwright.stages.base.inputs import unchanged_sources
from reelwright.stages.base.work import Work
from reelwright.stages.datasets.labelled import payload_videos
from reelwright.storage.arrays.spans import IntArray, Spans
from reelwright.storage.errors import ConfigError
from reelwright.storage.tables.attention_edits import AttentionEdit, read_attention_edits

SPACE, TIME = "attention.space", "attention.time"
_INPUT = {SPACE: "attention_edit.space", TIME: "attention_edit.time"}
_TRIAL = 0.25  # exact in every floating type


class AttentionEdits:
    """The edits of all videos, by the digest of their content."""

    def __init__(self, edits: Mapping[str, Sequence[AttentionEdit]], *, elsewhere: Sequence[str] = ()) -> None:
        """``elsewhere`` names the videos of the table that are not predicted."""
        self._edits, self._elsewhere = edits, elsewhere
        self._grid: tuple[int, int] | None = None  # of maps, where attention in space is edited
        self._num_places: dict[str, int] = {}  # along time, of what is edited
        self._unused = {edit.line: digest for digest, found in edits.items() for edit in found}

    @property
    def edited(self) -> tuple[str, ...]:
        """Names of the outputs that some edit changes."""
        is_boxed = {edit.box is not None for edits in self._edits.values() for edit in edits}
        return tuple(name for name, boxed in ((SPACE, True), (TIME, False)) if boxed in is_boxed)

    def check(
        self,
        forward: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]],
        trial: Mapping[str, Tensor],
        *,
        length: int,
    ) -> None:
        """Try the edits on one window of ``length`` rows. ``forward`` takes them, ``trial`` are the outputs without.

        Raises ConfigError where the model does not do as it is told, its places in time are not of as many rows each,
        or a box covers no place of its maps.
        """
        for name in self.edited:
            values = trial.get(name)
            changes = torch.zeros(*(() if values is None else values.shape), 2)
            changes[..., 1] = _TRIAL
            if values is None or not torch.all(forward({_INPUT[name]: changes})[name] == _TRIAL):
                raise ConfigError(
                    f"edit_attention: the model has no {name} that can be edited. Models that do: attention_branch, "
                    "st_abn, and plug-ins that take attention_edit.*"
                )
            self._num_places[name] = int(values.shape[1])
            if length % self._num_places[name]:
                raise ConfigError(
                    f"edit_attention: {name} has {values.shape[1]} places in time for windows of {length} rows; each "
                    "must be of whole rows. Set window.length to a multiple"
                )
            if name == SPACE:
                self._grid = int(values.shape[2]), int(values.shape[3])
                self._check_boxes(self._grid)

    def _check_boxes(self, grid: tuple[int, int]) -> None:
        for edits in self._edits.values():
            for edit in edits:
                if edit.box is not None and not _covered(edit.box, grid).any():
                    raise ConfigError(
                        f"edit_attention: row {edit.line}: the box covers the middle of no place of the model's maps, "
                        f"which have {grid[0]} x {grid[1]} (height x width); make it larger"
                    )

    def inputs(
        self, digests: Sequence[str], spans: Sequence[Spans], rows: IntArray, is_real: npt.NDArray[np.bool_]
    ) -> dict[str, Tensor]:
        """What stands beside the rows (B,T) of windows, whose videos and their spans are given for each.

        A place in time that is of several rows (an encoder of clips gives one of the whole window) lies from the first
        to the last of them. Nothing where none of the videos is edited.
        """
        if not any(digest in self._edits for digest in digests):
            return {}
        changes = {}
        for name, count in self._num_places.items():
            changes[name] = np.zeros((len(rows), count, *((self._grid or ()) if name == SPACE else ()), 2), np.float32)
            changes[name][..., 0] = 1
        for window, digest in enumerate(digests):
            for edit in self._edits.get(digest, ()):
                values = changes[TIME if edit.box is None else SPACE][window]
                grouped = rows[window].reshape(len(values), -1)
                start, stop = spans[window].start_seconds, spans[window].stop_seconds
                middle = (start[grouped[:, 0]] + stop[grouped[:, -1]]) / 2
                places = (edit.start_seconds <= middle) & (middle < edit.stop_seconds)
                if (places & is_real[window].reshape(len(values), -1).any(axis=1)).any():
                    self._unused.pop(edit.line, None)
                _apply(edit, values, places, self._grid)
        return {_INPUT[name]: torch.from_numpy(values) for name, values in changes.items()}

    def warnings(self, digests: Collection[str]) -> list[str]:
        """Which rows of the table changed no window of these videos, and which videos of it are not predicted."""
        lines = sorted(line for line, digest in self._unused.items() if digest in digests)
        found = [f"row {line} changes nothing: no row of a window lies in its time" for line in lines]
        if self._elsewhere:
            found.append(f"not predicted are {', '.join(self._elsewhere)} (of other splits, or without rows)")
        return [f"warning: edit_attention: {text}" for text in found]


def read_edits(work: Work) -> AttentionEdits:
    """The edits that a predict node names, of the videos that it has.

    Raises InputError for a table that is wrong, ConfigError for a video whose copy under another name is edited
    otherwise: scores are of contents, whatever they are called.
    """
    with unchanged_sources(work):
        edits = read_attention_edits(Path(str(work.config["edit_attention"])))
    names: dict[str, list[str]] = defaultdict(list)
    for video in payload_videos(work.payload):
        names[video.digest].append(video.video_id)
    found: dict[str, Sequence[AttentionEdit]] = {}
    for digest, copies in names.items():
        if len({_changes(edits.get(name, ())) for name in copies}) > 1:
            raise ConfigError(
                f"{work.node}: edit_attention: {' and '.join(copies)} are copies of one video, which has one score; "
                "give all of them the same edits"
            )
        if copies[0] in edits:
            found[digest] = edits[copies[0]]
    predicted = {name for copies in names.values() for name in copies}
    return AttentionEdits(found, elsewhere=tuple(name for name in edits if name not in predicted))


def _changes(edits: Sequence[AttentionEdit]) -> tuple[object, ...]:
    """What they do, wherever they stand in the table."""
    return tuple((e.start_seconds, e.stop_seconds, e.weight, e.replaces, e.box) for e in edits)


def _apply(
    edit: AttentionEdit, changes: npt.NDArray[np.float32], places: npt.NDArray[np.bool_], grid: tuple[int, int] | None
) -> None:
    """Change factors and summands (T, ..., 2) at some places, after the edits before."""
    chosen = places if edit.box is None else places[:, None, None] & _covered(edit.box, grid or (0, 0))
    if edit.replaces:
        changes[chosen] = [0, edit.weight]
    else:
        changes[chosen] *= edit.weight


def _covered(box: tuple[float, float, float, float], grid: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Which places (h, w) of a map have their middle in a box."""
    y, x = ((np.arange(size) + 0.5) / size for size in grid)
    x0, y0, x1, y1 = box
    return ((y0 <= y) & (y < y1))[:, None] & ((x0 <= x) & (x < x1))
