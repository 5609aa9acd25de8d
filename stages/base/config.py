"""Settings: frozen models that refuse unknown keys; those of a node, what of them enters its key, what is asked of it.

Which fields enter the key, and how, is said where they are declared (stages/base/fields.py).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar, cast

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from reelwright.stages.base.plugins import PluginUse
from reelwright.storage.errors import ConfigError, nearest

C = TypeVar("C", bound="Settings")


class Settings(BaseModel):
    """A frozen block of settings: unknown keys are errors."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        protected_namespaces=(),
        allow_inf_nan=False,
        defer_build=True,  # built when first used: of the settings that are imported, a command needs few
    )
    renamed: ClassVar[Mapping[str, str]] = {}  # settings, and values of choices, of earlier releases; see `nearest`

    def plugin(self) -> PluginUse | None:
        """The plug-in that this block names, if it names one."""
        return None

    def without_effect(self) -> tuple[str, ...]:
        """Of what is given beyond the fields, options that change nothing as the others are."""
        return ()

    @classmethod
    def is_kept(cls, field: str, name: str) -> bool:
        """Whether a setting of a block with a `name` stays as it is when the block is given the name ``name``.

        Fields that every name has do (an optimizer's lr), and those that are declared to be of this name too; options
        beyond the fields are the other name's own.
        """
        if field not in cls.model_fields:
            return False
        names = extra_of(cls.model_fields[field]).get("names")
        return names is None or name in names


def parse_config(model: type[C], values: dict[str, Any], *, where: str) -> C:
    """Check values. Raises ConfigError that names every wrong key, its value, what is allowed, and the nearest name."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = [_problem(model, problem) for problem in error.errors()]
        raise ConfigError("\n  ".join([f"{where}: {len(lines)} problem(s) in the settings", *lines])) from None


def _problem(model: type[BaseModel], problem: Any) -> str:
    location = ".".join(str(part) for part in problem["loc"]) or "(whole block)"
    renamed = getattr(owner := model_at(model, problem["loc"][:-1]), "renamed", {})
    if problem["type"] == "extra_forbidden":
        known, key = sorted(owner.model_fields) if owner else [], str(problem["loc"][-1])
        blocks = {name: model_at(owner, (name,)) for name in known} if owner else {}
        inside = [repr(f"{name}.{key}") for name, block in blocks.items() if block and key in block.model_fields]
        is_inside = inside and key not in renamed
        hint = f" Did you mean {' or '.join(inside)}?" if is_inside else nearest(key, known, renamed)
        return f"{location}: unknown key.{hint}" + (f" Known: {', '.join(known)}." if known else "")
    if problem["type"] == "missing":
        return f"{location}: missing; it has no default."
    message = problem["msg"].removeprefix("Value error, ")
    hint = nearest(str(problem["input"]), (), renamed)
    return f"{location}: {problem['input']!r} is not allowed: {message}{hint and f'.{hint}'}"


def model_at(model: type[BaseModel], location: tuple[Any, ...]) -> type[BaseModel] | None:
    """The model of the block at ``location`` below ``model``; None where there is no block of settings."""
    block: type[BaseModel] | None = model
    for part in location:
        field = None if block is None else block.model_fields.get(part)
        inner = () if field is None else (field.annotation, *getattr(field.annotation, "__args__", ()))
        block = next((entry for entry in inner if isinstance(entry, type) and issubclass(entry, BaseModel)), None)
    return block


def extra_of(info: FieldInfo) -> dict[str, Any]:
    """What a field's function above says of it."""
    return info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}


def without_execution(value: Any, dumped: Any) -> Any:
    """Drop fields of nested blocks that enter no key; what a block takes beyond them (a model's options) stays."""
    if not isinstance(value, Settings):
        return _same_numbers(dumped) if isinstance(value, Mapping) else dumped
    fields = type(value).model_fields
    return {
        name: without_execution(getattr(value, name), dumped[name]) if name in fields else _same_numbers(dumped[name])
        for name in sorted(dumped)
        if name not in fields or enters(value, fields[name])
    }


def enters(block: Settings, field: FieldInfo) -> bool:
    """Whether a field of a block enters the key with it, as the block's other fields are set."""
    extra = extra_of(field)
    return extra.get("role") != "execution" and ("when" not in extra or bool(extra["when"](block)))


def _same_numbers(value: Any) -> Any:
    """0.0 as 0 where no field says which type is meant (options of a model): both are the same number."""
    if isinstance(value, Mapping):
        return {name: _same_numbers(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_same_numbers(entry) for entry in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


class StageConfig(Settings):
    """The settings of one node. Subclasses name their stage and say what it makes."""

    stage: ClassVar[str]
    version: ClassVar[int]  # raised by hand when the stage's output changes
    kind: ClassVar[str]  # 'items' (per video), 'run' (one trained model) or 'table' (one small result)
    produces: ClassVar[str]  # frames | embeddings | run | predictions | steps | scores | pictures
    publishes: ClassVar[bool] = False  # of 'items': tables with names and targets are made of all items together
    reads_labels: ClassVar[bool] = False  # of 'table': names, splits and labels of the videos are read, not only inputs

    costs: ClassVar[tuple[str, ...] | None] = None
    """Settings on which time and size for a second of video depend; None: runs with other settings tell nothing."""
    time_grows_with: ClassVar[str] = ""
    """A number among the settings that time grows with, such as epochs."""
    rate_counts: ClassVar[Literal["", "size", "time and size"]] = ""
    """What grows with the rate of the frames that are made or read."""

    @property
    def stores(self) -> bool:
        """Whether items are stored; false where they are only streamed into what reads them."""
        return True

    @property
    def also_produces(self) -> tuple[str, ...]:
        """Further kinds of outputs that each item has, under the same spec key."""
        return ()

    @property
    def learns_labels(self) -> bool:
        """Of 'run': whether labels of videos are learned from; else they are in no key and change nothing."""
        return True

    @property
    def video_label_setting(self) -> str:
        """The setting that reads videos' own labels (per_action); empty: those beside labels of rows are in no key."""
        return ""

    @property
    def own_labels(self) -> Settings | None:
        """Labels of this node alone (a LabelsConfig); None: those of the pipeline."""
        return cast("Settings | None", getattr(self, "labels", None))

    @property
    def mirrors(self) -> str:
        """The setting by which frames that are learned from are mirrored, left and right, at random; empty: none is."""
        return f"augment.{name}" if (name := getattr(getattr(self, "augment", None), "mirrors", "")) else ""

    @property
    def needs_gpu(self) -> str:
        """What of the settings needs a GPU, and what to do without one; "" where nothing does."""
        return ""

    @classmethod
    def role(cls, name: str) -> str:
        """'spec', 'training', 'execution', 'input' or 'source' for the field ``name``."""
        return str(extra_of(cls.model_fields[name]).get("role", "spec"))

    @classmethod
    def expected(cls, spec: Mapping[str, Any]) -> dict[str, Any]:
        """What of a spec the weights of such a run expect of what reads them: all that is not of training alone."""
        return {name: spec[name] for name in spec if name not in cls.model_fields or cls.role(name) != "training"}

    @classmethod
    def used(cls, name: str) -> str:
        """What a run uses an input for: 'training' alone, 'start', or '' where those that read its weights need it."""
        return str(extra_of(cls.model_fields[name]).get("used", "")) if name in cls.model_fields else ""

    def counts(self, name: str) -> bool:
        """Whether the value of a field enters the key, as the other fields are set."""
        return self.role(name) in {"spec", "training"} and enters(self, type(self).model_fields[name])

    @classmethod
    def input_kinds(cls, name: str) -> tuple[str, ...]:
        """What the input field ``name`` may point to, as `produces` values."""
        return tuple(extra_of(cls.model_fields[name])["kinds"])

    def spec(self) -> dict[str, Any]:
        """What enters the key by value: plain data, fields in alphabetical order."""
        fields = type(self).model_fields
        names = [name for name in sorted(fields) if self.counts(name)]
        dumped = self.model_dump(mode="json", include=set(names))
        values = {name: without_execution(getattr(self, name), dumped[name]) for name in names}
        pairs = {name: list(map(list, values[name].items())) for name in names if extra_of(fields[name]).get("ordered")}
        return {**values, **{name: entries for name, entries in pairs.items() if entries}}

    def plain(self) -> dict[str, Any]:
        """What travels to where the work is done, from which the same settings are made again."""
        return self.model_dump(mode="json")

    def inputs(self) -> dict[str, list[str]]:
        """Input field -> names of the nodes it points to (empty when not set)."""
        values = {name: getattr(self, name) for name in type(self).model_fields if self.role(name) == "input"}
        return {name: [value] if isinstance(value, str) else list(value or ()) for name, value in values.items()}

    def complete(self, read: Mapping[str, StageConfig], *, where: str) -> Self:
        """These settings with inputs filled in that follow from the nodes they name; ``read`` has all by name."""
        del read, where
        return self

    def check_inputs(self, inputs: Mapping[str, Sequence[StageConfig]]) -> None:
        """Raise ConfigError when these settings do not fit those of the nodes they read (by input field)."""

    def check_names(self) -> None:
        """Raise ConfigError for a name or option that only a library knows (an encoder's), without loading torch."""

    def plugins(self) -> dict[str, PluginUse]:
        """Field -> the plug-in that it names."""
        found = {}
        for field in type(self).model_fields:
            value = getattr(self, field)
            blocks = {field: value} if isinstance(value, Settings) else {}
            if isinstance(value, tuple):
                blocks = {f"{field}[{n}]": entry for n, entry in enumerate(value) if isinstance(entry, Settings)}
            found.update({place: use for place, block in blocks.items() if (use := block.plugin()) is not None})
        return found

    def packages(self, endings: Collection[str]) -> dict[str, str]:
        """Packages beyond the required ones that these settings need: name to import -> what for, and what to do.

        ``endings`` are those of the videos' file names (.h5).
        """
        del endings
        return {}

    def named_splits(self) -> dict[str, tuple[tuple[str, ...], bool]]:
        """Setting -> the splits that it names, and whether a video has to be in them."""
        return {}

    def named_videos(self) -> dict[str, tuple[str, ...]]:
        """Setting -> the videos that it names, by video_id, of any split."""
        return {}

    def check_files(self, place: Callable[[str], Path]) -> None:
        """Raise InputError for a table that a field names and that is wrong; ``place`` says where such a file lies."""

    def files_with_videos(self) -> tuple[str, ...]:
        """Source fields that are set and are tables of some videos (column video_id), whose contents enter the key."""
        return ()

    def window_rows(self) -> tuple[int, str] | None:
        """Rows that a window reaches over, and what is done where a video is shorter; None: windows fit any video."""
        return None

    def rows_of_video(self, *, num_frames: int, duration_seconds: float, start_seconds: float) -> float | None:
        """About how many rows are made of a video of which so much is known; None where it does not tell."""
        del num_frames, duration_seconds, start_seconds
        return None

    def bytes_of_row(self, height: int, width: int) -> float | None:
        """Bytes that a stored frame of a video of this size takes at most; None where no frames are made."""
        del height, width
        return None

    def num_updates(self, rows: Sequence[tuple[str, float]], *, times: float) -> int | None:
        """About how many updates a run makes of videos (split, rows), each standing for so many; None: not known."""
        del rows, times
        return None

    def most_rows(self, num_rows: float) -> float | None:
        """No more rows of a video than this are made of so many; None where that is not known before."""
        return num_rows

    def wanted_splits(self) -> tuple[str, ...] | None:
        """Only videos of these splits are read; None: all."""
        return None

    def num_frames(self, num_rows: int) -> tuple[int, int] | None:
        """The fewest and the most frames of a video of which there are so many rows; None where that is not asked."""
        del num_rows
        return None

    def hub_weights(self) -> str | None:
        """Name of an encoder whose weights come from a hub; they are fetched into the store first."""
        return None

    def sources(self) -> dict[str, str]:
        """Source field -> path as written, for those that are set."""
        named = ((name, getattr(self, name)) for name in type(self).model_fields if self.role(name) == "source")
        return {name: str(value) for name, value in named if value is not None}
