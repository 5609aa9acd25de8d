"""Settings of train: windows over stored embeddings, the temporal model, and how it learns."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from reelwright.stages.config import Settings, StageConfig, execution, node_input

Task = Literal["video", "last_row", "majority", "per_row", "multi_label"]


class WindowSettings(Settings):
    """Windows over the rows of a video: ``length`` rows, ``skip`` left out between them, ``stride`` apart."""

    length: PositiveInt = 32
    """Rows in a window."""
    stride: PositiveInt = 1
    """Rows from the start of one window to the start of the next, where windows lie on a grid."""
    skip: int = Field(0, ge=0)
    """Rows left out between two rows of a window."""


class TrainWindowSettings(WindowSettings):
    """Windows to train on."""

    sampling: Literal["grid", "random"] = "grid"
    """grid: every window of the grid once an epoch, in random order; random: starts drawn uniformly."""
    per_epoch: PositiveInt | None = None
    """Windows an epoch with random sampling, which draws from every possible start; null: as many as the grid has."""
    pad: bool = True
    """One padded window (with a mask) for videos shorter than a window; false leaves them out."""


class ModelSettings(Settings, extra="allow"):
    """The temporal model: its name and its own options (checked by the model before training starts)."""

    name: str = "transformer"
    """linear, mlp, transformer, gru, lstm or tcn."""

    def options(self) -> dict[str, Any]:
        """All but the name."""
        return dict(self.model_extra or {})


class LossSettings(Settings):
    """Cross entropy, or binary cross entropy for task multi_label."""

    label_smoothing: float = Field(0.0, ge=0, lt=1)
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: inverse to the class's share of the training targets."""


class OptimizerSettings(Settings):
    """How weights are updated."""

    name: Literal["adamw", "sgd"] = "adamw"
    lr: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = 0.05
    """Never on biases and 1-D parameters."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Of sgd."""
    clip_norm: PositiveFloat | None = 1.0
    """Largest norm of the gradients of one update; null: not clipped."""
    accumulate: PositiveInt = 1
    """Batches a weight update."""


class ScheduleSettings(Settings):
    """Learning rate over the updates: warm-up, then one of the schedules."""

    name: Literal["constant", "cosine", "cosine_restarts", "step"] = "cosine"
    warmup_epochs: NonNegativeFloat = 1.0
    """Linear warm-up."""
    warmup_start: float = Field(0.01, gt=0, le=1)
    """Factor on lr at the first update of the warm-up."""
    min_factor: float = Field(0.0, ge=0, lt=1)
    """cosine, cosine_restarts: factor on lr at the end."""
    period_epochs: PositiveFloat = 5.0
    """cosine_restarts: length of the first cycle; step: epochs between two steps."""
    period_factor: PositiveInt = 1
    """cosine_restarts: each cycle is so many times as long as the one before."""
    gamma: PositiveFloat = 0.1
    """step: factor at each step."""


class EarlyStopSettings(Settings):
    """Stop when the metric has not improved for so many evaluations."""

    patience: PositiveInt = 10


class LearningSettings(StageConfig):
    """What train and finetune share."""

    loss: LossSettings = LossSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    epochs: PositiveInt = 20
    batch_size: PositiveInt = 64
    seed: int = Field(0, ge=0)
    """Of weights, order of windows, dropout and augmentation."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    evaluate_every: PositiveInt = 1
    """Epochs between two evaluations on val."""
    metric: str | None = None
    """Metric on val that chooses the best checkpoint; null: macro_f1 (mean_average_precision for multi_label)."""
    early_stop: EarlyStopSettings | None = None
    train_splits: tuple[str, ...] = ("train",)
    val_splits: tuple[str, ...] = ("val",)
    """Without a video in these splits there is no validation, and the last weights are the best."""

    device: str = execution("auto")
    """auto: the first GPU, else the CPU; or cpu, cuda, cuda:1."""
    checkpoint_every: PositiveInt = execution(1)
    """Epochs between two `last` checkpoints, from which an interrupted run goes on."""

    @model_validator(mode="after")
    def _warm_up_ends(self) -> Self:
        if self.schedule.warmup_epochs > self.epochs:
            raise ValueError(
                f"schedule.warmup_epochs is {self.schedule.warmup_epochs:g}, but there are only {self.epochs} epochs; "
                "shorten it"
            )
        return self

    def wanted_splits(self) -> tuple[str, ...] | None:
        """Those that are learned from and validated on."""
        return (*self.train_splits, *self.val_splits)


class TrainConfig(LearningSettings):
    """A temporal model trained on stored embeddings."""

    stage: ClassVar[str] = "train"
    version: ClassVar[int] = 1
    kind: ClassVar[str] = "run"
    produces: ClassVar[str] = "run"

    embeddings: tuple[str, ...] = node_input(kinds=("embeddings",), min_length=1)
    """One embed node, or several whose rows are joined by time and concatenated."""
    output: str = "pooled"
    """Which stored output is learned from; token and map outputs are averaged over their positions."""
    task: Task = "last_row"
    """video: the video's own label; last_row: the label at the window's last row; majority: the window's commonest
    label; per_row: a label a row; multi_label: the set of labels that occur in the window."""
    window: TrainWindowSettings = TrainWindowSettings()
    model: ModelSettings = ModelSettings()
    memory_bytes: PositiveInt = execution(4 << 30)
    """Embeddings above this size are memory-mapped from a scratch file instead of held in memory."""
