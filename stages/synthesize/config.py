"""What can be asked of the generators of synthetic videos, and what is refused before anything is drawn."""

from __future__ import annotations

import re
from typing import Literal, Self

from pydantic import Field, model_validator

from reelwright.stages.base.config import Settings
from reelwright.stages.base.fields import execution, source_file
from reelwright.stages.synthesize.family_settings import (
    MAX_SIZE,
    MIN_SIZE,
    ActionsConfig,
    FractalConfig,
    ProcedureSettings,
)
from reelwright.storage.errors import ConfigError

# Raise by hand whenever the same settings give other frames or other bytes.
VERSION = 2  # 2: files that are equal on every CPU
PROCEDURE_VERSION = 2  # the same of procedure videos

FAMILY_NAMES = ("fractal", "perlin", "octopus", "dead_leaves", "actions")
FamilyName = Literal["fractal", "perlin", "octopus", "dead_leaves", "actions"]
ACTIONS = "actions"
LABEL_PARTS = {ACTIONS: ("verb", "noun")}  # what labels are made of, joined by `-`
PERLIN_SIZE = 240  # its lattices divide this side
NUM_PERLIN_CLASSES = 256
PROCEDURE = "procedure"
PROCEDURE_SIZE, PROCEDURE_FPS, MIN_PROCEDURE_SIZE = 128, 10.0, 48

_UNIT_SECONDS = {"h": 3600, "m": 60, "s": 1}
_MAX_COUNTS = {"m": 59, "s": 59}


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
    actions: ActionsConfig = ActionsConfig()
    """Of the family actions only."""
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
        if self.family != ACTIONS and self.actions != ActionsConfig():
            raise ValueError(f"settings of actions have no meaning for {self.family}; leave them out")
        if self.into == "frames" and self.codec != type(self).model_fields["codec"].default:
            raise ValueError(f"codec {self.codec} is of video files, but into is frames; leave it out")
        return self

    @property
    def is_still(self) -> bool:
        """Whether images are made, not videos."""
        return self.fractal.still

    def content(self) -> dict[str, object]:
        """What decides the content of a data set, as plain data: everything but how many there are of a split."""
        left_out = {"num_val", "num_test", ACTIONS}
        found = self.model_dump(mode="json", include=set(SynthesizeConfig.model_fields) - left_out)
        return {**found, ACTIONS: self.actions.content()} if self.family == ACTIONS else found

    def split_of(self, index: int) -> str:
        """The split of instance ``index`` (from 0) of a class."""
        if index < self.num_val:
            return "val"
        return "test" if index < self.num_val + self.num_test else "train"


class SourceConfig(SynthesizeConfig):
    """Videos that a pipeline makes for itself: the block `videos.synthesize`, with the content of the command's."""

    family: Literal["fractal", "perlin", "octopus", "dead_leaves", "actions", "procedure"]  # type: ignore[assignment]
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
        if self.family in {"perlin", ACTIONS, PROCEDURE} and (self.num_classes or self.class_files):
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


def label_parts(label: str, parts: tuple[str, ...]) -> dict[str, str]:
    """What a label is made of: turn_left-striped_star -> verb turn_left, noun striped_star."""
    return dict(zip(parts, label.split("-"), strict=True)) if parts else {}


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
