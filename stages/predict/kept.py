"""Outputs of the model that are kept for every window beside its scores: which there are, and writing them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from reelwright.models.temporal.options import kept_names
from reelwright.stages.datasets.sampling.windows import Windows
from reelwright.storage.arrays.spans import IntArray, Spans
from reelwright.storage.arrays.window_outputs import (
    ATTENTION,
    WindowOutputWriter,
    WindowPlaces,
    check_names,
)
from reelwright.storage.errors import ConfigError, StageError, StoreError

_WITH_TIME_AND_MORE = 2  # axes of a window's output that begin with time if the first is as long as the window


class KeptOutputs:
    """Takes the outputs of windows as they are computed, and stores those that are kept, video by video."""

    def __init__(
        self, path: Path, attributes: Mapping[str, Any], *, keep: Sequence[str], trial: Mapping[str, Tensor], run: str
    ) -> None:
        """``trial`` are the outputs of one window, of which ``keep`` names some; ``run`` is for messages.

        Raises ConfigError for a name that the model does not give, or that cannot be stored; StoreError where the store
        holds outputs of another spec.
        """
        try:
            self.names = kept_names(keep, tuple(trial))
            check_names(self.names)
        except (ValueError, StoreError) as error:
            raise ConfigError(f"keep: {error}") from None
        self._run = run
        shapes = {name: tuple(trial[name].shape[1:]) for name in self.names}
        length = attributes["window"]["length"]
        self._of_places = {name for name, shape in shapes.items() if _is_of_places(name, shape, length=length)}
        self._writer = WindowOutputWriter(path, attributes, shapes=shapes, length=length)
        self._missing: dict[str, int] = {}  # windows that are still to come, by video
        self._bytes: dict[str, int] = {}

    def see(self, geometry: Mapping[str, Any]) -> None:
        """Which part of a frame the model sees, a `decode.geometry.Geometry` as plain data; for who draws attention."""
        self._writer.note({"seen": geometry})

    def begin(self, digest: str, *, num_windows: int) -> None:
        """The windows of a video come next."""
        self._writer.begin(digest, num_windows=num_windows)
        self._missing[digest] = num_windows

    def add(
        self,
        digest: str,
        outputs: Mapping[str, Tensor],
        windows: Windows,
        *,
        rows: IntArray,
        is_real: npt.NDArray[np.bool_],
        last: IntArray,
        spans: Spans,
    ) -> None:
        """The outputs (N, ...) of the next windows of a video, whose places hold ``rows`` (N, T) where ``is_real``.

        ``last`` (N,) is the last row of each, ``spans`` are those of the video's rows. Values at padded places are 0.
        Raises StageError for values that are not finite.
        """
        arrays = {name: outputs[name].float().cpu().numpy() for name in self.names}
        for name in self._of_places:
            arrays[name][~is_real] = 0
        places = WindowPlaces(
            np.where(is_real, rows, -1), row_seconds=spans.start_seconds[rows], row_source=spans.source_start[rows]
        )
        first, final = spans.take(windows.start), spans.take(last)
        of_windows = replace(first, stop_seconds=final.stop_seconds, source_stop=final.source_stop)
        try:
            self._writer.add(digest, arrays, places, of_windows)
        except ValueError as error:
            raise StageError(f"of run {self._run} {error}; keep others, or train it again.") from error
        self._missing[digest] -= len(windows)
        if not self._missing[digest]:
            del self._missing[digest]
            self._bytes[digest] = self._writer.finish(digest)

    def take_bytes(self, digest: str) -> int:
        """Bytes on disk of a video of which all windows came."""
        return self._bytes.pop(digest)


def _is_of_places(name: str, shape: tuple[int, ...], *, length: int) -> bool:
    """Whether an output says something of every place of a window: attention does (models/contracts.py)."""
    return shape[:1] == (length,) and (name.startswith(ATTENTION) or len(shape) >= _WITH_TIME_AND_MORE)
