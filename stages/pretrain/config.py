"""Settings of pretrain: an image encoder learns to tell states apart, from the frames in which they begin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from reelwright.models.encoders.names import check_encoder, is_video_encoder
from reelwright.stages.base.config import Settings, execution, node_input, of_names, ordered, source_file, training
from reelwright.stages.base.plugins import PluginUse
from reelwright.stages.base.stage_config import StageConfig
from reelwright.stages.embed.config import NO_FILE, PreprocessSettings, check_hub, encoder_plugin
from reelwright.stages.fit.config import LearningSettings
from reelwright.stages.fit.optim.config import OptimizerSettings
from reelwright.storage.errors import ConfigError

METRICS = (
    "precision_at_1",
    "precision_at_1_class_mean",
    "mean_average_precision_at_r",
    "mean_average_precision_at_r_states",
    "f1_at_1",
)


class KeyFrameSettings(Settings):
    """Which frames stand for a state: those right after it began, though nobody labelled them one by one."""

    seconds: PositiveFloat = 2.0
    """From the beginning of a state; so long frames show it."""
    negatives_from: Literal["first", "last"] = "first"
    """Background is taken from 7 to 6 such spans before a state's first frame (as the paper says) or before the last
    of its frames (as the public code does)."""


class BatchSettings(Settings):
    """What a batch is made of: as many frames of each state, and background."""

    classes: PositiveInt | None = None
    """States in a batch, drawn anew for each; null: all."""
    per_class: PositiveInt = 8
    """Frames of each; taken more than once where there are fewer."""
    synthetic_per_class: NonNegativeInt = 0
    """Further frames of each, from videos of the synthetic splits."""
    background: NonNegativeInt = 16
    """Frames of no state."""
    per_epoch: PositiveInt = 500
    """Batches an epoch."""


class ImageAugmentSettings(Settings):
    """Random changes of a training frame."""

    brightness: float = Field(0.1, ge=0, lt=1)
    """Multiplied by a factor from [1 - x, 1 + x]; contrast and saturation alike."""
    contrast: float = Field(0.1, ge=0, lt=1)
    saturation: float = Field(0.7, ge=0, lt=1)
    blur: float = Field(1.0, ge=0, le=1)
    """Probability of a Gaussian blur."""
    blur_sigma: tuple[PositiveFloat, PositiveFloat] = (0.01, 2.0)
    """Smallest and largest width in pixels."""
    crop_scale: tuple[float, float] | None = None
    """Smallest and largest share that a random crop keeps of the largest box of the encoder's shape in the stored
    frame; it is resized to what the encoder sees. null: no crop, frames as the encoder sees them in validation."""
    flip: float = Field(0.0, ge=0, le=1)
    """Probability of a mirror image; often 0.5 where no state has a side."""

    @model_validator(mode="after")
    def _consistent(self) -> ImageAugmentSettings:
        if self.crop_scale is not None and not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise ValueError(
                f"crop_scale must be two shares of the area, 0 < smallest <= largest <= 1: {self.crop_scale}"
            )
        if self.blur_sigma[0] > self.blur_sigma[1]:
            raise ValueError(f"blur_sigma must be smallest and largest width: {self.blur_sigma}")
        return self


class PretrainObjectiveSettings(Settings):
    """The loss, and what it counts as alike."""

    name: Literal["supcon", "simclr", "batch_all", "batch_hard", "ce"] = "supcon"
    """supcon: all frames of a state are alike; simclr: two changed copies of a frame, states are not looked at;
    batch_all, batch_hard: triplets; ce: a linear classifier on the embedding."""
    temperature: PositiveFloat = of_names(0.07, names=("supcon", "simclr"))
    """Of supcon and simclr."""
    margin: PositiveFloat = of_names(0.01, names=("batch_all", "batch_hard"))
    """Of triplets."""
    exclude_background: bool = of_names(False, names=("supcon", "batch_all", "batch_hard"))
    """supcon and triplets: background is never an anchor and like nothing, but everything is unlike it."""

    @model_validator(mode="after")
    def _consistent(self) -> PretrainObjectiveSettings:
        if self.exclude_background and self.name in {"simclr", "ce"}:
            raise ValueError(f"exclude_background is of supcon and triplets, not of {self.name}")
        return self


class PretrainOptimizerSettings(OptimizerSettings):
    """As in train, with the rates of STORM-PSR."""

    lr: float = Field(1e-4, gt=0)
    weight_decay: float = Field(1e-4, ge=0)


class PretrainConfig(LearningSettings):
    """An image encoder trained on key frames of states. The labels are states: rows or segments of them."""

    stage: ClassVar[str] = "pretrain"
    renamed: ClassVar[Mapping[str, str]] = {"contrast": "objective"}
    version: ClassVar[int] = 2  # 2: crops are of the stored frame, not of the middle that the encoder sees
    kind: ClassVar[str] = "run"
    produces: ClassVar[str] = "run"
    costs: ClassVar[tuple[str, ...] | None] = ("encoder", "precision", "model_args", "preprocess", "batch")
    time_grows_with: ClassVar[str] = "epochs"

    frames: str = node_input("frames", kinds=("frames",), used="training")
    """The decode node, with materialize: true."""
    encoder: str = Field(min_length=1)
    """timm/NAME or hf-hub:ORG/NAME; or a plug-in's: an entry point, package.module:Encoder, or file.py:Encoder."""
    weights: str = source_file("hub", used="training")
    """What it starts from. hub: its pretrained weights; none: random ones; else a .safetensors/.pth/.pt file."""
    prefix: str | None = training(None)
    """Only weights of the file whose names start so are used, without it."""
    key_map: dict[str, str] = ordered(role="training")
    """Regular expression -> replacement for names of weights, applied in order."""
    ignore: tuple[str, ...] = training(())
    """Patterns of weights that may be missing, unexpected or of another shape."""
    model_args: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the model's constructor."""
    preprocess: PreprocessSettings = PreprocessSettings()
    embed_dim: PositiveInt | None = 128
    """Size of the embedding; a linear layer, batch norm, ReLU and unit length make it. null: the pooled features."""
    projection: bool = training(True)
    """A further head between the embedding and the loss (not for ce), thrown away afterwards."""
    states: tuple[str, ...] | None = training(None)
    """Labels that are learned; null: all but those of others and ignored."""
    others: tuple[str, ...] = training(("other",))
    """Labels that are no state; background before them is taken all the same."""
    ignored: tuple[str, ...] = training(("error",))
    """Labels from which nothing is taken, not even background."""
    sampling: Literal["key_frames", "all"] = training("key_frames")
    """all: every frame is of the label that holds then, and those without one are background."""
    key_frames: KeyFrameSettings = training(KeyFrameSettings())
    batch: BatchSettings = training(BatchSettings())
    objective: PretrainObjectiveSettings = training(PretrainObjectiveSettings())
    augment: ImageAugmentSettings = training(ImageAugmentSettings())
    synthetic_splits: tuple[str, ...] = training(("synthetic",))
    """Splits of pictures made by programs, each frame with its label; see batch.synthetic_per_class."""

    epochs: PositiveInt = training(100)
    batch_size: PositiveInt = execution(64)
    """Frames a forward pass of the evaluation on val."""
    optimizer: PretrainOptimizerSettings = training(PretrainOptimizerSettings())
    metric: Literal[METRICS] | None = training(None)  # type: ignore[valid-type]
    """Retrieval of val among train that chooses the best weights; null: precision_at_1."""
    memory_bytes: PositiveInt = execution(4 << 30)
    """Frames, as the encoder sees them (and as they are stored, where crops are cut), are held in memory up to this
    size; beyond, they are read for every batch."""

    @model_validator(mode="after")
    def _consistent(self) -> PretrainConfig:
        check_hub(self.weights, self.encoder, is_own=bool(self.plugins()))
        if self.loss != type(self.loss)() or self.optimizer.lr_base_batch is not None:
            raise ValueError("loss.* and optimizer.lr_base_batch are of windows; the loss here is `objective`")
        return self

    def spec(self) -> dict[str, Any]:
        """As in StageConfig; what is of windows is left out."""
        values = super().spec()
        values.pop("loss")
        return values

    def wanted_splits(self) -> tuple[str, ...] | None:
        """Those that are learned from and validated on, and the synthetic ones where they are used."""
        synthetic = self.synthetic_splits if self.batch.synthetic_per_class else ()
        return (*self.train_splits, *self.val_splits, *synthetic)

    def named_splits(self) -> dict[str, tuple[tuple[str, ...], bool]]:
        """As of all that learns, with the synthetic ones where they are used."""
        synthetic = self.batch.synthetic_per_class > 0
        return {**super().named_splits(), **({"synthetic_splits": (self.synthetic_splits, True)} if synthetic else {})}

    def check_names(self) -> None:
        """As of every stage: the encoder and its arguments."""
        if self.plugins():
            return
        try:
            check_encoder(self.encoder, outputs=("pooled",), model_args=self.model_args)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        if is_video_encoder(self.encoder):
            raise ConfigError(f"encoder: {self.encoder!r} reads clips, key frames are images; use timm/NAME")

    def plugins(self) -> dict[str, PluginUse]:
        """As of every stage."""
        return encoder_plugin(self.encoder, self.model_args)

    def hub_weights(self) -> str | None:
        """The encoder's name, when its own pretrained weights are used."""
        return self.encoder if self.weights == "hub" else None

    def sources(self) -> dict[str, str]:
        """The weights file, when it is one."""
        found = super().sources()
        return {name: path for name, path in found.items() if name != "weights" or path not in NO_FILE}

    def check_inputs(self, inputs: Mapping[str, Sequence[StageConfig]]) -> None:
        """Refuse frames that are not stored: they are read again and again, in random order."""
        self.check_frames_stored(inputs)
