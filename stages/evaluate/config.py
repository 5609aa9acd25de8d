"""Settings of evaluate: which predictions are scored, and how."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from reelwright.stages.config import Settings, StageConfig, node_input, setting


class StepScoreSettings(Settings):
    """How completed steps are scored; of steps nodes only."""

    variant: Literal["corrected", "industreal", "storm"] = "corrected"
    """How steps are matched: the nearest in time, or as the public code of IndustReal or STORM-PSR has it."""
    pos_tie_window: PositiveFloat | None = None
    """Frames (without fps in the procedure: seconds) within which a swapped order is mended before POS; null: never."""
    videos: NonNegativeInt = 0
    """Recordings of which a video with the steps written below it is made, the worst ones first."""


class MapSettings(Settings):
    """The map of embeddings in the report."""

    method: Literal["pca", "tsne", "umap"] = "pca"
    """umap where umap-learn is installed."""
    output: str = "pooled"
    """Which stored output."""
    rows: PositiveInt = 2000
    """How many rows are drawn, spread evenly over the videos."""
    seed: NonNegativeInt = 0


class EvaluateConfig(StageConfig):
    """Scores of predictions against targets, and a report to look at."""

    stage: ClassVar[str] = "evaluate"
    version: ClassVar[int] = 1
    kind: ClassVar[str] = "table"
    produces: ClassVar[str] = "scores"
    costs: ClassVar[tuple[str, ...] | None] = ("report",)

    predictions: str = node_input(kinds=("predictions", "steps"))
    """The predict or steps node."""
    splits: tuple[str, ...] = ("test",)
    """Videos of these splits are scored; each split is also scored alone."""
    topk: tuple[PositiveInt, ...] = (1, 5)
    background: str | None = None
    """Class left out of segmental scores, besides rows without a target."""
    report: bool = True
    """Write report.html."""
    thumbnails: int = setting(8, when=lambda config: config.report, ge=0)
    """Frames shown above each video's timeline in the report."""
    report_videos: PositiveInt = setting(50, when=lambda config: config.report)
    """Videos with a timeline in the report, the worst ones first; all are in the tables."""
    threshold: float = Field(0.5, gt=0, lt=1)
    """Probability from which a class counts as present (task multi_label)."""
    steps: StepScoreSettings = StepScoreSettings()
    embeddings: str | None = node_input(None, kinds=("embeddings",))
    """An embed node whose rows the report shows in a plane, coloured by label; of steps, by the true state."""
    map: MapSettings = setting(MapSettings(), when=lambda config: config.report and config.embeddings is not None)

    def named_splits(self) -> dict[str, tuple[tuple[str, ...], bool]]:
        """As of every stage."""
        return {"splits": (self.splits, True)}

    def packages(self, endings: Collection[str]) -> dict[str, str]:
        """As of every stage."""
        del endings
        is_drawn = self.embeddings is not None and self.report and self.map.method == "umap"
        return {"umap": "map.method: umap; pip install umap-learn, or choose pca or tsne"} if is_drawn else {}
