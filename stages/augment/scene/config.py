"""Settings of scene augmentations: what is behind a clip, where its objects are, and how the camera moves.

The defaults are those of fractal_video's pre-training. A range is of two numbers, smallest first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from reelwright.stages.base.config import Settings
from reelwright.stages.base.fields import matters, setting

Range = tuple[float, float]
_FEWEST_CLIPS = 2  # of a batch, for one to be behind another


def _within(least: float, most: float) -> Callable[[Range], Range]:
    def check(value: Range) -> Range:
        if not least <= value[0] <= value[1] <= most:
            raise ValueError(f"two numbers from {least:g} to {most:g} are needed, smallest first")
        return value

    return check


Probability = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[Range, AfterValidator(_within(0, 1))]
Speed = Annotated[Range, AfterValidator(_within(0, 10))]
Area = Annotated[Range, AfterValidator(_within(0.01, 1))]
Size = Annotated[Range, AfterValidator(_within(0.05, 1))]
Pixels = Annotated[Range, AfterValidator(_within(0, 50))]


class ShiftSettings(Settings):
    """A displacement along a straight line, in any direction, during a part of the clip."""

    probability: Probability = 0.3
    """Of a clip."""
    speed: Speed = (0.2, 1.0)
    """Slowest and fastest, in heights of the frame a clip (at least 1 pixel a frame); the fastest rises with the
    curriculum from the slowest."""
    duration: Share = (0.1, 1.0)
    """Shortest and longest part of the clip (at least 2 frames); the longest rises with the curriculum likewise."""


class BackgroundSettings(Settings):
    """Frames of other clips of the batch behind a clip, which keeps its label."""

    probability: Probability = 1.0
    """Of a clip."""
    dynamic: Probability = 0.2
    """Of backgrounds that are another clip, played to and fro over a quarter of its frames; the others are still: the
    brighter one, pixel by pixel, of two frames of the batch."""
    area: Area = (0.6, 1.0)
    """Share of a still picture that is cut out and enlarged."""
    weight: Share = (0.25, 0.55)
    """Of the background, a in ((1 - a) clip^0.75 + a background^0.75)^gamma."""
    gamma: Annotated[Range, AfterValidator(_within(0.1, 10))] = (0.6, 1.0)
    """Exponent of the mixture; below 1: brighter."""
    maximum: Probability = 0.05
    """Of mixtures that are the brighter one of clip and background, pixel by pixel, instead."""
    shift: ShiftSettings | None = ShiftSettings()
    """Displacement of still pictures; null: none."""


class ScaleSettings(Settings):
    """A clip made smaller and put anywhere on black: its objects have other sizes and places."""

    probability: Probability = 1.0
    """Of a clip."""
    size: Size = (0.3, 1.0)
    """Smallest and largest height and width, each as a share; the smallest falls with the curriculum from the
    largest."""
    clone: Probability = 0.15
    """Of a smaller clip to appear twice once the curriculum is over: the copy elsewhere, turned, at other times, and
    every other one mirrored."""
    clone_size: Size = matters((0.2, 0.7), when=lambda scale: scale.clone > 0)
    """Smallest and largest height and width of clips that appear twice."""
    clone_degrees: float = matters(60, when=lambda scale: scale.clone > 0, ge=0, le=180)
    """A copy is turned by up to so many degrees to either side."""


class ForegroundSettings(Settings):
    """Size and place of a clip's objects, before a background is put behind them."""

    scale: ScaleSettings | None = ScaleSettings()
    """null: the size stays."""
    shift: ShiftSettings | None = ShiftSettings()
    """Displacement before the background; null: none."""


class ZoomSettings(Settings):
    """A camera that comes nearer or, every other time, goes back during a part of the clip."""

    probability: Probability = 0.3
    """Of a clip."""
    speed: Speed = (0.3, 1.0)
    """Least and most that frames grow in a clip, as a share; the most rises with the curriculum from the least."""
    duration: Share = (0.1, 1.0)
    """As of a displacement."""


class ShakeSettings(Settings):
    """A camera in an unsteady hand: slow waves and noise, up and down and to the sides."""

    probability: Probability = 0.3
    """Of a clip."""
    least: Pixels = (1.0, 2.0)
    """Least standard deviation at the start and at the end of the curriculum, in pixels of a frame 112 high."""
    most: Pixels = (2.0, 4.0)
    """Largest standard deviation likewise."""

    @model_validator(mode="after")
    def _ordered(self) -> ShakeSettings:
        if self.least[0] > self.most[0] or self.least[1] > self.most[1]:
            raise ValueError(f"least {self.least} must not be above most {self.most}, at the start and at the end")
        return self


class PerspectiveSettings(Settings):
    """A camera that looks from the side: the corners move inwards, black is around, then the middle is enlarged."""

    probability: Probability = 0.8
    """Of a clip."""
    distortion: float = Field(0.7, ge=0, le=0.95)
    """A corner moves by up to this share of half of the height and of the width."""
    zoom: float = Field(1.4, ge=1, le=10)
    """How much the middle is enlarged."""


class CameraSettings(Settings):
    """Motion of the whole picture, objects and background alike; all of it is one resampling."""

    shift: ShiftSettings | None = ShiftSettings()
    """Displacement; null: none."""
    zoom: ZoomSettings | None = ZoomSettings()
    """null: none."""
    shake: ShakeSettings | None = ShakeSettings()
    """null: none."""
    perspective: PerspectiveSettings | None = PerspectiveSettings()
    """null: none."""


class SceneSettings(Settings):
    """Scene augmentations of clips, for training on synthetic videos whose scenes are empty (fractal_video).

    They are made in this order: reversal, foreground, background, camera; a background shows frames as they are read.
    """

    curriculum_epochs: float = Field(5, ge=0)
    """Strengths rise in a line, batch by batch, over so many epochs, and copies appear after them. 0: full from the
    start."""
    background: BackgroundSettings | None = BackgroundSettings()
    """null: what is there already."""
    foreground: ForegroundSettings | None = ForegroundSettings()
    """null: as it is."""
    camera: CameraSettings | None = CameraSettings()
    """null: still."""
    reverse: float = setting(0.0, when=lambda scene: scene.reverse > 0, ge=0, le=1)
    """Probability of a clip to be played backwards; often 0.5 in learning without labels. Not where labels are of rows
    or depend on their order; whether the label of a whole clip has a direction is known to people alone."""
    easy_key: bool = True
    """Of two clips of a video (pretrain with simclr, moco, byol) the second has a background and another size alone."""

    @model_validator(mode="after")
    def _something_changes(self) -> SceneSettings:
        if self.background is None and self.foreground is None and self.camera is None and not self.reverse:
            raise ValueError("background, foreground and camera are null, and nothing is reversed; set scene: null")
        return self

    def problem(self, *, epochs: int, num_clips: int | None = None) -> str | None:
        """Why these settings do not fit a training of so many epochs; None where they do.

        ``num_clips`` of a batch (with two views of each video: of one view) that a process has, where that is known.
        """
        if self.background is not None and num_clips is not None and num_clips < _FEWEST_CLIPS:
            return (
                f"augment.scene.background takes frames of the other clips of a batch, but a process has {num_clips}; "
                "raise batch_size, or set background: null"
            )
        scale = None if self.foreground is None else self.foreground.scale
        if scale is None or scale.clone == 0 or self.curriculum_epochs < epochs:
            return None
        return (
            f"augment.scene: foreground.scale.clone is {scale.clone:g}, but copies appear after curriculum_epochs "
            f"({self.curriculum_epochs:g}), and there are {epochs} epochs; lower curriculum_epochs, or set clone: 0"
        )
