"""What the settings of clips (embed) and windows (train, predict) share: the ends of videos, and videos that are short.

See `sampling.windows` for the rule, drawn. Finetune takes the windows of its temporal run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import model_validator

from reelwright.stages.base.config import Settings

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
