"""Settings of steps: what is decoded, how, and by which procedure."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import PositiveInt, model_validator

from reelwright.stages.base.config import StageConfig
from reelwright.stages.base.fields import matters, node_input, source_file


class StepsConfig(StageConfig):
    """Completed steps out of predictions of windows or rows, out of a detector's table, or out of both together.

    Predictions of task multi_label are changes: each class names a component, or a step of it (a component's
    probability is then the highest of its steps'), and its probability says that the component changed within the
    window. Predictions of one label a window or row are states: classes are the states of the procedure, others are no
    state. A detector's table speaks for every frame, predictions for the frames that have one.
    """

    stage: ClassVar[str] = "steps"
    version: ClassVar[int] = 1
    kind: ClassVar[str] = "table"
    produces: ClassVar[str] = "steps"
    reads_labels: ClassVar[bool] = True
    costs: ClassVar[tuple[str, ...] | None] = ()

    procedure: str = source_file()
    """The procedure, a YAML file."""
    predictions: tuple[str, ...] = node_input((), kinds=("predictions",))
    """Predict nodes: at most one of changes and one of states."""
    detections: str | None = source_file(None)
    """A table of detected states (video_id, frame, class, confidence), instead of predicted states."""
    truth: str | None = source_file(None)
    """A table of completed steps (video_id, time_seconds or frame, step); null: the pipeline's labels."""
    splits: tuple[str, ...] | None = None
    """Only videos of these splits; null: all."""
    decoder: Literal["naive", "accumulated", "expected"] = "expected"
    """B1, B2 or B3: each change at once, by accumulated confidence, or that and only steps of the procedure."""
    confidence: float = matters(0.5, when=lambda config: config.decoder == "naive", ge=0, le=1)
    """naive: confidence that a detection must exceed, and a change must reach."""
    threshold: float = matters(6.0, when=lambda config: config.decoder != "naive", gt=0)
    """accumulated and expected: sum of confidence above which a step is complete; to be chosen on val."""
    decay: float = matters(0.75, when=lambda config: config.decoder != "naive", ge=0, le=1)
    """accumulated and expected: what a sum is multiplied by in a frame that does not add to it."""
    window: PositiveInt | None = matters(None, when=lambda config: bool(config.predictions))
    """Frames for which one change goes on being predicted; null: the window that was predicted with."""
    initial: Literal["auto", "procedure", "first"] = "auto"
    """State at the start: of the procedure, or the first one detected; auto: first, but of the procedure in expected
    and wherever changes are decoded."""
    fusion: Literal["average", "shared"] = matters("average", when=lambda config: config.votes)
    """How two streams share their sums: their weighted mean, or one and the same sums, as the public code does."""
    weight: float = matters(0.5, when=lambda config: config.votes, ge=0, le=1)
    """Share of the changes in the weighted mean."""
    non_states: Literal["ignore", "reference"] = "ignore"
    """What a detected background does: nothing, or as in the public code, it is taken for a state of no components."""

    @property
    def votes(self) -> bool:
        """Whether two streams share their sums."""
        return self.decoder != "naive" and len(self.predictions) + (self.detections is not None) > 1

    def named_splits(self) -> dict[str, tuple[tuple[str, ...], bool]]:
        """As of every stage."""
        return {} if self.splits is None else {"splits": (self.splits, True)}

    def wanted_splits(self) -> tuple[str, ...] | None:
        """Only videos of these splits are decoded; None: all."""
        return self.splits

    @model_validator(mode="after")
    def _consistent(self) -> StepsConfig:
        if not self.predictions and self.detections is None:
            raise ValueError("nothing to decode; give predictions (nodes), detections (a table), or both")
        if len(self.predictions) + (self.detections is not None) > 2:
            raise ValueError("more than two streams; give at most one of changes and one of states or detections")
        if self.initial == "first" and self.decoder == "expected":
            raise ValueError("decoder expected starts from the procedure's state; set initial to auto or procedure")
        return self
