"""The settings of stages, models and objectives as a list: name, default, what is allowed, what it means."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
import types
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer

from reelwright.cli.options import JsonOption

_WORDS = {"str": "text", "bool": "true or false", "NoneType": "null", "Any": "anything", "Path": "path", "dict": "map"}
_LISTS = (list, tuple, set, frozenset)


@dataclass(frozen=True)
class Setting:
    """One setting: its dotted name, default as Python writes it, or ``required``, type and meaning."""

    name: str
    default: str
    allowed: str
    meaning: str


def _known(incomplete: str) -> list[str]:
    """Names for the shell to offer."""
    from reelwright.stages.base.registry import all_stages

    return [name for name in (*all_stages(), *blocks(), *models(), *objectives()) if name.startswith(incomplete)]


def settings(
    name: Annotated[
        str | None,
        typer.Argument(
            help="A stage, model or objective, or videos, labels, synthesize, cluster. Without: which there are.",
            autocompletion=_known,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the settings of a stage, or the options of a model or objective: name, default, meaning, what is allowed."""
    from reelwright.cli.format import print_json

    if name is None:
        _list_names(as_json=as_json)
        return
    owner, _ = settings_of(name)
    found = all_settings(name)
    if as_json:
        print_json({"name": name, "settings": [vars(entry) for entry in found]})
        return
    typer.echo((owner.__doc__ or "").strip() + "\n")
    for entry in found:
        typer.echo(f"{entry.name} = {entry.default}")
        text = " ".join(filter(None, [entry.meaning, f"[{entry.allowed}]" if entry.allowed else ""]))
        for line in textwrap.wrap(text, width=110, initial_indent="    ", subsequent_indent="    "):
            typer.echo(line)


def _list_names(*, as_json: bool) -> None:
    """What has settings, in groups, with the first sentence of each."""
    from reelwright.cli.format import print_json, table_text
    from reelwright.stages.base.registry import all_stages

    groups = {"stage": all_stages(), "model": models(), "objective": objectives(), "block": blocks()}
    rows = [(name, group, _about(name)) for group, names in groups.items() for name in names]
    if as_json:
        print_json([dict(zip(("name", "kind", "about"), row, strict=True)) for row in rows])
    else:
        typer.echo(table_text(("name", "kind", "what it is"), rows))


def _about(name: str) -> str:
    """What an objective is stands behind its name, beside the others'; of all else in the docstring."""
    owner, of_name = settings_of(name)
    found = re.search(rf"\b{name}: (.*?)(?:; \w+: |\.?$)", _notes(owner)["name"]) if of_name else None
    return _summary(owner) if found is None else found[1]


def all_settings(name: str) -> list[Setting]:
    """Those of a name that `settings_of` knows, and `seeds` and `folds` of stages that have a seed, or learn."""
    owner, of_name = settings_of(name)
    found = list(listed(owner, of_name=of_name))
    if name not in blocks() and "seed" in getattr(owner, "model_fields", {}):
        meaning = "Instead of seed: how many (4: 0, 1, 2, 3) or which ones; a run each, and the mean of their scores."
        found.append(Setting("seeds", "None", "whole number | list of whole number", meaning))
    if getattr(owner, "kind", "") == "run" and "train_splits" in getattr(owner, "model_fields", {}):
        meaning = "Instead of train_splits: all (of videos.splits), or which; each is held out once, and scored."
        found.append(Setting("folds", "None", "all | list of text", meaning))
    return found


def settings_of(name: str) -> tuple[type[Any], str]:
    """The class that holds the settings, and the name whose alone they are (of an objective), else empty.

    Raises ConfigError for a name that is none of them.
    """
    from reelwright.stages.base.registry import config_model

    for group in (blocks(), models()):
        if name in group:
            return group[name], ""
    if name in objectives():
        return objectives()[name], name
    return config_model(name, where="reelwright settings"), ""


def blocks() -> dict[str, type[Any]]:
    """Blocks of a pipeline file that are of no node."""
    from reelwright.pipeline.config.cluster import ClusterSettings
    from reelwright.stages.index.config import LabelsConfig, VideosConfig
    from reelwright.stages.synthesize.config import SourceConfig

    return {"videos": VideosConfig, "labels": LabelsConfig, "synthesize": SourceConfig, "cluster": ClusterSettings}


def models() -> Mapping[str, type[Any]]:
    """Models that `model.name` may name."""
    from reelwright.stages.fit.network_config import MODEL_OPTIONS

    return MODEL_OPTIONS


def objectives() -> dict[str, type[Any]]:
    """Objectives that `objective.name` may name."""
    from reelwright.stages.objectives.config import (
        SELF_SUPERVISED,
        SEQUENCE_OBJECTIVES,
        SelfSupervisedSettings,
        SequenceObjectiveSettings,
    )

    of_frames = dict.fromkeys(SEQUENCE_OBJECTIVES, SequenceObjectiveSettings)
    return {**of_frames, **dict.fromkeys(SELF_SUPERVISED, SelfSupervisedSettings)}


def listed(owner: type[Any], *, of_name: str = "", prefix: str = "", block: Any = None) -> Iterator[Setting]:
    """All settings, those of blocks behind their block.

    ``of_name`` leaves out what means nothing beside this `name`; ``block`` has the values that are the defaults.
    """
    notes = _notes(owner)
    if is_dataclass(owner):
        hints = get_type_hints(owner, include_extras=True)
        for field in fields(owner):
            default = field.default_factory() if field.default_factory is not MISSING else field.default
            shown = "required" if default is MISSING else repr(default)
            yield Setting(prefix + field.name, shown, allowed(hints[field.name]), notes.get(field.name, ""))
        return
    for name, info in owner.model_fields.items():
        if of_name and (name == "name" or not owner.is_kept(name, of_name)):
            continue
        value = info.get_default(call_default_factory=True) if block is None else getattr(block, name)
        nested, always = next(_nested(info.annotation), None), _is_block(info.annotation)
        meaning = notes.get(name) or (_summary(nested) if nested else "")
        if not always:
            default = "required" if block is None and info.is_required() else repr(value)
            limits = "" if nested else allowed(info.annotation, info.metadata)
            yield Setting(prefix + name, default if nested is None or value is None else "{}", limits, meaning)
        if nested is not None:
            inner = value if isinstance(value, nested) else None
            yield from listed(nested, prefix=f"{prefix}{name}.", block=inner)


def allowed(annotation: Any, limits: Any = ()) -> str:
    """What a value may be, in words: ``whole number > 0``, ``'a' | 'b' | null``."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return allowed(arguments[0], (*limits, *arguments[1:]))
    if origin is Literal:
        return " | ".join(str(value) for value in arguments)
    if origin in {types.UnionType, Union}:
        own = [allowed(each, limits if each is not type(None) else ()) for each in arguments]
        return " | ".join(dict.fromkeys(own))
    if origin in _LISTS:
        return f"list of {allowed(arguments[0])}"
    if origin is dict:
        return f"map of {allowed(arguments[1])}"
    bounds = "".join(
        f" {sign} {getattr(limit, name):g}"
        for limit in limits
        for name, sign in (("gt", ">"), ("ge", ">="), ("lt", "<"), ("le", "<="))
        if getattr(limit, name, None) is not None
    )
    name = getattr(annotation, "__name__", str(annotation))
    return {"int": "whole number", "float": "number"}.get(name, _WORDS.get(name, name)) + bounds


def _summary(owner: type[Any]) -> str:
    """The first paragraph of its docstring."""
    return " ".join((inspect.getdoc(owner) or "").partition("\n\n")[0].split())


def _is_block(annotation: Any) -> bool:
    return isinstance(annotation, type) and hasattr(annotation, "model_fields")


def _nested(annotation: Any) -> Iterator[type[Any]]:
    """The block that a setting is, or may be."""
    if _is_block(annotation):
        yield annotation
    elif isinstance(annotation, types.UnionType) or get_origin(annotation) is Union:
        yield from (each for each in get_args(annotation) if _is_block(each))


def _notes(owner: type[Any]) -> dict[str, str]:
    """What stands in the source of the class, and of those it inherits from, below a field or behind it."""
    notes: dict[str, str] = {}
    for each in reversed(owner.__mro__):
        if "__annotations__" in vars(each) and not each.__module__.startswith("pydantic"):
            source = textwrap.dedent(inspect.getsource(each))
            (body,) = ast.parse(source).body
            assert isinstance(body, ast.ClassDef)
            lines = source.encode().splitlines(keepends=True)
            for field in body.body:
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                    behind = lines[field.end_lineno - 1][field.end_col_offset :]  # type: ignore[operator]
                    text = _first_text((behind + b"".join(lines[field.end_lineno :])).decode())
                    notes.update({field.target.id: text} if text else {})
    return notes


def _first_text(source: str) -> str:
    """A text in quotes, or comments, that the source begins with."""
    source = re.sub(r"^[ \t]*# (?:type: ignore|noqa)[^\n]*", "", source)  # of tools, not for people
    text = re.match(r'\s*"""(.*?)"""', source, re.DOTALL)
    comment = re.match(r"(?:[ \t]*#[^\n]*\n)+|\n(?:[ \t]*#[^\n]*\n)+", source)
    if text or not comment:
        return " ".join(text[1].split()) if text else ""
    return " ".join(re.sub(r"^\s*# ?", "", comment[0].strip(), flags=re.MULTILINE).split())
