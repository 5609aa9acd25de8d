"""What every stage's settings share: frozen models, unknown keys refused, and which fields enter the key.

A field enters the key of its node, and that of what reads the weights of its run, unless its role says otherwise:

    execution(...)     no key: how it is done, not what comes out
    training(...)      the run's key only: how weights were found; what reads them has their digest in its key
    setting(when=...)  the keys only where other settings let it say something (the quality of JPEG)
    matters(when=...)  all keys; where other settings let it say nothing it is refused, and `setting` fields are too
    node_input(...)    names a node; enters by that node's digest, not by name
    source_file(...)   names a file; enters by the file's content
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Literal, TypeVar

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


def setting(default: Any = ..., *, when: Callable[[Any], bool], of_report: bool = False, **options: Any) -> Any:
    """A field that enters the key where ``when`` is true of the whole settings; else it changes nothing.

    Then it is refused, unless it is ``of_report``, which people turn off for a while without taking out how it looks.
    """
    # read here alone: no JSON schema is made of settings
    extra: dict[str, Any] = {"role": "spec", "when": when, "of_report": of_report}
    return Field(default, json_schema_extra=extra, **options)


def matters(
    default: Any = ..., *, when: Callable[[Any], bool], role: Literal["spec", "training"] = "spec", **options: Any
) -> Any:
    """A field that enters keys as others do, but changes nothing where ``when`` is not true of its block."""
    extra: dict[str, Any] = {"role": role, "matters": when}
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


def of_names(
    default: Any = ...,
    *,
    names: tuple[str, ...],
    when: Callable[[Any], bool] | None = None,
    matters: Callable[[Any], bool] | None = None,
    **options: Any,
) -> Any:
    """A field of a block with a `name` that means something for these names only.

    ``when`` is that of `setting`, ``matters`` the ``when`` of the function called so.
    """
    given = {"when": when, "matters": matters}
    extra: dict[str, Any] = {"names": list(names), **{name: of for name, of in given.items() if of is not None}}
    return Field(default, json_schema_extra=extra, **options)


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


def without_effect(block: Settings, *, place: str = "") -> Iterator[tuple[str, Any]]:
    """Settings that are given and not as usual, but change nothing as the others are: (place, value).

    They are of another name (`of_names`), enter no key (`setting(when=...)`) or do not matter (`matters(when=...)`), of
    a block or of those in it, or options that a block says itself.
    """
    for name in block.without_effect():
        yield f"{place}{name}", (block.model_extra or {})[name]
    for name in sorted(block.model_fields_set & type(block).model_fields.keys()):
        field, value = type(block).model_fields[name], getattr(block, name)
        extra = extra_of(field)
        if value == field.get_default(call_default_factory=True) or extra.get("of_report"):
            continue
        is_of_name = "names" not in extra or getattr(block, "name", None) in extra["names"]
        if not is_of_name or not all(extra[how](block) for how in ("when", "matters") if how in extra):
            yield f"{place}{name}", value
            continue
        below = {"": value} if isinstance(value, Settings) else dict(enumerate(value)) if type(value) is tuple else {}
        for at, inner in below.items():
            if isinstance(inner, Settings):
                yield from without_effect(inner, place=f"{place}{name}{'' if at == '' else f'[{at}]'}.")


def _same_numbers(value: Any) -> Any:
    """0.0 as 0 where no field says which type is meant (options of a model): both are the same number."""
    if isinstance(value, Mapping):
        return {name: _same_numbers(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_same_numbers(entry) for entry in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
