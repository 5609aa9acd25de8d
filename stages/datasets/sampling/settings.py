"""Settings of clips, windows and views: where they lie in a video, and how training draws them.

See `sampling.windows` for the rule, drawn. Finetune takes the windows of its temporal run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, PositiveInt, model_validator

from reelwright.stages.base.config import Settings
from reelwright.stages.base.fields import matters, setting

Short = Literal["pad", "repeat", "leave_out"]
CLIPS = ("segments", "dense", "multi_start", "stretched")  # samplings of clips that stand for their video
WHOLE = ("segments", "stretched")  # those whose clips fill up short videos themselves, without a mask


class GridSettings(Settings):
    """Where clips or windows lie in a video: fields that mean the same in every stage."""

    renamed: ClassVar[Mapping[str, str]] = {"stride": "hop", "skip": "dilation: it is skip + 1, so 1 for neighbours"}

    to_end: bool = True
    """One clip (window) more, off the grid, that ends with a video's last row where the grid does not. false: rows at
    the end are in none, and a warning says how many."""


class WindowGridSettings(GridSettings):
    """Of windows over rows; `pad: true` and `pad: false` of earlier releases are `short: pad` and `leave_out`."""

    @model_validator(mode="before")
    @classmethod
    def _pad_is_short(cls, values: Any) -> Any:
        if not isinstance(values, dict) or "pad" not in values:
            return values
        rest = dict(values)
        pad = rest.pop("pad")
        word = "pad" if pad is True else "leave_out" if pad is False else None
        if word is None:
            raise ValueError(f"pad is {pad!r}; it must be true or false. Write short: pad, repeat or leave_out instead")
        if rest.get("short") not in (None, word):
            raise ValueError(f"pad: {pad} is an older word for short: {word}, but short is given too; remove pad")
        return {**rest, "short": word}


class EventSettings(Settings):
    """Where windows lie around events (starts of segments, times of steps): a density over their last rows."""

    density: Literal["uniform", "gaussian", "bimodal", "poisson"] = "bimodal"
    """gaussian: windows end near an event; bimodal: well before it (it is not in them) or well after it; poisson: near
    it, rather later."""
    sigma_rows: float = matters(15.0, when=lambda events: events.density != "uniform", gt=0)
    """Width of a peak; of poisson its mean."""
    separation_rows: float = matters(80.0, when=lambda events: events.density == "bimodal", ge=0)
    """bimodal: from the event to either peak; windows should be longer."""
    epsilon: float = Field(1e-8, ge=0)
    """Added to the density of every row, so that any window may be drawn."""


class ViewSettings(Settings):
    """Views: rows of a video that are drawn anew every epoch; a video is an item, however long it is."""

    length: PositiveInt = 80
    """Rows of a view. A shorter video gives all its rows, and the rest is padded (with a mask)."""
    sampling: Literal["time_augment", "offset_uniform", "anchor_positive", "clip"] | None = None
    """time_augment: rows at random, in order, from a block of up to `max_stretch` times as many; offset_uniform: rows
    anywhere in the video, in order; anchor_positive: rows, and shortly before each another one (of tcn); clip: rows
    `stride` apart from a start anywhere. null: anchor_positive of objective tcn, clip of simclr, moco and byol, else
    time_augment."""
    max_stretch: float = Field(1.5, ge=1)
    """time_augment: the longest block, in lengths of `base`."""
    overlap: float = Field(0.2, ge=0, le=1)
    """time_augment: share of a view that the other one of the video overlaps with at least; 0: they lie anywhere."""
    base: Literal["clip", "video"] = "clip"
    """time_augment. clip: blocks are crops of the video (CARL's FineGym); video: they are longer than the video, and a
    random number of rows at the end is masked (CARL's Pouring, Penn Action and Kinetics)."""
    positive_window: PositiveInt = 5
    """anchor_positive: rows that a positive lies before its anchor at most."""
    stride: PositiveInt = setting(1, when=lambda views: views.stride > 1)
    """clip: rows from one row to the next; 1: neighbours."""
    context_stride: PositiveInt = 1
    """Rows from one context of a row to the next, of models with `contexts`."""
    one_label: bool = False
    """A batch has videos of one label only (the action of PennAction); the label is the video's own (labels.column)."""
