"""Settings of pretrain for video encoders: which clips of a video are taken, and what is done to them."""

from __future__ import annotations

from pydantic import Field, PositiveInt, model_validator

from reelwright.stages.augment.config import AugmentSettings
from reelwright.stages.base.config import Settings
from reelwright.stages.base.fields import matters


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
