"""Settings of finetune: an encoder and a temporal model learn on together, from stored frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator

from reelwright.stages.augment.config import AugmentSettings
from reelwright.stages.base.config import StageConfig, execution, node_input, training
from reelwright.stages.fit.optim.config import OptimizerSettings
from reelwright.stages.fit.view_config import NetworkSettings


class FinetuneOptimizerSettings(OptimizerSettings):
    """As in train, with a smaller learning rate: both parts are trained already."""

    lr: float = Field(1e-4, gt=0)


class FinetuneConfig(NetworkSettings):
    """Encoder and temporal model trained together from frames; window, task and model are those of the temporal run."""

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
    temporal: str = node_input(kinds=("run",), used="start")
    """The train node whose model, weights, window and task are taken."""
    spatial_lr_scale: NonNegativeFloat = training(0.1)
    """Factor on the learning rate for the encoder; 0 freezes it."""
    temporal_lr_scale: NonNegativeFloat = training(1.0)
    """Factor on the learning rate for the temporal model; 0 freezes it."""
    freeze: tuple[str, ...] = training(())
    """spatial, temporal, or patterns of parameter names (as of file names), such as spatial.model.layer1.*"""
    frozen_norm: bool = training(True)
    """Batch norms of the encoder keep their statistics: windows are too alike to estimate new ones."""
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
        frozen = {
            part for part in ("spatial", "temporal") if part in self.freeze or getattr(self, f"{part}_lr_scale") == 0
        }
        if len(frozen) == 2:
            raise ValueError("spatial and temporal are both frozen (freeze, lr_scale: 0); nothing is left to learn")
        return self

    def check_inputs(self, inputs: Mapping[str, Sequence[StageConfig]]) -> None:
        """Refuse frames that are not stored: windows are read again and again, in random order."""
        self.check_frames_stored(inputs, more="; its embeddings stay as they are.")
