"""Settings of finetune: an encoder and a temporal model learn on together, from stored frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator

from reelwright.stages.augment.config import AugmentSettings
from reelwright.stages.base.config import execution, node_input, setting, training
from reelwright.stages.base.stage_config import StageConfig
from reelwright.stages.fit.model_config import ModelSettings
from reelwright.stages.fit.optim.config import OptimizerSettings
from reelwright.stages.fit.view_config import NetworkSettings

PARTS = ("spatial", "temporal")  # names of what learns, and starts of the names of its parameters


class FinetuneOptimizerSettings(OptimizerSettings):
    """As in train, with a smaller learning rate: both parts are trained already."""

    lr: float = Field(1e-4, gt=0)


class FinetuneConfig(NetworkSettings):
    """Encoder and temporal model trained together from frames; window, task and model are those of the temporal run.

    Or an encoder and a model of one of the systems, on views of whole videos.
    """

    stage: ClassVar[str] = "finetune"
    version: ClassVar[int] = 5  # 5: crops are of the stored frame, not of the middle that the encoder sees
    kind: ClassVar[str] = "run"
    produces: ClassVar[str] = "run"
    costs: ClassVar[tuple[str, ...] | None] = ("precision",)
    time_grows_with: ClassVar[str] = "epochs"

    frames: str = node_input("frames", kinds=("frames",), used="training")
    """The decode node, with materialize: true; the one that the embeddings were made from."""
    spatial: str = node_input(kinds=("embeddings",))
    """The embed node whose encoder, weights and preprocessing are taken."""
    temporal: str | None = node_input(None, kinds=("run",), used="start")
    """The train node whose model, weights, window and task are taken; or give model, objective and views."""
    model: ModelSettings | None = setting(None, when=lambda config: config.model is not None)
    """carl, conv or vanilla (or a plug-in), which begins anew (or from init_from) and learns from views. `source` is
    frames unless it is given: `spatial` is a ResNet, the base of it up to layer `split` (2, 3; null: all of it), which
    `base` freezes, and the layers behind learn in the model; rows: the pooled output of any encoder."""
    spatial_lr_scale: NonNegativeFloat = training(0.1)
    """Factor on the learning rate for the encoder; 0 freezes it. Of a model, model.base says whether it learns."""
    temporal_lr_scale: NonNegativeFloat = training(1.0)
    """Factor on the learning rate for the temporal model; 0 freezes it."""
    freeze: tuple[str, ...] = training(())
    """spatial, temporal, or patterns of parameter names (as of file names), such as spatial.model.layer1.*"""
    frozen_norm: bool = training(True)
    """Batch norms of the encoder keep their statistics: windows are too alike to estimate new ones. Of a model,
    model.base says it."""
    augment: AugmentSettings = training(AugmentSettings())
    windows_per_epoch: PositiveInt | None = training(None)
    """Windows drawn an epoch; null: all of the grid (of the temporal run's window)."""
    repeats: PositiveInt = training(1)
    """How often each of them comes, side by side and augmented anew each time: so many times the windows an epoch."""

    epochs: PositiveInt = training(5)
    batch_size: PositiveInt = training(4)
    """Windows a batch; each has as many frames as the window is long."""
    optimizer: FinetuneOptimizerSettings = training(FinetuneOptimizerSettings())
    channels_last: bool | None = execution(None)
    """Layout of pictures in memory; null: where it is faster (convolutions on GPUs)."""
    memory_bytes: PositiveInt = execution(2 << 30)
    """Frames (as they are stored where crops are cut from them, else as the encoder sees them) are held in memory up to
    this size; beyond, they are read for every window."""

    @model_validator(mode="after")
    def _something_learns(self) -> FinetuneConfig:
        if set(PARTS) <= set(self.frozen):
            raise ValueError("spatial and temporal are both frozen (freeze, lr_scale: 0); nothing is left to learn")
        return self

    @model_validator(mode="after")
    def _one_model(self) -> FinetuneConfig:
        if (self.temporal is None) == (self.model is None):
            raise ValueError("give either temporal (a train node) or model, objective and views")
        if self.model is None:
            return self
        for name in ("windows_per_epoch", "repeats", "frozen_norm"):
            if getattr(self, name) != type(self).model_fields[name].default:
                instead = "set model.base" if name == "frozen_norm" else "an epoch has each video once"
                raise ValueError(f"{name} is of a temporal run and its windows; leave it out ({instead})")
        if self.model.options().get("source", "frames") not in {"frames", "rows"}:
            raise ValueError("model.source: maps are stored ones, of train; give frames (with split) or rows")
        if self.compares_views:
            raise ValueError(
                f"objective {self.objective.name} is of train (stored rows) and pretrain (clips), not of finetune"  # type: ignore[union-attr]
            )
        if self.views is None:
            raise ValueError(f"model {self.model.name} learns from views of videos; give views: {{length: 80}}")
        return self

    @property
    def base_state(self) -> str:
        """How the encoder in front of a model is trained: trained, frozen or frozen_norms."""
        assert self.model is not None
        return str(self.model.options().get("base", "frozen"))

    @property
    def frozen(self) -> tuple[str, ...]:
        """Parts and patterns of names that do not learn."""
        still = [part for part in PARTS if getattr(self, f"{part}_lr_scale") == 0]
        base = ["spatial"] if self.model is not None and self.base_state == "frozen" else []
        return tuple(dict.fromkeys((*self.freeze, *still, *base)))

    @property
    def multipliers(self) -> dict[str, float]:
        """Start of a parameter's name -> factor on its learning rate."""
        return {f"{part}.": getattr(self, f"{part}_lr_scale") for part in PARTS}

    @property
    def seen_of_frames(self) -> tuple[str, str]:
        """Which output of the encoder the model sees, and what that is called by the model's option `source`."""
        assert self.model is not None
        options = self.model.options()
        if options.get("source", "frames") == "rows":
            return "pooled", "rows"
        return f"layer{options.get('split', 3) or 4}.map", "maps"

    def check_inputs(self, inputs: Mapping[str, Sequence[StageConfig]]) -> None:
        """Refuse frames that are not stored: windows are read again and again, in random order."""
        self.check_frames_stored(inputs, more="; its embeddings stay as they are.")
