"""Settings of single families of synthetic videos."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from reelwright.stages.base.config import Settings

VERBS = (
    *("move_left", "move_right", "move_up", "move_down", "turn_left", "turn_right"),
    *("grow", "shrink", "appear", "vanish", "shake", "jump"),
)
NOUN_TEXTURES, NOUN_SHAPES = ("striped", "dotted", "checked"), ("disc", "triangle", "square", "star", "cross", "bar")
NOUNS = tuple(f"{texture}_{shape}" for texture in NOUN_TEXTURES for shape in NOUN_SHAPES)
MIXED_VARIATIONS = -1  # half linear, half of MIXED_NON_LINEAR
MIXED_NON_LINEAR = (4, 14, 16, 17, 20, 27, 29)
VARIATION_NUMBERS = (*range(23), 27, 28, 29, 31, 42, 44, 45, 48)
MAX_RADIUS = 0.2
MIN_SIZE, MAX_SIZE = 32, 2048  # counts of 20 frames of the largest take 0.7 GB


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


class ActionsConfig(Settings):
    """How action videos are drawn: one object does one thing during a part of the clip, among others that lie still."""

    num_frames: int = Field(32, ge=8, le=1000)  # Of a video.
    verbs: tuple[str, ...] = VERBS
    """What is done."""
    nouns: tuple[str, ...] = NOUNS
    """What does it, TEXTURE_SHAPE."""
    num_distractors: int = Field(2, ge=0, le=8)
    """Things that lie still, of other nouns; fewer where there is no room for them."""
    radius: tuple[float, float] = (0.085, 0.12)
    """Of all things at the start, from least to most, as shares of the side."""
    ground: Literal["textured", "dark"] = "textured"
    """What is behind them. dark: one dark grey, so that small networks soon see shapes and changes."""
    acting: tuple[float, float] = (0.3, 0.6)
    """Share of the clip during which it acts, from least to most."""
    jitter: float = Field(0.015, ge=0, le=0.1)
    """The camera moves by at most this share of the side."""
    noise: float = Field(6.0, ge=0, le=64)
    """Standard deviation of the camera's noise in grey levels of 0 to 255."""

    @model_validator(mode="after")
    def _known_words(self) -> Self:
        for name, allowed in (("verbs", VERBS), ("nouns", NOUNS)):
            words = getattr(self, name)
            unknown = [word for word in words if word not in allowed]
            if unknown:
                raise ValueError(f"{name}: there is no {unknown[0]!r}. Allowed: {', '.join(allowed)}")
            if not words or len(set(words)) < len(words):
                raise ValueError(f"{name}: name at least one, and each once")
        least, most = self.acting
        if not 0 < least <= most <= 1:
            raise ValueError(f"acting is {least} to {most}: two shares of the clip, above 0, up to 1, least first")
        smallest, largest = self.radius
        if not 0 < smallest <= largest <= MAX_RADIUS:
            raise ValueError(
                f"radius is {smallest} to {largest}: two shares of the side, above 0, up to {MAX_RADIUS} (what "
                "moves or grows has to stay in the picture), least first"
            )
        return self

    def content(self) -> dict[str, Any]:
        """As plain data; later settings are left out where they are as it always was, so that older keys hold."""
        fields = type(self).model_fields
        usual = {name for name in ("radius", "ground") if getattr(self, name) == fields[name].default}
        return self.model_dump(mode="json", exclude=usual)


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
