"""What every stage's settings share: frozen models, unknown keys refused, and which fields enter the key.

A field enters the key of its node, and that of what reads the weights of its run, unless its role says otherwise:

    execution(...)     no key: how it is done, not what comes out
    training(...)      the run's key only: how weights were found; what reads them has their digest in its key
    setting(when=...)  the keys only where other settings let it say something (the quality of JPEG)
    node_input(...)    names a node; enters by that node's digest, not by name
    source_file(...)   names a file; enters by the file's content
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar, Literal, Self, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from reelwright.stages.base.plugins import PluginUse
from reelwright.storage.errors import ConfigError, nearest

C = TypeVar("C", bound="Settings")


def execution(default: Any = ..., **options: Any) -> Any:
    """A field that changes how the work is done but not its output; it never enters a key."""
    return Field(default, json_schema_extra={"role": "execution"}, **options)


def training(default: Any = ..., *, when: Callable[[Any], bool] | None = None, **options: Any) -> Any:
    """A field of how weights are found; it enters the run's key, and those of its users by the weights alone.

    ``when`` is that of `setting`.
    """
    extra: dict[str, Any] = {"role": "training", **({} if when is None else {"when": when})}
    return Field(default, json_schema_extra=extra, **options)


def setting(default: Any = ..., *, when: Callable[[Any], bool], **options: Any) -> Any:
    """A field that enters the key where ``when`` is true of the whole settings; else it changes nothing."""
    extra: dict[str, Any] = {"role": "spec", "when": when}  # read here alone: no JSON schema is made of settings
    return Field(default, json_schema_extra=extra, **options)


def ordered(*, role: Literal["spec", "training"] = "spec") -> Any:
    """A field with a mapping, empty unless set, whose order counts: it enters keys as pairs."""
    return Field(default_factory=dict, json_schema_extra={"role": role, "ordered": True})


def node_input(
    default: Any = ..., *, kinds: tuple[str, ...], used: Literal["", "training", "start"] = "", **options: Any
) -> Any:
    """A field that names one node (str) or several (list) whose stage produces one of ``kinds``.

    ``used`` by a run: for training only; or as its start, so that its weights expect what those of that run expect.
    """
    return Field(default, json_schema_extra={"role": "input", "kinds": list(kinds), "used": used}, **options)


def source_file(default: Any = ..., *, used: Literal["", "training"] = "", **options: Any) -> Any:
    """A field that names a file which enters the key by content; relative paths start at the pipeline file's folder.

    ``used`` by a run for training only: it enters the run's key alone.
    """
    return Field(default, json_schema_extra={"role": "source", "used": used}, **options)


def of_names(default: Any = ..., *, names: tuple[str, ...], **options: Any) -> Any:
    """A field of a block with a `name` that means something for these names only."""
    return Field(default, json_schema_extra={"names": list(names)}, **options)


class Settings(BaseModel):
    """A frozen block of settings: unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)
    renamed: ClassVar[Mapping[str, str]] = {}  # settings, and values of choices, of earlier releases; see `nearest`

    def plugin(self) -> PluginUse | None:
        """The plug-in that this block names, if it names one."""
        return None

    @classmethod
    def is_kept(cls, field: str, name: str) -> bool:
        """Whether a setting of a block with a `name` stays as it is when the block is given the name ``name``.

        Fields that every name has do (an optimizer's lr), and those that are declared to be of this name too; options
        beyond the fields are the other name's own.
        """
        if field not in cls.model_fields:
            return False
        names = _extra(cls.model_fields[field]).get("names")
        return names is None or name in names


class StageConfig(Settings):
    """The settings of one node. Subclasses name their stage and say what it makes."""

    stage: ClassVar[str]
    version: ClassVar[int]  # raised by hand when the stage's output changes
    kind: ClassVar[str]  # 'items' (per video), 'run' (one trained model) or 'table' (one small result)
    produces: ClassVar[str]  # frames | embeddings | run | predictions | steps | scores
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
    def learns_labels(self) -> bool:
        """Of 'run': whether labels of videos are learned from; else they are in no key and change nothing."""
        return True

    @property
    def own_labels(self) -> Settings | None:
        """Labels of this node alone (a LabelsConfig); None: those of the pipeline."""
        return cast("Settings | None", getattr(self, "labels", None))

    @classmethod
    def role(cls, name: str) -> str:
        """'spec', 'training', 'execution', 'input' or 'source' for the field ``name``."""
        return str(_extra(cls.model_fields[name]).get("role", "spec"))

    @classmethod
    def expected(cls, spec: Mapping[str, Any]) -> dict[str, Any]:
        """What of a spec the weights of such a run expect of what reads them: all that is not of training alone."""
        return {name: spec[name] for name in spec if name not in cls.model_fields or cls.role(name) != "training"}

    @classmethod
    def used(cls, name: str) -> str:
        """What a run uses an input for: 'training' alone, 'start', or '' where those that read its weights need it."""
        return str(_extra(cls.model_fields[name]).get("used", "")) if name in cls.model_fields else ""

    def counts(self, name: str) -> bool:
        """Whether the value of a field enters the key, as the other fields are set."""
        return self.role(name) in {"spec", "training"} and _enters(self, type(self).model_fields[name])

    @classmethod
    def input_kinds(cls, name: str) -> tuple[str, ...]:
        """What the input field ``name`` may point to, as `produces` values."""
        return tuple(_extra(cls.model_fields[name])["kinds"])

    def spec(self) -> dict[str, Any]:
        """What enters the key by value: plain data, fields in alphabetical order."""
        fields = type(self).model_fields
        names = [name for name in sorted(fields) if self.counts(name)]
        dumped = self.model_dump(mode="json", include=set(names))
        values = {name: _without_execution(getattr(self, name), dumped[name]) for name in names}
        pairs = {name: list(map(list, values[name].items())) for name in names if _extra(fields[name]).get("ordered")}
        return {**values, **{name: entries for name, entries in pairs.items() if entries}}

    def inputs(self) -> dict[str, list[str]]:
        """Input field -> names of the nodes it points to (empty when not set)."""
        values = {name: getattr(self, name) for name in type(self).model_fields if self.role(name) == "input"}
        return {name: [value] if isinstance(value, str) else list(value or ()) for name, value in values.items()}

    def complete(self, read: Mapping[str, StageConfig], *, where: str) -> Self:
        """These settings with inputs filled in that follow from the nodes they name (``read``, by name)."""
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

    def window_rows(self) -> tuple[int, str] | None:
        """Rows that a window reaches over, and what is done where a video is shorter; None: windows fit any video."""
        return None

    def rows_of_video(self, *, num_frames: int, duration_seconds: float, start_seconds: float) -> float | None:
        """About how many rows are made of a video of which so much is known; None where it does not tell."""
        del num_frames, duration_seconds, start_seconds
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


def parse_config(model: type[C], values: dict[str, Any], *, where: str) -> C:
    """Check ``values`` against ``model``.

    Raises ConfigError that names every wrong key, its value, what is allowed, and the nearest known name.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = [_problem(model, problem) for problem in error.errors()]
        raise ConfigError("\n  ".join([f"{where}: {len(lines)} problem(s) in the settings", *lines])) from None


def _problem(model: type[BaseModel], problem: Any) -> str:
    location = ".".join(str(part) for part in problem["loc"]) or "(whole block)"
    owner = model_at(model, problem["loc"][:-1])
    renamed = getattr(owner, "renamed", {})
    if problem["type"] == "extra_forbidden":
        known = sorted(owner.model_fields) if owner else []
        allowed = f" Known: {', '.join(known)}." if known else ""
        return f"{location}: unknown key.{nearest(str(problem['loc'][-1]), known, renamed)}{allowed}"
    if problem["type"] == "missing":
        return f"{location}: missing; it has no default."
    message = problem["msg"].removeprefix("Value error, ")
    hint = nearest(str(problem["input"]), (), renamed)
    return f"{location}: {problem['input']!r} is not allowed: {message}{hint and f'.{hint}'}"


def model_at(model: type[BaseModel], location: tuple[Any, ...]) -> type[BaseModel] | None:
    """The model of the block at ``location`` below ``model``; None where there is no block of settings."""
    current: Any = model
    for part in location:
        if not (isinstance(current, type) and issubclass(current, BaseModel)) or part not in current.model_fields:
            return None
        annotation = current.model_fields[part].annotation
        inner = (annotation, *getattr(annotation, "__args__", ()))
        current = next((entry for entry in inner if isinstance(entry, type)), None)
    return current if isinstance(current, type) and issubclass(current, BaseModel) else None


def _extra(info: FieldInfo) -> dict[str, Any]:
    return info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}


def _without_execution(value: Any, dumped: Any) -> Any:
    """Drop fields of nested blocks that enter no key; what a block takes beyond its fields (model options) stays."""
    if not isinstance(value, Settings):
        return _same_numbers(dumped) if isinstance(value, Mapping) else dumped
    fields = type(value).model_fields
    return {
        name: _without_execution(getattr(value, name), dumped[name]) if name in fields else _same_numbers(dumped[name])
        for name in sorted(dumped)
        if name not in fields or _enters(value, fields[name])
    }


def _enters(block: Settings, field: FieldInfo) -> bool:
    """Whether a field of a block enters the key with it, as the block's other fields are set."""
    extra = _extra(field)
    return extra.get("role") != "execution" and ("when" not in extra or bool(extra["when"](block)))


def _same_numbers(value: Any) -> Any:
    """0.0 as 0 where no field says which type is meant (options of a model): both are the same number."""
    if isinstance(value, Mapping):
        return {name: _same_numbers(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_same_numbers(entry) for entry in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
