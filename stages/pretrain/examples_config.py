"""Settings of what pretrain learns from: key frames that stand for states, or clips of whole videos, as augmented."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from reelwright.stages.augment.config import AugmentSettings
from reelwright.stages.base.config import Settings
from reelwright.stages.base.fields import matters


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
    contrast: float = Field(0.1, ge=0, lt=1)  # As brightness.
    saturation: float = Field(0.7, ge=0, lt=1)  # As brightness.
    blur: float = Field(1.0, ge=0, le=1)
    """Probability of a Gaussian blur."""
    blur_sigma: tuple[PositiveFloat, PositiveFloat] = matters((0.01, 2.0), when=lambda augment: augment.blur > 0)
    """Smallest and largest width in pixels."""
    crop_scale: tuple[float, float] | None = None
    """Smallest and largest share that a random crop keeps of the largest box of the encoder's shape in the stored
    frame; it is resized to what the encoder sees. null: no crop, frames as the encoder sees them in validation."""
    flip: float = Field(0.0, ge=0, le=1)
    """Probability of a mirror image; often 0.5 where no state has a side."""

    @property
    def mirrors(self) -> str:
        """The setting by which frames are mirrored; empty: none is."""
        return "flip" if self.flip else ""

    @model_validator(mode="after")
    def _consistent(self) -> ImageAugmentSettings:
        if self.crop_scale is not None and not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise ValueError(
                f"crop_scale must be two shares of the area, 0 < smallest <= largest <= 1: {self.crop_scale}"
            )
        if self.blur_sigma[0] > self.blur_sigma[1]:
            raise ValueError(f"blur_sigma must be smallest and largest width: {self.blur_sigma}")
        return self


class ClipAugmentSettings(AugmentSettings):
    """As in finetune, with the defaults of fractal_video."""

    rand_augment: str | None = "rand-m7-n2"
    rand_augment_fill: tuple[int, int, int] = matters((0, 0, 0), when=lambda augment: augment.rand_augment is not None)
    rand_augment_last: bool = True
    flip: float = Field(0.5, ge=0, le=1)
    crop_scale: tuple[float, float] | None = (0.2, 1.0)
    crop_aspect: tuple[float, float] | None = (3 / 4, 4 / 3)
    color_jitter: float = Field(0.0, ge=0, lt=1)
    blur: float = Field(0.5, ge=0, le=1)
    blur_radius: int = Field(1, ge=1, le=50)

    @model_validator(mode="before")
    @classmethod
    def _nothing_of_what_is_off(cls, values: object) -> object:
        """Defaults that say how RandAugment or crops are made are no contradiction where these are null."""
        for name, of_it, off in (("rand_augment", "rand_augment_last", False), ("crop_scale", "crop_aspect", None)):
            if isinstance(values, dict) and name in values and values[name] is None:
                values = {of_it: off, **values}
        return values


class ClipPretrainSettings(Settings):
    """Clips of whole videos: an epoch has each video once, with one clip (ce) or two from random starts."""

    length: PositiveInt | None = None
    """Frames in a clip; null: what the encoder was trained with."""
    dilation: PositiveInt = 1
    """Stored frames from one frame of a clip to its next. Of a video that is too short the last frame is repeated."""
    batch_size: PositiveInt = 32
    """Videos a batch, over all processes."""
    val_clips: PositiveInt = 10
    """ce: clips of a video in validation at most, whose class probabilities are averaged."""
    val_step: PositiveInt | None = None
    """ce: frames from the start of one of them to that of the next, at least (fractal_video's rule: from the first
    frame on, evenly where there would be more than val_clips). null: no more clips than it takes to see the whole
    video, spread from its first frame to its last."""
    augment: ClipAugmentSettings = ClipAugmentSettings()


CLIP_METRICS = ("top1", "top5", "mean_class_accuracy", "macro_f1")
CLIP_OBJECTIVES = ("ce", "simclr", "moco", "byol")
