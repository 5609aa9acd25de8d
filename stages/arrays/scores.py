"""Scores of windows, rows and videos: published ones of a node, and those of a model in memory; one interface."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from reelwright.stages.arrays.tables import SHOWN, as_frame, draw_lines, html_table
from reelwright.stages.datasets.tasks.registry import TASKS as TASK_KINDS
from reelwright.stages.datasets.tasks.task import Task
from reelwright.stages.export.scores_file import plain_scores
from reelwright.stages.predict.merging import merge_windows
from reelwright.storage.errors import ConfigError, InputError
from reelwright.storage.results.predictions import (
    TABLES,
    PredictedVideo,
    PredictionInfo,
    PredictionSet,
    Scored,
    scored_table,
    scores_matrix,
)
from reelwright.storage.results.scores import VideoScores

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class _Tables(Protocol):
    @property
    def info(self) -> PredictionInfo: ...

    def windows(self) -> pa.Table: ...

    def videos(self) -> pa.Table: ...


class ScoreTables:
    """What scores are asked for, wherever their tables come from (columns: storage/results/predictions.py)."""

    @property
    def classes(self: _Tables) -> tuple[str, ...]:
        """Names of the K classes, in the order of the scores."""
        return self.info.classes

    @property
    def scores(self: _Tables) -> npt.NDArray[np.float32]:
        """Probabilities of all windows, float32 (W, K) in [0, 1], video by video."""
        return scores_matrix(self.windows())

    @property
    def times(self: _Tables) -> npt.NDArray[np.float64]:
        """Start and stop (half-open) of each window in seconds, float64 (W, 2); NaN where times are not known."""
        table = self.windows()
        return np.stack([table["start_seconds"].to_numpy(), table["stop_seconds"].to_numpy()], axis=1)

    @property
    def labels(self: _Tables) -> list[str]:
        """The best class of each window (W,)."""
        found: list[str] = self.windows()["label"].to_pylist()
        return found

    def to_pandas(self: Any, table: str = "windows") -> Any:
        """A line a window (``table`` windows), row (rows) or video (videos), with a column `score.CLASS` a class.

        Without pandas a `pyarrow.Table`. Raises ConfigError for another table, InputError for rows that are not there.
        """
        if table not in TABLES:
            raise ConfigError(f"table {table!r}: allowed are {', '.join(TABLES)}")
        return as_frame(plain_scores(getattr(self, table)(), self.info.classes))

    def plot(self: Any, video_id: str | None = None, *, ax: Any = None) -> Figure:
        """Probabilities of one video over time, of rows where these have some, else of windows: a matplotlib figure.

        Raises ConfigError where there are several videos and none is named, or for one that is not there.
        """
        names = self.videos()["video_id"].to_pylist()
        table = self.rows() if self.has_rows else self.windows()
        name = names[0] if video_id is None and len(names) == 1 else video_id
        if name not in names:
            raise ConfigError(f"video_id {video_id!r}: name one of {', '.join(map(str, names[:SHOWN]))}")
        chosen = table.filter(pa.array([found == name for found in table["video_id"].to_pylist()]))
        scores_WK = scores_matrix(chosen)
        ends = [chosen[name].to_numpy() for name in ("start_seconds", "stop_seconds")]
        seconds = (ends[0] + ends[1]) / 2 if self.has_rows else chosen["time_seconds"].to_numpy()
        is_known = bool(np.isfinite(seconds).all())
        return draw_lines(
            seconds if is_known else np.arange(len(seconds)),
            dict(zip(self.info.classes, scores_WK.T, strict=True)),
            title=f"{name}: probabilities",
            x_label="seconds" if is_known else "row" if self.has_rows else "window",
            ax=ax,
        )

    def __repr__(self: Any) -> str:
        counts = f"{self.videos().num_rows} videos, {self.windows().num_rows} windows"
        return f"<scores: {counts}, {len(self.info.classes)} classes, task {self.info.task}>"

    def _repr_html_(self: Any) -> str:
        table = self.videos()
        names = ("video_id", "label", "score")
        rows = list(zip(*(table[name].to_pylist() for name in names), strict=True))
        return html_table(names, rows, title=repr(self).strip("<>"), most=SHOWN)


class Predictions(ScoreTables, PredictionSet):
    """The predictions of a node: `windows`, `rows` and `videos` as pyarrow tables, and the same for pandas."""


@dataclass(frozen=True, repr=False)
class ModelScores(ScoreTables):
    """What a model gave for one video in memory."""

    info: PredictionInfo
    video: PredictedVideo
    found: VideoScores

    @classmethod
    def of(cls, task: Task, found: VideoScores, *, run: str, video_id: str) -> ModelScores:
        """The scores of a task; ``run`` is the key of the run that gave them."""
        labels = task.labels
        info = PredictionInfo(key="", run=run, task=task.published_as, classes=labels.classes, heads=labels.heads)
        return cls(info, PredictedVideo(video_id=video_id, digest="", split=""), found)

    @property
    def has_rows(self) -> bool:
        """Whether its rows have scores of their own."""
        return TASK_KINDS[self.info.task].is_sequence

    def windows(self) -> pa.Table:
        """A line a window."""
        return self._table("windows", self.found.window_columns(), self.found.scores)

    def rows(self) -> pa.Table:
        """A line a row that has a score. Raises InputError for a task that scores no rows."""
        if not self.has_rows:
            raise InputError(f"task {self.info.task} scores windows, not rows: take windows")
        places, scores = self.found.of_rows()
        spans = self.found.spans
        columns = {
            "row": places.astype(np.int32),
            "start_seconds": spans.start_seconds[places],
            "stop_seconds": spans.stop_seconds[places],
            "source_start": spans.source_start[places],
        }
        return self._table("rows", columns, scores)

    def videos(self) -> pa.Table:
        """One line: the mean over all windows."""
        count = len(self.found.start_row)
        return self._table("videos", {"num_windows": [count]}, merge_windows(self.found.scores))

    def _table(self, name: str, columns: dict[str, Any], scores: npt.NDArray[np.float32]) -> pa.Table:
        return scored_table(name, self.video, columns, info=self.info, scored=Scored(scores=scores))
