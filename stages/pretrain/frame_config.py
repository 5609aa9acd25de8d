"""Settings of pretrain for image encoders: which frames stand for a state, what a batch has, how frames are changed."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

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

    @model_validator(mode="after")
    def _consistent(self) -> ImageAugmentSettings:
        if self.crop_scale is not None and not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise ValueError(
                f"crop_scale must be two shares of the area, 0 < smallest <= largest <= 1: {self.crop_scale}"
            )
        if self.blur_sigma[0] > self.blur_sigma[1]:
            raise ValueError(f"blur_sigma must be smallest and largest width: {self.blur_sigma}")
        return self
