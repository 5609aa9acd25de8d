"""Settings of import_predictions: rows that are class scores already, taken as predictions."""

from __future__ import annotations

from typing import ClassVar, Literal

from reelwright.stages.base.config import StageConfig
from reelwright.stages.base.fields import execution, node_input


class ImportPredictionsConfig(StageConfig):
    """Predictions that somebody else made: rows of K scores, one for each class in the order of `labels.classes`.

    So the results of other programs are evaluated, compared and exported like our own. Nothing is computed but the
    activation.
    """

    stage: ClassVar[str] = "import_predictions"
    version: ClassVar[int] = 2
    kind: ClassVar[str] = "items"
    produces: ClassVar[str] = "predictions"
    publishes: ClassVar[bool] = True
    costs: ClassVar[tuple[str, ...] | None] = ()

    embeddings: str = node_input(kinds=("embeddings",))
    """The features node whose rows are the scores; class ids become such rows with its `one_hot`."""
    output: str = "pooled"
    """Which stored output."""
    activation: Literal["none", "softmax", "sigmoid"] = "none"
    """none: rows are probabilities (or one-hot); softmax, sigmoid: rows are logits."""
    task: Literal["per_row", "multi_label"] = "per_row"
    """per_row: one label a row; multi_label: a set of labels a row."""
    splits: tuple[str, ...] | None = execution(None)
    """Only videos of these splits; null: all."""

    def wanted_splits(self) -> tuple[str, ...] | None:
        """As set."""
        return self.splits
