"""Settings of augmentation, and the text that RandAugment is written in, read into its sections.

    rand-m7-n4-mstd0.5-inc1     timm's grammar; sections in any order
      m7        magnitude, 0 to 10 (10)
      n4        operations a clip (2), drawn with replacement where all are as likely
      p0.5      probability of each to be carried out (0.5)
      mstd0.5   normal noise on the magnitude (0); above 100: uniform in [0, magnitude]
      mmax15    largest magnitude after the noise (10)
      inc1      operations whose effect rises with the magnitude (0)
      t3a       another set of operations: weights, 3a or 3aw; those with weights are drawn without replacement
      w0        the weighted set of timm before 1.0

Sources: timm's auto_augment, CAST (1.3 of the domain reference).
"""

from __future__ import annotations

import math
import re
from typing import Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from reelwright.stages.augment.scene.config import SceneSettings
from reelwright.stages.base.config import Settings
from reelwright.stages.base.fields import matters, setting

SETS = ("weights", "3a", "3aw")


def read_sections(text: str) -> dict[str, Any]:
    """Sections of RandAugment by name, as numbers or as the name of a set.

    Raises ValueError for what is no section, or stands twice.
    """
    head, *sections = text.split("-")
    if head != "rand":
        raise ValueError(f"RandAugment {text!r} must begin with 'rand', as in rand-m7-n4-mstd0.5-inc1.")
    found = [_section(section, text) for section in sections]
    kinds = ["a set of operations" if kind in {"t", "w"} else kind for kind, _ in found]
    if twice := [kind for kind in kinds if kinds.count(kind) > 1]:
        raise ValueError(f"RandAugment {text!r} says {twice[0]} twice; which is meant cannot be known.")
    return dict(found)


_RANGES = {  # kind, least, most
    "m": (int, 0, 100),
    "n": (int, 1, 100),
    "p": (float, 0, 1),
    "mstd": (float, 0, math.inf),
    "mmax": (int, 0, 100),
    "inc": (int, 0, 1),
}


def _section(section: str, text: str) -> tuple[str, Any]:
    if section[:1] == "t" and section[1:] in SETS:
        return "t", section[1:]
    if section == "w0":
        return "w", "0"
    found = re.fullmatch(r"([a-z]+)([0-9.]+|inf)", section)
    if found and found[1] in _RANGES:
        kind, least, most = _RANGES[found[1]]
        try:
            value = kind(found[2])
        except ValueError:
            value = math.nan
        if least <= value <= most:
            return found[1], value
    allowed = "m0 to m100, n1 to n100, p0 to p1, mstd0.5, mmax10, inc0 or inc1, w0, " + ", ".join(f"t{s}" for s in SETS)
    raise ValueError(f"RandAugment {text!r}: section {section!r} cannot be read; allowed: {allowed}.")


BLUR_RADIUS = 3  # unless it is given


class ErasingSettings(Settings):
    """Random erasing of normalised frames: boxes that are the same in all frames of a clip."""

    probability: float = Field(0.25, ge=0, le=1)
    """Of a clip to lose something."""
    mode: Literal["pixel", "rand", "const"] = "pixel"
    """pixel: noise, new in every frame; rand: one colour a box (both ~ N(0, 1)); const: 0, the mean colour."""
    max_count: PositiveInt = 1
    """Boxes of a clip, 1 to this many; the area is shared out among them."""
    area: tuple[float, float] = (0.02, 1 / 3)
    """Share of the frame that is erased in all."""
    aspect: tuple[float, float] = (0.3, 1 / 0.3)
    """Height by width of a box, log-uniform."""

    @model_validator(mode="after")
    def _possible(self) -> ErasingSettings:
        if not (0 < self.area[0] <= self.area[1] <= 1 and 0 < self.aspect[0] <= self.aspect[1]):
            raise ValueError(f"area {self.area} must lie in (0, 1], aspect {self.aspect} above 0, smallest first")
        return self


class ColorSettings(Settings):
    """Colour jitter as torchvision has it: four changes in random order, each by what is drawn once a clip.

    Contrast is around each frame's own mean. The defaults are CARL's and SimCLR's, at strength 1.
    """

    probability: float = Field(0.8, ge=0, le=1)
    """Of a clip to be changed."""
    brightness: float = Field(0.8, ge=0)
    """Multiplied by a factor from [max(0, 1 - x), 1 + x]; contrast and saturation alike."""
    contrast: float = Field(0.8, ge=0)  # As brightness.
    saturation: float = Field(0.8, ge=0)  # As brightness.
    hue: float = Field(0.2, ge=0, le=0.5)
    """Turned by a share of the circle of colours from [-x, x]."""


def _has_rand_augment(augment: AugmentSettings) -> bool:
    return augment.rand_augment is not None


class AugmentSettings(Settings):
    """Random changes of the training frames, drawn once a clip: the same for all its frames.

    They are drawn from the seed, the epoch and the clip's place in its order, and made in this order: rand_augment,
    crop, scene, flip, colours, grayscale, blur, normalisation, erasing; mixing comes after them.
    """

    rand_augment: str | None = None
    """RandAugment in timm's words, such as rand-m7-n4-mstd0.5-inc1: m magnitude (0 to 10), n operations a clip, p
    probability of each (0.5), mstd noise on m, mmax its limit, inc1 operations that rise with m, t3a another set."""
    rand_augment_fill: tuple[int, int, int] = matters((128, 128, 128), when=_has_rand_augment)
    """RGB of what moves in from outside the frame."""
    rand_augment_interpolation: Literal["bilinear", "bicubic", "random"] = matters("bicubic", when=_has_rand_augment)
    """Of rotated and sheared frames; random: one of both for each operation."""
    rand_augment_last: bool = False
    """After crop, flip and colours instead of before them."""
    flip: float = Field(0.0, ge=0, le=1)
    """Probability of a mirror image (left and right); often 0.5 where no label has a side or a direction."""
    crop_scale: tuple[float, float] | None = (0.7, 1.0)
    """Smallest and largest share of the stored frame that a random crop keeps; it is resized to what the encoder sees.
    Without crop_aspect, share of the largest box of the encoder's shape, anywhere in the frame. null: no crop, frames
    as the encoder sees them in validation."""
    crop_aspect: tuple[float, float] | None = None
    """Smallest and largest width by height of the crop, log-uniform (a random resized crop, often [0.75, 1.3333] with
    crop_scale [0.08, 1]); null: the encoder's own."""
    color_jitter: float = Field(0.2, ge=0, lt=1)
    """Brightness, contrast and saturation are each multiplied by a factor from [1 - x, 1 + x]."""
    colors: ColorSettings | None = setting(None, when=lambda augment: augment.colors is not None)
    """Stronger changes of colour in place of color_jitter, with hue; null: color_jitter alone."""
    grayscale: float = setting(0.0, when=lambda augment: augment.grayscale > 0, ge=0, le=1)
    """Probability of a clip without colour."""
    blur: float = Field(0.0, ge=0, le=1)
    """Probability of a Gaussian blur, sigma 0.1 to 2 pixels."""
    blur_radius: int = setting(BLUR_RADIUS, when=lambda augment: augment.blur_radius != BLUR_RADIUS, ge=1, le=50)
    """Pixels that its kernel reaches to either side. 3: 7 x 7; 1: 3 x 3, as in fractal_video."""
    erasing: ErasingSettings | None = None
    """Random erasing; null: none."""
    scene: SceneSettings | None = setting(None, when=lambda augment: augment.scene is not None)
    """Another background, objects of other sizes and places, a moving camera, as fractal_video has them for synthetic
    videos; null: none. With several processes each takes backgrounds from its own share of the batch."""

    @property
    def mirrors(self) -> str:
        """The setting by which frames, or a second appearance of what is in them, are mirrored; empty: none is."""
        scale = None if self.scene is None or self.scene.foreground is None else self.scene.foreground.scale
        has_copies = scale is not None and scale.probability > 0 and scale.clone > 0
        return "flip" if self.flip else "scene.foreground.scale.clone" if has_copies else ""

    @model_validator(mode="after")
    def _consistent(self) -> AugmentSettings:
        if self.crop_scale is not None and not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise ValueError(
                f"crop_scale must be two shares of the area, 0 < smallest <= largest <= 1: {self.crop_scale}"
            )
        if self.crop_aspect is not None and not 0 < self.crop_aspect[0] <= self.crop_aspect[1]:
            raise ValueError(f"crop_aspect must be two ratios above 0, smallest first: {self.crop_aspect}")
        if self.crop_aspect is not None and self.crop_scale is None:
            raise ValueError("crop_aspect is of random crops, but crop_scale is null; set both, or neither")
        if self.colors is not None and self.color_jitter not in (0, type(self).model_fields["color_jitter"].default):
            raise ValueError(f"colors takes the place of color_jitter, which is {self.color_jitter:g}; leave one out")
        if not all(0 <= value <= 255 for value in self.rand_augment_fill):
            raise ValueError(f"rand_augment_fill must be three levels from 0 to 255: {self.rand_augment_fill}")
        if self.blur_radius != type(self).model_fields["blur_radius"].default and not self.blur:
            raise ValueError(f"blur_radius is {self.blur_radius}, but blur is 0; set both, or neither")
        if self.rand_augment is not None:
            read_sections(self.rand_augment)
        elif self.rand_augment_last:
            raise ValueError("rand_augment_last says when rand_augment is made, which is null; set it")
        return self


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
