"""Settings of everything that learns: loss, optimiser, schedule, epochs, validation, where and how it runs."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from reelwright.stages.base.config import Settings, StageConfig
from reelwright.stages.base.fields import execution, matters, node_input, training
from reelwright.stages.base.plugins import PluginUse, is_plugin
from reelwright.stages.fit.optim.config import EmaSettings, OptimizerSettings, ScheduleSettings
from reelwright.stages.fit.optim.names import LOOKAHEAD
from reelwright.stages.index.config import LabelsConfig
from reelwright.stages.objectives.config import LossSettings, ObjectiveSettings
from reelwright.storage.errors import ConfigError

_OPTIMIZER_PACKAGES = {"fused": "apex", "bnb": "bitsandbytes"}
WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt")


class MixingSettings(Settings):
    """Mixup and cutmix: each window is mixed with another one of its batch, and so are their targets."""

    mixup_alpha: float = Field(0.8, ge=0)
    """The share that a window keeps of itself is drawn from Beta(alpha, alpha); 0: no mixup."""
    cutmix_alpha: float = matters(1.0, when=lambda mix: mix.cutmix_minmax is None, ge=0)
    """The same of cutmix, which replaces a stretch of rows (train) or a box of pixels, the same in all frames of a clip
    (finetune); 0: no cutmix."""
    cutmix_minmax: tuple[float, float] | None = None
    """Smallest and largest side of what is cut, as shares of the whole; in place of cutmix_alpha."""
    probability: float = Field(1.0, ge=0, le=1)
    """Of mixing at all."""
    switch_probability: float = matters(
        0.5,
        when=lambda mix: mix.mixup_alpha > 0 and (mix.cutmix_alpha > 0 or mix.cutmix_minmax is not None),
        ge=0,
        le=1,
    )
    """Of cutmix, where there are both."""
    mode: Literal["batch", "pair", "elem"] = "batch"
    """What is drawn once: for the batch, for each pair, or for each window (elem)."""

    @model_validator(mode="after")
    def _something_is_mixed(self) -> Self:
        low, high = self.cutmix_minmax or (0.0, 1.0)
        if not 0 <= low < high <= 1:
            raise ValueError(f"cutmix_minmax is {self.cutmix_minmax}; 0 <= smallest < largest <= 1 is needed")
        if not (self.mixup_alpha or self.can_cut):
            raise ValueError("mixup_alpha and cutmix_alpha are both 0: nothing would be mixed; set mix: null")
        return self

    @property
    def can_cut(self) -> bool:
        """Whether cutmix may be drawn."""
        return (self.cutmix_alpha > 0 or self.cutmix_minmax is not None) and (
            self.mixup_alpha == 0 or self.switch_probability > 0
        )


class EarlyStopSettings(Settings):
    """Stop at the end of an epoch when the metric has not improved for so many evaluations."""

    patience: PositiveInt = 10  # So many.


class LearningSettings(StageConfig):
    """What train and finetune share."""

    loss: LossSettings = training(LossSettings())
    mix: MixingSettings | None = training(None)
    """Mixup and cutmix of training batches; with several processes each mixes within its share of the batch."""
    optimizer: OptimizerSettings = training(OptimizerSettings())
    schedule: ScheduleSettings = training(ScheduleSettings())
    ema: EmaSettings | None = training(None)
    epochs: PositiveInt = training(20)  # Times that everything is seen.
    batch_size: PositiveInt = training(64)
    """Windows (with `views` videos) a batch, over all processes together."""
    drop_last: bool = training(False)
    """The windows that do not fill a batch are left out of the epoch."""
    seed: int = training(0, ge=0)
    """Of weights, order of windows, dropout and augmentation."""
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = training("fp32")
    """Of forward and backward passes; weights are fp32. tf32: fp32 whose products GPUs may round to 10 bits; on a CPU
    it is fp32."""
    evaluate_every: PositiveInt = training(1)
    """Epochs between two evaluations on val."""
    evaluate_updates: PositiveInt | None = training(None, when=lambda config: config.evaluate_updates is not None)
    """Updates between two evaluations, which are made besides, for long epochs; null: at the ends of epochs only."""
    metric: str | None = training(None)
    """Metric on val that chooses the best checkpoint; null: macro_f1 (mean_average_precision for multi_label; of views
    without labels loss, where kendalls_tau is the other one). Or a plug-in's: an entry point of reelwright.metrics,
    package.module:metric, or file.py:metric; higher is better."""
    early_stop: EarlyStopSettings | None = training(None)
    train_splits: tuple[str, ...] = training(("train",))  # Videos of these splits are learned from.
    val_splits: tuple[str, ...] = training(("val",))
    """Without a video in these splits there is no validation, and the last weights are the best."""
    labels: LabelsConfig | None = execution(None)
    """Labels of this node alone, as the `labels` block has them; null: those of the pipeline."""
    init_from: str | None = node_input(None, kinds=("run",), used="training")
    """Weights to start from: a run node, or a file (.safetensors, .pth, .pt; with a slash or one of these endings).
    What fits by name is taken, positions are resized, other heads start anew; init.json in the run folder tells all."""
    init_head: Literal["auto", "keep", "replace"] = matters(
        "auto", when=lambda config: config.init_from is not None, role="training"
    )
    """Of init_from. auto: a head is taken where classes and sizes are the same; keep: it has to fit; replace: never."""

    device: str = execution("auto")
    """auto: the first GPU, else the CPU; or cpu, cuda, cuda:1. With several processes each has a GPU of its own."""
    deterministic: bool = execution(False)
    """The same weights, bit for bit, wherever it is trained (on one kind of machine, with as many processes): on a CPU
    one thread computes, on a GPU only kernels that repeat themselves."""
    processes: PositiveInt = execution(1)
    """Processes that share each batch (DDP): a GPU each, else all on the CPU. A run starts them itself."""
    resume: bool = execution(True)
    """Go on with the checkpoint that an interrupted training of this very run left; false: begin anew."""
    checkpoint_every: PositiveInt = execution(1)
    """Epochs between two `last` checkpoints, from which a killed run goes on (a signal writes one at once); epochs
    shorter than 2 seconds share one."""
    keep_every: PositiveInt | None = execution(None)
    """Epochs between two sets of weights that stay (checkpoints/epoch-10.safetensors); null: best and last only."""
    max_minutes: PositiveFloat | None = execution(None)
    """Time limit: a checkpoint is written and the command exits with 75; run again to go on."""
    compile: bool = execution(False)
    """torch.compile: slow to start, then faster; not the same in the last bits."""
    gradient_checkpointing: bool = execution(False)
    """Blocks are computed again in the backward pass: less memory, about a third more time."""
    log_to: tuple[Literal["mlflow", "wandb"], ...] = execution(())
    """Besides metrics.jsonl and TensorBoard, which are always written."""
    profile: bool = execution(False)
    """Say where a step's time goes (profile.txt in the run folder); slows training down."""

    def num_updates(self, rows: Sequence[tuple[str, float]], *, times: float) -> int | None:
        """As of every stage; where windows are not those of the node itself, it is not known."""
        window: Any = getattr(self, "window", None)
        if not hasattr(window, "num_windows"):
            return None
        learnt = [count for split, count in rows if split in self.train_splits]
        number = window.per_epoch or times * sum(window.num_windows(count) for count in learnt)
        batches = math.floor(number / self.batch_size) if self.drop_last else math.ceil(number / self.batch_size)
        return int(self.epochs * math.ceil(batches / self.optimizer.accumulate))

    @field_validator("log_to", mode="before")
    @classmethod
    def _is_logged_anyway(cls, value: Any) -> Any:
        if isinstance(value, list | tuple) and {"tensorboard", "csv", "json"} & set(map(str, value)):
            raise ValueError(
                "TensorBoard's files and metrics.jsonl are always written; name mlflow or wandb, or leave it out"
            )
        return value

    @model_validator(mode="after")
    def _warm_up_ends(self) -> Self:
        if self.schedule.warmup_updates is None and self.schedule.warmup_epochs > self.epochs:
            raise ValueError(
                f"schedule.warmup_epochs is {self.schedule.warmup_epochs:g}, but there are only {self.epochs} epochs; "
                "shorten it"
            )
        return self

    @model_validator(mode="after")
    def _one_loss(self) -> Self:
        if isinstance(getattr(self, "objective", None), ObjectiveSettings) and self.loss != LossSettings():
            raise ValueError("loss is what the task minimises by itself, but objective takes its place; leave loss out")
        return self

    @model_validator(mode="after")
    def _some_to_mix_with(self) -> Self:
        if self.mix is not None and self.batch_size < 2:
            raise ValueError("mix needs batches of at least 2 windows, but batch_size is 1; raise it, or set mix: null")
        return self

    def plugins(self) -> dict[str, PluginUse]:
        """As of every stage, with the metric."""
        found = super().plugins()
        if self.metric is not None and is_plugin("metrics", self.metric):
            found["metric"] = PluginUse(group="metrics", name=self.metric, options={}, num_given=2)
        return found

    def packages(self, endings: Collection[str]) -> dict[str, str]:
        """As of every stage: of loggers and of optimizers that are not torch's or timm's own."""
        del endings
        rest = "or leave it out: metrics.jsonl and TensorBoard are written anyway"
        needed: dict[str, str] = {
            name: f"log_to: {name}; pip install 'reelwright[{name}]', {rest}" for name in self.log_to
        }
        base = self.optimizer.name.removeprefix(LOOKAHEAD)
        own = next((package for start, package in _OPTIMIZER_PACKAGES.items() if base.startswith(start)), None)
        return needed if own is None else {**needed, own: f"optimizer.name: {base}; install it, or take adamw"}

    def named_splits(self) -> dict[str, tuple[tuple[str, ...], bool]]:
        """As of every stage; without a video in val_splits there is no validation."""
        return {"train_splits": (self.train_splits, True), "val_splits": (self.val_splits, False)}

    def wanted_splits(self) -> tuple[str, ...] | None:
        """Those that are learned from and validated on."""
        return (*self.train_splits, *self.val_splits)

    def check_frames_stored(self, inputs: Mapping[str, Sequence[StageConfig]], *, more: str = "") -> None:
        """Raise ConfigError where the node of input ``frames`` does not store its frames."""
        for frames in inputs.get("frames", ()):
            if getattr(frames, "materialize", True) is False:
                (name,) = self.inputs()["frames"]
                raise ConfigError(
                    f"frames: node {name!r} has materialize: false, but {self.stage} reads its frames many times. "
                    f"Set materialize: true for {name!r}{more}"
                )

    @property
    def init_file(self) -> str | None:
        """``init_from`` where it names a file."""
        name = self.init_from
        is_file = name is not None and ("/" in name or name.endswith(WEIGHT_SUFFIXES))
        return name if is_file else None

    def spec(self) -> dict[str, Any]:
        """As of every stage; heads that are no linear layer, and grids of positions, were taken otherwise once."""
        return {**super().spec(), **({} if self.init_from is None else {"init": "layers of classes"})}

    def inputs(self) -> dict[str, list[str]]:
        """As of every stage; a file is no node."""
        return super().inputs() | ({"init_from": []} if self.init_file else {})

    def sources(self) -> dict[str, str]:
        """As of every stage, with the file to start from."""
        return super().sources() | ({"init_from": self.init_file} if self.init_file else {})
