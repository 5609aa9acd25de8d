"""What is known of the data sets of others: datasets.yaml, checked."""

from __future__ import annotations

import functools
import importlib.resources
from typing import Any, Literal

import yaml
from pydantic import Field

from reelwright.stages.base.config import Settings, parse_config
from reelwright.storage.errors import ConfigError, nearest


class ListSpec(Settings):
    """Files that name videos; see datasets.yaml."""

    files: str
    line: str | None = None
    format: Literal["lines", "json", "csv", "frames", "events"] = "lines"
    split: str
    video: str | list[str] | None = None
    labelled: bool = True


class NamesSpec(Settings):
    """A table of class names."""

    files: str
    line: str
    becomes: str = Field(alias="as")


class RewriteSpec(Settings):
    """A value out of another one."""

    source: str = Field(alias="from")
    find: str
    replace: str


class SegmentsSpec(Settings):
    """Lines that are segments of longer videos."""

    of: str
    start: str
    stop: str
    label: str


class LayoutSpec(Settings):
    """One form in which people have a data set."""

    lists: list[ListSpec]
    splits: dict[str, list[str]] = Field(default_factory=dict)
    rewrite: dict[str, RewriteSpec] = Field(default_factory=dict)
    names: NamesSpec | None = None
    video: str | list[str]
    video_id: str | None = None
    label: str = ""
    frame_label: str | None = None
    segments: SegmentsSpec | None = None
    frames: str | None = None
    first_number: int | None = None
    columns: list[str] = Field(default_factory=list)
    header: list[str] = Field(default_factory=list)
    fps: float | None = None

    def split_of(self, raw: str) -> str:
        """The split that ``raw`` stands for; an empty text drops the video."""
        if not self.splits:
            return raw
        others = next((name for name, known in self.splits.items() if "*" in known), "")
        return next((name for name, known in self.splits.items() if raw in known), others)


class DatasetSpec(Settings):
    """One data set."""

    title: str
    where: str
    full: dict[str, int] = Field(default_factory=dict)
    layouts: list[LayoutSpec]


@functools.cache
def datasets() -> dict[str, DatasetSpec]:
    """All data sets by name."""
    text = (importlib.resources.files("reelwright.stages.prepare") / "datasets.yaml").read_text(encoding="utf-8")
    known: dict[str, Any] = yaml.safe_load(text)
    return {name: parse_config(DatasetSpec, values, where=f"datasets.yaml: {name}") for name, values in known.items()}


def dataset(name: str) -> DatasetSpec:
    """One data set. Raises ConfigError with the nearest name."""
    known = datasets()
    if name not in known:
        raise ConfigError(f"no data set {name!r}.{nearest(name, known)} Known: {', '.join(known)}")
    return known[name]
