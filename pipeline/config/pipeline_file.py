"""The pipeline file: YAML and overrides in, checked settings out. Nothing is run and nothing heavy is imported."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from reelwright.pipeline.config.cluster import ClusterSettings
from reelwright.pipeline.config.seeds import FOLDS, SEEDS, Seeds, folds_of, seeds_of, spread
from reelwright.stages.base.config import Settings, StageConfig, extra_of, parse_config
from reelwright.stages.base.registry import config_model
from reelwright.stages.index.config import LabelsConfig, VideosConfig
from reelwright.storage.errors import ConfigError
from reelwright.storage.store import Store, is_url

DEFAULT_NAMES = ("reelwright.yaml", "pipeline.yaml")
STORE_VARIABLE = "REELWRIGHT_STORE"
_USES = "uses"
_NOT_PLAIN = ("${", "!", "???", "\\")
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_@.-]*")
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?[0-9]+(\.[0-9]*([eE][-+]?[0-9]+)?|[eE][-+]?[0-9]+)")
_MOST_NODES, _MOST_LEVELS = 1000, 30  # anchors written out; a file may hide a million, or itself, behind a few
_NUMBER_STARTS = frozenset("-+.0123456789")
_STRING, _NULL, _BOOL = (f"tag:yaml.org,2002:{name}" for name in ("str", "null", "bool"))
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class PipelineSettings(Settings):
    """The blocks of a pipeline file."""

    videos: dict[str, Any]
    labels: dict[str, Any] | None = None
    store: str | None = Field(None, min_length=1)
    """Folder of cached outputs; null: $REELWRIGHT_STORE, else .reelwright/store beside the pipeline file."""
    cluster: dict[str, Any] = Field(default_factory=dict)
    """Where it runs, and with what; `reelwright settings cluster` lists the settings."""
    stages: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class PipelineFile:
    """A checked pipeline file."""

    path: Path  # absolute; relative paths in the file start at its folder
    videos: VideosConfig
    labels: LabelsConfig | None
    nodes: dict[str, StageConfig]  # in the order of the file; of a node with `seeds`, one a seed (train@0)
    store: Store
    overrides: tuple[str, ...] = ()  # name=value that were laid over the file
    cluster: dict[str, Any] = field(default_factory=dict)  # checked when an executor is chosen; never in a key

    @property
    def folder(self) -> Path:
        """Where relative paths start."""
        return self.path.parent

    def place(self, written: str) -> str:
        """A URL as it is, else the absolute path, as text."""
        return written if is_url(written) else str(self.resolve(written))

    def local(self, written: str) -> Path:
        """A file on this machine that is written in the file; of a URL a copy of what the object is now.

        Raises as `local_file` where there is no such object.
        """
        if not is_url(written):
            return self.resolve(written)
        from reelwright.storage.bucket.download_cache import local_file

        return local_file(written)

    def resolve(self, written: str) -> Path:
        """An absolute path for one that is written in the file."""
        return Path(os.path.abspath(self.folder / Path(written).expanduser()))  # noqa: PTH100 - links stay as set


def find_pipeline_file(given: Path | None) -> Path:
    """The file given, or the first of reelwright.yaml and pipeline.yaml in the working folder."""
    if given is not None:
        if not given.is_file():
            raise ConfigError(f"{given}: no such pipeline file. `reelwright init` writes one")
        return given.absolute()
    for name in DEFAULT_NAMES:
        if Path(name).is_file():
            return Path(name).absolute()
    raise ConfigError(
        f"no {' or '.join(DEFAULT_NAMES)} in {Path.cwd()}: give one with -c, or write one with `reelwright init`"
    )


def load_pipeline(path: Path, overrides: Sequence[str] = ()) -> PipelineFile:
    """Read and check a pipeline file. Raises ConfigError with file, key, value and what is allowed."""
    values = None if overrides else read_plain(path)
    if values is None:  # OmegaConf is imported where it is needed: that takes a fifth of a run with nothing to do
        from reelwright.pipeline.config.overrides import merge, read_yaml

        values = merge(read_yaml(path), overrides, path)
    return build_pipeline(values, path=path, overrides=overrides)


class _OtherYamlError(Exception):
    """Something that is not plain."""


def read_plain(path: Path) -> dict[str, Any] | None:
    """The mapping in a YAML file; None where it is not there, wrong, or anything in it is not plain.

    Plain are mappings with names as keys, lists, quoted text, words, decimal numbers, true, false and null.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if any(mark in text for mark in _NOT_PLAIN):
            return None
        node = yaml.compose(text, Loader=_Loader)
        values = _plain(node, count(), 0)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, _OtherYamlError):
        return None  # what is wrong is said where it is read again
    return values if isinstance(values, dict) else None


def _plain(node: Any, counted: Iterator[int], depth: int) -> Any:
    if next(counted) > _MOST_NODES or depth > _MOST_LEVELS:
        raise _OtherYamlError
    match node:
        case yaml.MappingNode(value=pairs):
            names = [_key(key) for key, _ in pairs]
            if len(set(names)) < len(names):
                raise _OtherYamlError
            return {name: _plain(value, counted, depth + 1) for name, (_, value) in zip(names, pairs, strict=True)}
        case yaml.SequenceNode(value=entries):
            return [_plain(entry, counted, depth + 1) for entry in entries]
        case yaml.ScalarNode():
            return _scalar(node)
    raise _OtherYamlError


def _key(node: Any) -> str:
    if not isinstance(node, yaml.ScalarNode) or node.tag != _STRING or not _KEY.fullmatch(node.value):
        raise _OtherYamlError
    return str(node.value)


def _scalar(node: yaml.ScalarNode) -> Any:
    text = str(node.value)
    if node.style and node.tag == _STRING:  # of quotes or a block; plain text has none, "" by the C reader
        return text
    if node.style:
        raise _OtherYamlError
    if node.tag == _NULL:
        return None
    if node.tag == _BOOL:
        return yaml.SafeLoader.bool_values[text.lower()]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if node.tag != _STRING or text[0] in _NUMBER_STARTS:
        raise _OtherYamlError
    return text


def build_pipeline(values: dict[str, Any], *, path: Path, overrides: Sequence[str] = ()) -> PipelineFile:
    """Check settings that are read already; ``path`` is where relative paths start and what messages name.

    ``overrides`` are in ``values``, and noted as given.
    """
    settings = parse_config(PipelineSettings, values, where=str(path))
    seeds: dict[str, Seeds] = {}
    videos = parse_config(VideosConfig, settings.videos, where=f"{path}: videos")
    nodes = {name: _node(name, block, path, seeds, splits=videos.splits) for name, block in settings.stages.items()}
    for name, config in nodes.items():
        _check_effects(name, config, overrides, where=f"{path}: stages.{name}")
    labels = None if settings.labels is None else parse_config(LabelsConfig, settings.labels, where=f"{path}: labels")
    return PipelineFile(
        path=path,
        videos=videos,
        labels=labels,
        nodes=spread(nodes, seeds, where=str(path)) if seeds else nodes,
        store=_store(settings.store, path),
        overrides=tuple(overrides),
        cluster=_cluster(settings.cluster, path),
    )


def _node(
    name: str, block: dict[str, Any], path: Path, seeds: dict[str, Seeds], *, splits: Sequence[str]
) -> StageConfig:
    """The settings of one node; notes in ``seeds`` the seeds or folds that it asks for."""
    where = f"{path}: stages.{name}"
    if name in PipelineSettings.model_fields:
        raise ConfigError(f"{where}: a node cannot be called {name}, which is a block of the file")
    if not name.replace("_", "").replace("-", "").isalnum():
        raise ConfigError(f"{where}: a node's name has letters, digits, _ and - only")
    if not isinstance(block, dict) or "uses" not in block:
        raise ConfigError(f"{where}: `uses:` is missing; it names the stage, as in `uses: embed`")
    model = config_model(str(block["uses"]), where=where)
    if not block.keys().isdisjoint((SEEDS, FOLDS)):
        asked: Seeds | None = folds_of(block, model, splits=splits, where=where)
        asked = seeds_of(block, model, where=where) if asked is None else asked
        seeds.update({} if asked is None else {name: asked})
    own = SEEDS in model.model_fields
    values = {key: value for key, value in block.items() if key not in {_USES, FOLDS} and (key != SEEDS or own)}
    return parse_config(model, values, where=where)


def _check_effects(name: str, config: StageConfig, overrides: Sequence[str], *, where: str) -> None:
    """Raise ConfigError for a setting that changes nothing, unless overrides, which do not give it, made it so.

    codec=lossless over a file with codec: jpeg and quality: 80 is meant; nobody can take quality out of a file so.
    """
    begins = (f"{name}.", f"stages.{name}.")
    laid = [entry.removeprefix(start) for entry in overrides for start in begins if entry.startswith(start)]
    over = [_steps(entry.partition("=")[0]) for entry in laid]
    for place, value in without_effect(config):
        own = _steps(place)
        if any(path[: len(own) - 1] == own[:-1] for path in over) and not any(
            path[: len(own)] == own[: len(path)] for path in over
        ):
            continue
        raise ConfigError(
            f"{where}.{place} is {_shown(value)}, which changes nothing as the other settings are; leave it out, or "
            f"give what it is of (`reelwright settings {config.stage}` says it)"
        )


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


def _steps(place: str) -> list[str]:
    """optimizer.groups[0].lr_scale: optimizer, groups, 0, lr_scale."""
    return place.replace("[", ".").replace("]", "").split(".")


def _shown(value: Any) -> Any:
    return value.model_dump(mode="json", exclude_unset=True) if isinstance(value, Settings) else value


def _cluster(block: dict[str, Any], path: Path) -> dict[str, Any]:
    parse_config(ClusterSettings, block, where=f"{path}: cluster")
    return block


def _store(written: str | None, path: Path) -> Store:
    if written is None:
        store = Store.at(os.environ.get(STORE_VARIABLE) or path.parent / ".reelwright" / "store")
    else:
        store = Store.at(written if is_url(written) else path.parent / Path(written).expanduser())
    if store.url is None and store.root.is_file():
        raise ConfigError(f"{path}: store: {store.root} is a file; name a folder, or one that is not there yet")
    return store
