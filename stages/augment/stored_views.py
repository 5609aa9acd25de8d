"""Settings of augmented views that embed stores beside each other."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from reelwright.stages.augment.config import AugmentSettings, ColorSettings
from reelwright.stages.base.config import Settings


class ViewSettings(Settings):
    """Views of every frame that are stored side by side: rows (V, ...) of each output."""

    num: int = Field(ge=2)
    """V: the frame as it is without this block comes first, the others are augmented."""
    seed: int = Field(0, ge=0)
    """Of what is drawn, once for a video and view: the same for all its frames."""
    augment: AugmentSettings = AugmentSettings(
        crop_scale=(0.8, 1.0),
        crop_aspect=(3 / 4, 4 / 3),
        flip=0.5,
        color_jitter=0.0,
        colors=ColorSettings(),
        grayscale=0.2,
        blur=0.5,
    )
    """As in finetune; unless given, CARL's."""

    @model_validator(mode="after")
    def _can_be_stored(self) -> Self:
        if self.augment.erasing is not None or self.augment.rand_augment_last:
            raise ValueError("erasing and rand_augment_last are of training alone; leave them out of views.augment")
        if self.augment.scene is not None:
            raise ValueError("scene is of clips in training alone; leave it out of views.augment")
        return self
