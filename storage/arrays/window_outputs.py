"""What a model says beside its scores of the windows of a prediction: attention, and other outputs that are kept.

    attention/<spec key>.zarr/                  attributes: spec, window, kept (names of the outputs)
        <video digest>/                         window W of the predictions
            space (W, T, h, w) float16, time (W, T) float32, ...    `attention.space`, `attention.time`; others by name
            row (W, T) int64                    the row that stood at each place of the window, -1 where it was padded
            row_seconds (W, T) float64          where that row begins, in presentation time
            row_source (W, T) int64             its first source frame
            start_seconds, stop_seconds, source_start, source_stop (W,)     half-open span of the window

It is written as embeddings are, a window in place of a row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reelwright.storage.arrays.embedding_writer import EmbeddingWriter, RowLayout
from reelwright.storage.arrays.embeddings import EmbeddingRows, EmbeddingStore, Rows
from reelwright.storage.arrays.spans import Spans
from reelwright.storage.errors import StoreError

ATTENTION = "attention."  # begins names of outputs that are stored without it
PLACES = {"row": "int64", "row_seconds": "float64", "row_source": "int64"}
_MAP_AXES = 3  # T, h, w: of outputs with so many axes a window there is much, so that they are halved


@dataclass(frozen=True)
class WindowPlaces:
    """Which rows stand in N windows of T places; at padding ``row`` is -1, the rest as of the last real row."""

    row: npt.NDArray[np.int64]
    row_seconds: npt.NDArray[np.float64]
    row_source: npt.NDArray[np.int64]


def array_name(output: str) -> str:
    """What the array of an output is called."""
    return output.removeprefix(ATTENTION)


class WindowOutputWriter:
    """Writes kept outputs under one spec: begin, add ..., finish for each video; a shard of each is in memory."""

    def __init__(
        self, path: Path, attributes: Mapping[str, Any], *, shapes: Mapping[str, tuple[int, ...]], length: int
    ) -> None:
        """``shapes`` of one window of each output by its name, ``length`` T of the windows.

        Raises StoreError when the group holds outputs of another spec.
        """
        self._names = {output: array_name(output) for output in shapes}
        outputs = {name: shapes[output] for output, name in self._names.items()}
        layout = RowLayout(
            outputs={**outputs, **dict.fromkeys(PLACES, (length,))},
            dtypes={
                **{name: "float16" if len(shape) >= _MAP_AXES else "float32" for name, shape in outputs.items()},
                **PLACES,
            },
            axes={
                **{n: _axes(shape, length=length) for n, shape in outputs.items()},
                **dict.fromkeys(PLACES, ("time",)),
            },
            row_axis="window",
        )
        self._writer = EmbeddingWriter.create(path, {**attributes, "kept": list(shapes)}, layout=layout)
        self._waiting: dict[str, list[tuple[dict[str, Rows], Spans]]] = {}
        self._written: dict[str, int] = {}

    def note(self, attributes: Mapping[str, Any]) -> None:
        """Plain data that goes with every video that begins from now on (`EmbeddingRows.attributes`)."""
        self._writer.item_attributes = dict(attributes)

    def begin(self, digest: str, *, num_windows: int) -> None:
        """Make the arrays of a video; what an interrupted run left of them is written again."""
        self._writer.begin(digest, num_rows=num_windows)
        self._waiting[digest], self._written[digest] = [], 0

    def add(self, digest: str, outputs: Mapping[str, Rows], places: WindowPlaces, spans: Spans) -> None:
        """The next windows of a video, in order. Raises ValueError for values that the stored type does not hold."""
        arrays: dict[str, Rows] = dict(vars(places))
        for output, name in self._names.items():
            with np.errstate(over="ignore"):
                arrays[name] = outputs[output].astype(self._writer.layout.dtype_of(name))
            if not np.isfinite(arrays[name]).all():
                raise ValueError(f"{output} holds NaN or infinity as {arrays[name].dtype}")
        self._waiting[digest].append((arrays, spans))
        self._write_full(digest, is_last=False)

    def finish(self, digest: str) -> int:
        """Publish a video of which all windows came. Returns its bytes on disk."""
        self._write_full(digest, is_last=True)
        del self._waiting[digest]
        return self._writer.finish(digest, num_rows=self._written.pop(digest))

    def _write_full(self, digest: str, *, is_last: bool) -> None:
        """Write the shards that are full, and the last one as it is."""
        size, waiting = self._writer.shard_rows(digest), self._waiting[digest]
        count = sum(len(spans.start_seconds) for _, spans in waiting)
        if not count or (count < size and not is_last):
            return
        arrays = {name: np.concatenate([part[name] for part, _ in waiting]) for name in waiting[0][0]}
        spans = Spans.join([spans for _, spans in waiting])
        whole = count if is_last else count // size * size
        for start in range(0, whole, size):
            part = slice(start, min(start + size, whole))
            index = (self._written[digest] + start) // size
            values = {name: array[part] for name, array in arrays.items()}
            self._writer.write_shard(digest, index, arrays=values, spans=spans.take(part))
        self._written[digest] += whole
        rest = slice(whole, None)
        self._waiting[digest] = [({name: array[rest] for name, array in arrays.items()}, spans.take(rest))]


class WindowOutputs(EmbeddingRows):
    """The kept outputs of one video's windows: `output(name)` (W, ...), `spans` of the windows, and their rows."""

    remedy = "Ask the predict node for it with `keep`."

    @property
    def num_windows(self) -> int:
        """W, as many as the predictions have of this video."""
        return self.num_rows

    @property
    def places(self) -> WindowPlaces:
        """Which rows stand in each window, where these begin in seconds, and their first source frames; (W, T) each."""
        return WindowPlaces(*(super(WindowOutputs, self).output(name) for name in PLACES))

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """(W, T), True where a window has a real row."""
        found: npt.NDArray[np.bool_] = super().output("row") >= 0
        return found

    def output(self, name: str, start: int = 0, stop: int | None = None) -> Rows:
        """Windows [start, stop) of one output, by the model's name of it (`attention.space`) or that of its array."""
        return super().output(array_name(name), start, stop)


class WindowOutputStore(EmbeddingStore):
    """One spec's kept outputs, for reading. ``path`` is its Zarr group (`Store.attention(key)`)."""

    opens = WindowOutputs
    missing = "no kept outputs in {path}. Is it in the manifest, and did predict succeed?"

    @property
    def kept(self) -> tuple[str, ...]:
        """Names of the outputs, as the model calls them."""
        return tuple(self.spec["kept"])

    def rows(self, digest: str) -> WindowOutputs:
        """The kept outputs of one video. Raises StoreError when it has none."""
        found = super().rows(digest)
        assert isinstance(found, WindowOutputs)
        return found


def check_names(outputs: Sequence[str]) -> None:
    """Raise StoreError where two outputs would be stored under one name."""
    names = [array_name(output) for output in outputs]
    for name in names:
        if names.count(name) > 1 or name in {*PLACES, "start_seconds", "stop_seconds", "source_start", "source_stop"}:
            raise StoreError(f"output {name!r} cannot be kept: its name is taken in the store ({', '.join(outputs)})")


def _axes(shape: Sequence[int], *, length: int) -> tuple[str, ...]:
    """Names of the axes of a window, as far as the shape tells: maps of an output are a grid a row."""
    inner = {1: ("feature",), 2: ("height", "width")}
    if not shape or shape[0] != length:
        return tuple(f"axis{number}" for number in range(len(shape)))
    return ("time", *inner.get(len(shape) - 1, tuple(f"axis{number}" for number in range(1, len(shape)))))
