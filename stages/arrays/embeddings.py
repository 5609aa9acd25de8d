"""Stored embeddings with their times and labels: as NumPy, torch, pandas or xarray, and drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from reelwright.stages.arrays.tables import SHOWN, as_frame, draw_points, frame_of, html_table, required
from reelwright.stages.datasets.embedded import chosen_output
from reelwright.stages.export.embeddings import axis_names
from reelwright.storage.arrays.embeddings import EmbeddingRows, EmbeddingStore
from reelwright.storage.arrays.spans import row_labels
from reelwright.storage.errors import ConfigError, nearest
from reelwright.storage.tables.annotations import UNKNOWN, Annotation

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

UNKNOWN_LABEL = "not known"  # in pictures; in tables it is null


@dataclass(frozen=True, kw_only=True)
class EmbeddedVideo:
    """What is known of a video beside its rows."""

    video_id: str
    digest: str
    split: str
    annotation: Annotation


class VideoEmbeddings(EmbeddingRows):
    """The rows of one video. Arrays are read when asked for."""

    video: EmbeddedVideo
    main: str  # the output that is meant where none is named
    classes: tuple[str, ...]
    background: int
    of_views: bool  # a row is several views of its frame

    @property
    def rows(self) -> npt.NDArray[Any]:
        """The rows (T, D) in the stored dtype (float16 or float32); (T, N, D) of tokens, (T, C, h, w) of maps."""
        return self.output(self.main)

    @property
    def times(self) -> npt.NDArray[np.float64]:
        """Start and stop (half-open) of each row in seconds of presentation time, float64 (T, 2)."""
        spans = self.spans
        return np.stack([spans.start_seconds, spans.stop_seconds], axis=1)

    @property
    def labels(self) -> list[str | None]:
        """The class at the middle of each row (T,), or the video's own; None where none is known."""
        ids = row_labels(self.video.annotation, self.spans, background=self.background)
        return [None if label == UNKNOWN else self.classes[label] for label in ids.tolist()]

    def torch(self, output: str | None = None) -> Tensor:
        """The rows as a tensor in the stored dtype; a copy, on the CPU."""
        import torch

        return torch.from_numpy(self.output(output or self.main))

    def to_pandas(self, output: str | None = None) -> Any:
        """A line a row: video_id, split, row, start_seconds, stop_seconds, label, feature_0 ... feature_{D-1}.

        Features are float32. Without pandas a `pyarrow.Table`. Raises ConfigError for tokens and maps, whose rows are
        not (D,).
        """
        return as_frame(self.table(output))

    def table(self, output: str | None = None) -> pa.Table:
        """The same as a `pyarrow.Table`."""
        name = output or self.main
        rows_TD, times = self.output(name), self.times
        if rows_TD.ndim != 2:
            raise ConfigError(
                f"output {name!r} has rows of shape {rows_TD.shape[1:]}; a table has a column a feature, of (D,). Take "
                "output(name), or to_xarray(name)"
            )
        count = len(rows_TD)
        known = {
            "video_id": pa.array([self.video.video_id] * count, pa.string()),
            "split": pa.array([self.video.split] * count, pa.string()),
            "row": pa.array(np.arange(count)),
            "start_seconds": pa.array(times[:, 0]),
            "stop_seconds": pa.array(times[:, 1]),
            "label": pa.array(self.labels, pa.string()),
        }
        values_DT = rows_TD.T.astype(np.float32)  # many programs cannot count with float16
        return pa.table(known | {f"feature_{place}": pa.array(column) for place, column in enumerate(values_DT)})

    def to_xarray(self, output: str | None = None) -> Any:
        """The rows as an `xarray.DataArray` (time, ...), with start, stop and label as coordinates of ``time``.

        ``time`` is the start of each row in seconds. Raises UnusableMachineError without xarray.
        """
        xarray = required("xarray", extra="xarray", wanted_by="to_xarray")
        values, times = self.output(output or self.main), self.times
        names = axis_names(values.shape[1:], of_views=self.of_views)
        labels = np.array([label or "" for label in self.labels], dtype=np.str_)
        return xarray.DataArray(
            values,
            dims=("time", *names),
            coords={"time": times[:, 0], "stop_seconds": ("time", times[:, 1]), "label": ("time", labels)},
            name=output or self.main,
            attrs={"video_id": self.video.video_id, "split": self.video.split},
        )

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name} {(self.num_rows, *self.row_shape(name))}" for name in self.outputs)
        return f"<embeddings of {self.video.video_id!r}: {shapes}>"


class _Store(EmbeddingStore):
    opens = VideoEmbeddings


class Embeddings(Mapping[str, VideoEmbeddings]):
    """The embeddings of a node, by video_id: those of its videos that have some."""

    def __init__(
        self, path: Path, videos: Callable[[set[str]], Sequence[EmbeddedVideo]], *, labels: Any, node: str
    ) -> None:
        """``videos`` gives those of some digests; ``labels`` has ``classes`` and ``background`` of their annotations.

        Raises StoreError where nothing is stored.
        """
        self.node = node
        self._store = _Store(path)
        self._labels = labels
        self._videos = {video.video_id: video for video in videos(set(self._store.digests()))}

    @property
    def spec(self) -> dict[str, Any]:
        """What made these rows: encoder, digest of its weights, preprocessing, outputs with their shapes, dtype."""
        return self._store.spec

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, by label id."""
        return tuple(self._labels.classes)

    def __getitem__(self, video_id: str) -> VideoEmbeddings:
        """The rows of one video. Raises KeyError that names the nearest."""
        if video_id not in self._videos:
            raise KeyError(
                f"no rows of video {video_id!r}.{nearest(video_id, self._videos)} {len(self._videos)} have some"
            )
        video = self._videos[video_id]
        rows = self._store.rows(video.digest)
        assert isinstance(rows, VideoEmbeddings)
        rows.video, rows.main = video, chosen_output(self._store, None, node=self.node)
        rows.classes, rows.background = self.classes, self._labels.background
        rows.of_views = "views" in self.spec
        return rows

    def __iter__(self) -> Iterator[str]:
        return iter(self._videos)

    def __len__(self) -> int:
        return len(self._videos)

    def to_pandas(self, output: str | None = None) -> Any:
        """The tables of all videos, one after the other (see `VideoEmbeddings.to_pandas`); all rows are in memory."""
        return as_frame(pa.concat_tables(rows.table(output) for rows in self.values()))

    def summary(self) -> Any:
        """A line a video: video_id, split, rows, start_seconds, stop_seconds."""
        found: dict[str, list[Any]] = {
            name: [] for name in ("video_id", "split", "rows", "start_seconds", "stop_seconds")
        }
        for name, rows in self.items():
            times = rows.times
            cells = (name, rows.video.split, len(times), float(times[0, 0]), float(times[-1, 1]))
            for column, cell in zip(found.values(), cells, strict=True):
                column.append(cell)
        return frame_of(found)

    def plot(
        self, *, output: str | None = None, method: str = "pca", rows: int = 2000, seed: int = 0, ax: Any = None
    ) -> Figure:
        """Rows in the plane, coloured by label: a matplotlib figure.

        ``method`` is pca, tsne or umap (where umap-learn is installed), ``rows`` how many are drawn, evenly spread over
        the videos. As in the map of a report. Raises ConfigError for another method, or where fewer than three rows
        are stored, UnusableMachineError without matplotlib.
        """
        from reelwright.stages.evaluate.config import MapSettings
        from reelwright.stages.evaluate.embedding_map import METHODS, embedding_map

        if method not in METHODS:
            raise ConfigError(f"method {method!r} is not known.{nearest(method, METHODS)} Known: {', '.join(METHODS)}")
        settings = MapSettings.model_validate(
            {
                "method": method,
                "output": output or chosen_output(self._store, None, node=self.node),
                "rows": rows,
                "seed": seed,
            }
        )
        found = embedding_map(
            self._store, {video.digest: self._label_at(name) for name, video in self._videos.items()}, settings=settings
        )
        if found is None:
            raise ConfigError(f"{self.node} has fewer than three rows, which make no picture")
        return draw_points(*found, title=f"{self.node}: {len(found[1])} rows, {method}", ax=ax)

    def _label_at(self, name: str) -> Callable[[float], str]:
        """The class at a time of a video, from the labels of its rows."""
        rows = self[name]
        labels, middle = rows.labels, rows.times.mean(axis=1)

        def at(seconds: float) -> str:
            return labels[int(np.abs(middle - seconds).argmin())] or UNKNOWN_LABEL

        return at

    def __repr__(self) -> str:
        outputs = ", ".join(f"{name} {tuple(shape)}" for name, shape in self.spec["outputs"].items())
        return f"<embeddings of {self.node}: {len(self)} videos, rows of {outputs} ({self.spec['dtype']})>"

    def _repr_html_(self) -> str:
        rows = [(name, video.split) for name, video in self._videos.items()]
        return html_table(("video_id", "split"), rows, title=repr(self).strip("<>"), most=SHOWN)
