"""What can be asked of the generators of synthetic videos, and what is refused before anything is drawn."""

from __future__ import annotations

import re
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from reelwright.stages.base.config import Settings, execution, source_file
from reelwright.storage.errors import ConfigError

# Raise by hand whenever the same settings give other frames or other bytes.
VERSION = 2  # 2: files that are equal on every CPU
PROCEDURE_VERSION = 2  # the same of procedure videos

FAMILY_NAMES = ("fractal", "perlin", "octopus", "dead_leaves")
FamilyName = Literal["fractal", "perlin", "octopus", "dead_leaves"]
MIXED_VARIATIONS = -1  # half linear, half of MIXED_NON_LINEAR
MIXED_NON_LINEAR = (4, 14, 16, 17, 20, 27, 29)
VARIATION_NUMBERS = (*range(23), 27, 28, 29, 31, 42, 44, 45, 48)
PERLIN_SIZE = 240  # its lattices divide this side
NUM_PERLIN_CLASSES = 256
PROCEDURE = "procedure"
PROCEDURE_SIZE, PROCEDURE_FPS, MIN_PROCEDURE_SIZE = 128, 10.0, 48
MIN_SIZE, MAX_SIZE = 32, 2048  # counts of 20 frames of the largest take 0.7 GB

_UNIT_SECONDS = {"h": 3600, "m": 60, "s": 1}
_MAX_COUNTS = {"m": 59, "s": 59}


class FractalConfig(Settings):
    """How fractals are drawn. The defaults draw as many points as the published generator (128 x 7,300 a frame)."""

    still: bool = False
    """16 independent images of a draw in place of a video; each normalised and framed for itself."""
    variations: tuple[int, ...] = (MIXED_VARIATIONS,)
    """Flame variations to choose from, by number; 0 is linear, -1 (alone) half linear and half of seven others."""
    linear_motion: bool = False
    """All parameters move evenly from start to end."""
    num_points: int = Field(8192, ge=1)
    """Points that move at once."""
    num_iterations: int = Field(140, ge=1)
    """Jumps of every point in a frame."""
    num_window_iterations: int = Field(69, ge=1)
    """Jumps of every point when the view window is looked for."""
    num_skipped: int = Field(25, ge=1)
    """First jumps that are not drawn; after about 20 a point has forgotten its start."""
    window_keep: float = Field(0.9, gt=0, lt=1)
    """Share of the occupied pixels that the window has to hold."""
    window_size: int = Field(128, ge=2, le=MAX_SIZE)
    """Side of the canvas on which the window is looked for, in pixels."""

    @field_validator("variations")
    @classmethod
    def _known_variations(cls, values: tuple[int, ...]) -> tuple[int, ...]:
        known = ", ".join(map(str, VARIATION_NUMBERS))
        if not values:
            raise ValueError(f"name at least one variation: -1 (mixed) or of {known}")
        unknown = [value for value in values if value not in (MIXED_VARIATIONS, *VARIATION_NUMBERS)]
        if unknown:
            raise ValueError(f"no variation has the number {unknown[0]}. Allowed: -1 (mixed) alone, or of {known}")
        if len(set(values)) < len(values):
            raise ValueError("a variation is named twice; name each once")
        if MIXED_VARIATIONS in values and len(values) > 1:
            raise ValueError("-1 (mixed) stands alone; leave it out, or the others")
        return values

    @model_validator(mode="after")
    def _draws_something(self) -> Self:
        for name in ("num_iterations", "num_window_iterations"):
            if getattr(self, name) <= self.num_skipped:
                raise ValueError(
                    f"{name} is {getattr(self, name)} and num_skipped {self.num_skipped}: nothing would be drawn. "
                    f"Raise {name} above num_skipped"
                )
        return self


REALISTIC: dict[str, Any] = {  # docs/stand-ins.md: measured on labels of MECCANO before any model was trained on it
    "look_alikes": True,
    "usual_order": True,
    "order_spread": 0.5,
    "gap_seconds": 89.0,
    "gap_shape": 1.4,
    "pauses": 0.35,
    "checks": 0.35,
    "fastening_seconds": 4.0,
    "together": 0.45,
    "undone": 0.19,
    "wrong": 0.09,
    "second_hand": True,
    "tool": True,
    "hand_size": 1.5,
    "camera": 0.5,
}
PRESETS: dict[str, dict[str, Any]] = {"easy": {}, "realistic": REALISTIC}


class ProcedureSettings(Settings):
    """How hard procedure videos are to read. The defaults are the demo's: short, clear, nothing done wrongly."""

    preset: Literal["easy", "realistic"] = "easy"
    """Where the settings below start from; realistic: as often, as late and in such orders as in real labels."""
    look_alikes: bool = False
    """Every small part twice, told apart by a small mark: seven parts in place of four."""
    usual_order: bool = False
    """All videos follow one order; else three orders take turns, and are the videos' labels."""
    order_spread: float = Field(0.0, ge=0)
    """Standard deviation of a step's place in the order, in steps."""
    gap_seconds: float = Field(0.0, ge=0)
    """Mean time from one change of the assembly to the next; 0: nothing but what the movements take."""
    gap_shape: float = Field(1.4, gt=0)
    """Shape of the gamma distribution of gaps; 1: exponential, larger: more even."""
    pauses: float = Field(0.5, ge=0, le=1)
    """Share of what fills a gap that is rest."""
    checks: float = Field(0.25, ge=0, le=1)
    """Share that is hands at the assembly that change nothing; the rest are parts fetched and put back."""
    fastening_seconds: float = Field(0.0, ge=0)
    """Work of the hands over a part that is in its place, before the step is complete."""
    together: float = Field(0.0, ge=0, le=1)
    """Probability that the next part is complete in the same moment."""
    undone: float = Field(0.0, ge=0, le=1)
    """Probability that a completed step is undone, and done again."""
    wrong: float = Field(0.0, ge=0, le=1)
    """Probability that a step is first done wrongly: with the part that looks like it, or turned around."""
    second_hand: bool = False
    """A second hand steadies the assembly while the first one works there."""
    tool: bool = False
    """The hand works with a screwdriver."""
    hand_size: float = Field(1.0, gt=0, le=3)
    """Size of the hands; larger ones hide more."""
    camera: float = Field(0.0, ge=0, le=1)
    """How much the camera shifts, turns and zooms, as on a head."""

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, values: object) -> object:
        return {**PRESETS.get(str(values.get("preset")), {}), **values} if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _shares(self) -> Self:
        if self.pauses + self.checks > 1:
            raise ValueError(f"pauses ({self.pauses}) and checks ({self.checks}) are shares: give at most 1 together")
        return self

    def changed(self) -> dict[str, Any]:
        """What is not as in the demo, as plain data; the preset's values, not its name."""
        return self.model_dump(mode="json", exclude_defaults=True, exclude={"preset"})

    @property
    def is_scripted_long(self) -> bool:
        """Whether anything but the look is not as in the demo."""
        return bool(self.changed().keys() - {"hand_size", "camera"})


class SynthesizeConfig(Settings):
    """What is made; fields that are not about the content (how many, where to) are marked as execution."""

    family: FamilyName
    """Family of videos."""
    size: int = Field(256, ge=MIN_SIZE, le=MAX_SIZE, multiple_of=2)
    """Height and width in pixels, even (4:2:0 colour). perlin is always 240: its lattices divide that."""
    fps: float = Field(12.0, ge=1, le=240)
    """Frames a second; a video has 18 to 20 frames."""
    seed: int = Field(1, ge=0)
    """Root of all random numbers."""
    codec: Literal["h264", "h265"] = "h264"
    """Of video files, 4:2:0 colour."""
    into: Literal["files", "frames"] = "files"
    """Video files (images in the still mode), or rows of a frame store, lossless and without a codec."""
    fractal: FractalConfig = FractalConfig()
    """Of the family fractal only."""
    num_val: int = execution(0, ge=0)
    """Videos of every class (of all where there are no classes) that go to the split val, the first ones."""
    num_test: int = execution(0, ge=0)
    """The same for the split test; they come after those of val."""

    @model_validator(mode="before")
    @classmethod
    def _perlin_size(cls, values: object) -> object:
        if isinstance(values, dict) and values.get("family") == "perlin":
            size = values.get("size", PERLIN_SIZE)
            if size != PERLIN_SIZE:
                raise ValueError(f"size is {size!r}: perlin is {PERLIN_SIZE} x {PERLIN_SIZE} only; leave size out")
            return {**values, "size": PERLIN_SIZE}
        return values

    @model_validator(mode="after")
    def _fits_family(self) -> Self:
        if self.family != "fractal" and self.fractal != FractalConfig():
            raise ValueError(f"settings of fractal have no meaning for {self.family}; leave them out")
        return self

    @property
    def is_still(self) -> bool:
        """Whether images are made, not videos."""
        return self.fractal.still

    def content(self) -> dict[str, object]:
        """What decides the content of a data set, as plain data: everything but how many there are of a split."""
        return self.model_dump(mode="json", include=set(SynthesizeConfig.model_fields) - {"num_val", "num_test"})

    def split_of(self, index: int) -> str:
        """The split of instance ``index`` (from 0) of a class."""
        if index < self.num_val:
            return "val"
        return "test" if index < self.num_val + self.num_test else "train"


class SourceConfig(SynthesizeConfig):
    """Videos that a pipeline makes for itself: the block `videos.synthesize`, with the content of the command's."""

    family: Literal["fractal", "perlin", "octopus", "dead_leaves", "procedure"]  # type: ignore[assignment]
    """Family of videos; procedure has labels.segments and labels.steps (both: synthesize), the others labels.column."""
    samples: int = execution(..., ge=1)
    """How many videos there shall be; with a larger number only the new ones are made."""
    num_classes: int | None = Field(None, ge=1)
    """So many classes are drawn, and videos are labelled instances of them; null: unlabelled (perlin: always 256)."""
    class_files: str | None = source_file(None)
    """A folder of class files in place of classes that are drawn."""
    procedure: ProcedureSettings = ProcedureSettings()
    """Of the family procedure only."""

    @model_validator(mode="before")
    @classmethod
    def _procedure_defaults(cls, values: object) -> object:
        if isinstance(values, dict) and values.get("family") == PROCEDURE:
            return {"size": PROCEDURE_SIZE, "fps": PROCEDURE_FPS, **values}
        return values

    @model_validator(mode="after")
    def _fits_a_pipeline(self) -> Self:
        if self.is_still:
            raise ValueError("a pipeline reads videos: leave out `still`; the command makes images")
        if self.num_classes is not None and self.class_files is not None:
            raise ValueError("give num_classes, to draw them, or class_files, not both")
        if self.family in {"perlin", PROCEDURE} and (self.num_classes or self.class_files):
            raise ValueError(f"{self.family} has classes of its own: leave num_classes and class_files out")
        if self.family == PROCEDURE and (
            self.codec != "h264" or self.into != "files" or self.size < MIN_PROCEDURE_SIZE
        ):
            raise ValueError(f"procedure videos are h264 files and {MIN_PROCEDURE_SIZE} pixels or larger")
        if self.family != PROCEDURE and self.procedure.changed():
            raise ValueError(f"settings of procedure have no meaning for {self.family}; leave them out")
        if self.family == PROCEDURE and self.samples < self.num_val + self.num_test:
            raise ValueError(f"samples is {self.samples}: give at least num_val and num_test together")
        return self

    def content(self) -> dict[str, object]:
        """As of the command; settings of procedures where they are not the demo's."""
        changed = self.procedure.changed()
        return {**super().content(), **({"procedure": changed} if changed else {})}

    @property
    def generator(self) -> SynthesizeConfig:
        """The settings as of the command; not of procedures."""
        return SynthesizeConfig(**{name: getattr(self, name) for name in SynthesizeConfig.model_fields})


def parse_duration(text: str) -> int:
    """Seconds of `2h30m`, `45m`, `30s`: whole numbers with the units h, m and s, each once, in any order.

    Minutes and seconds are below 60 (90m is written 1h30m). Raises ConfigError for anything else, and for 0: where the
    published generator would take such a text as no limit at all.
    """
    parts = re.findall(r"([0-9]{1,6})([hms])", text)
    units = [unit for _, unit in parts]
    fits = all(int(count) <= _MAX_COUNTS.get(unit, int(count)) for count, unit in parts)
    if not parts or "".join(map("".join, parts)) != text or len(set(units)) < len(units) or not fits:
        raise ConfigError(
            f"{text!r} is no duration: write whole hours, minutes and seconds such as 2h30m, 45m or 1h30m15s, "
            "each unit once, minutes and seconds below 60 (90m is 1h30m)"
        )
    seconds = sum(int(count) * _UNIT_SECONDS[unit] for count, unit in parts)
    if seconds == 0:
        raise ConfigError(f"{text!r} is no time at all: give at least 1s, or leave it out for no limit")
    return seconds
