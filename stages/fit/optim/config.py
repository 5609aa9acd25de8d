"""Settings of how weights are updated: optimizer, parameter groups, schedule, running mean."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from reelwright.stages.base.config import Settings
from reelwright.stages.base.fields import execution, matters, of_names
from reelwright.stages.fit.optim.names import LOOKAHEAD, OPTIONS, check_optimizer

_PERIODIC = ("cosine_restarts", "step", "cyclic")  # schedules that have a period


class GroupSettings(Settings):
    """Parameters whose names fit a pattern, treated apart from the rest."""

    match: str
    """A module (`temporal.head`) or a pattern of parameter names, as of file names (`*.positions*`)."""
    lr_scale: NonNegativeFloat = matters(1.0, when=lambda group: not group.frozen)
    """Factor on their learning rate."""
    weight_decay: NonNegativeFloat | None = matters(None, when=lambda group: not group.frozen)
    """Theirs; null: as all others."""
    frozen: bool = False
    """They keep the values they start with."""


class OptimizerSettings(Settings, extra="allow"):
    """How weights are updated. What stands here beyond these fields is an option of the optimizer, such as betas."""

    name: str = "adamw"
    """As in timm: adamw, sgd (which is nesterov), momentum, adam, lamb, adafactor, lion, ..., or lookahead_NAME."""
    lr: PositiveFloat = 1e-3  # Learning rate, behind the warm-up.
    lr_base_batch: PositiveInt | None = None
    """Windows an update for which `lr` is meant; it grows and shrinks in proportion with batch_size x accumulate
    (Goyal et al. 2017). null: `lr` as it is."""
    weight_decay: NonNegativeFloat = 0.05
    """Never on biases, 1-D parameters, and position and class embeddings."""
    weight_decay_end: NonNegativeFloat | None = None
    """Weight decay at the end, reached along half a cosine; null: constant."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Of optimizers that have one, such as sgd."""
    layer_decay: float | None = Field(None, gt=0, le=1)
    """Each layer learns so many times as fast as the one above it (0.75 is common for ViTs); null: all alike."""
    groups: tuple[GroupSettings, ...] = ()
    """The first one that fits a parameter's name counts."""
    clip_norm: PositiveFloat | None = 1.0
    """Largest norm of the gradients of one update; null: not clipped."""
    accumulate: PositiveInt = 1
    """Batches a weight update."""
    fused: bool | None = execution(None)
    """One kernel for the whole step: null: where torch has one for the optimizer and the device; true: the log says so
    where it has none, and the plain step is made; false: the plain step. They differ by rounding."""

    @model_validator(mode="after")
    def _optimizer_is_known(self) -> Self:
        check_optimizer(self.name, self.options(), tuple(type(self).model_fields))
        base = self.name.removeprefix(LOOKAHEAD)
        if self.momentum != type(self).model_fields["momentum"].default and "momentum" not in OPTIONS[base]:
            raise ValueError(f"momentum is no option of {base}. Options of {base}: {', '.join(OPTIONS[base])}.")
        if self.weight_decay_end is not None and self.weight_decay == 0:
            raise ValueError("weight_decay_end needs a weight_decay above 0 to start from")
        return self

    @classmethod
    def is_kept(cls, field: str, name: str) -> bool:
        """As of every block; momentum is of optimizers that have one."""
        has_momentum = "momentum" in OPTIONS.get(name.removeprefix(LOOKAHEAD), ())
        return super().is_kept(field, name) and (field != "momentum" or has_momentum)

    def options(self) -> dict[str, Any]:
        """Options of the optimizer beyond the fields."""
        return dict(self.model_extra or {})


class ScheduleSettings(Settings):
    """Learning rate over the updates: warm-up, then one of the schedules.

    Spans are given in epochs; the fields that end in `_updates` take their place where a recipe counts updates.
    """

    name: Literal["constant", "cosine", "cosine_restarts", "step", "multi_step", "cyclic", "polynomial"] = "cosine"
    """How the learning rate falls."""
    per: Literal["update", "epoch"] = "update"
    """The rate changes with every update, or with every epoch only."""
    warmup_epochs: NonNegativeFloat = matters(1.0, when=lambda schedule: schedule.warmup_updates is None)
    """Linear warm-up."""
    warmup_updates: NonNegativeInt | None = None
    """Its length in updates instead."""
    warmup_start: float = matters(0.01, when=lambda schedule: schedule.warms_up, ge=0, le=1)
    """Factor on lr at the first update of the warm-up."""
    warmup_inclusive: bool = matters(default=False, when=lambda schedule: schedule.warms_up)
    """The last step of the warm-up has the whole rate already, which the schedule then starts with (CAST, CARL)."""
    warmup_overlaps: bool = matters(default=False, when=lambda schedule: schedule.warms_up)
    """The schedule counts from the first update, not from the end of the warm-up, and jumps there (fractal_video)."""
    lag: NonNegativeInt = 0
    """Steps by which every rate comes late; with 1 the first two share the first rate (fractal_video)."""
    decay_epochs: PositiveFloat | None = of_names(None, names=("cosine", "polynomial"))
    """cosine, polynomial: epochs after which the end is reached, warm-up included; null: all (CARL: epochs + 1)."""
    min_factor: float = of_names(0.0, names=("cosine", "cosine_restarts", "cyclic", "polynomial"), ge=0, lt=1)
    """cosine, cosine_restarts, cyclic, polynomial: the smallest factor on lr."""
    period_epochs: PositiveFloat = of_names(
        5.0, names=_PERIODIC, matters=lambda schedule: schedule.period_updates is None
    )
    """cosine_restarts: length of the first cycle; step: epochs between two steps; cyclic: from the lowest to the
    highest rate."""
    period_updates: PositiveInt | None = of_names(None, names=_PERIODIC)
    """The same in updates instead."""
    period_factor: PositiveInt = of_names(1, names=("cosine_restarts",))
    """cosine_restarts: each cycle is so many times as long as the one before."""
    milestones_epochs: tuple[PositiveFloat, ...] = of_names((), names=("multi_step",))
    """multi_step: epochs, counted from the first, after which the rate falls."""
    gamma: PositiveFloat | None = of_names(None, names=("step", "multi_step", "cyclic"))
    """step, multi_step: factor at each step (null: 0.1); cyclic: on the height, with every step (null: 1)."""
    power: PositiveFloat = of_names(1.0, names=("polynomial",))
    """polynomial: 1 is a straight line."""

    @property
    def warms_up(self) -> bool:
        """Whether there is a warm-up."""
        return (self.warmup_epochs if self.warmup_updates is None else self.warmup_updates) > 0

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.per == "epoch" and (self.warmup_updates is not None or self.period_updates is not None):
            raise ValueError("warmup_updates and period_updates count updates, but per is epoch; give them in epochs")
        spans = {
            "warmup_epochs": self.warmup_epochs,
            "decay_epochs": self.decay_epochs,
            "period_epochs": self.period_epochs,
        }
        broken = [name for name, value in spans.items() if value is not None and value % 1]
        broken += ["milestones_epochs"] if any(value % 1 for value in self.milestones_epochs) else []
        if self.per == "epoch" and broken:
            raise ValueError(
                f"{broken[0]} has parts of an epoch, but per is epoch; give whole ones, or set per: update"
            )
        if (self.name == "multi_step") != bool(self.milestones_epochs):
            raise ValueError("milestones_epochs and name: multi_step belong together; give both or none")
        return self


class EmaSettings(Settings):
    """A running mean of the weights; it is what is evaluated, and the best of it is the run's weights."""

    decay: float = Field(0.9999, gt=0, lt=1)
    """Share of the mean that an update keeps."""
    warmup: bool = True
    """Early on the mean forgets faster: the decay is at most (1 + updates) / (10 + updates)."""
