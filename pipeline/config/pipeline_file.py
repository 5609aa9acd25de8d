"""The pipeline file: YAML and overrides in, checked settings out. Nothing is run and nothing heavy is imported."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import Field

from reelwright.pipeline.config.cluster import ClusterSettings
from reelwright.pipeline.config.seeds import FOLDS, SEEDS, Seeds, folds_of, seeds_of, spread
from reelwright.stages.base.config import Settings, model_at, parse_config, without_effect
from reelwright.stages.base.registry import all_stages, config_model
from reelwright.stages.base.stage_config import StageConfig
from reelwright.stages.index.config import LabelsConfig, VideosConfig
from reelwright.storage.errors import ConfigError, nearest
from reelwright.storage.store import Store
from reelwright.storage.urls import is_url

DEFAULT_NAMES = ("reelwright.yaml", "pipeline.yaml")
STORE_VARIABLE = "REELWRIGHT_STORE"
_USES, _NAME = "uses", "name"
_UNSET = re.compile(r"Environment variable '(.+?)' not found")  # as OmegaConf says it


class PipelineSettings(Settings):
    """The blocks of a pipeline file."""

    videos: dict[str, Any]
    labels: dict[str, Any] | None = None
    store: str | None = None
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
    return build_pipeline(read_yaml(path), path=path, overrides=overrides)


def build_pipeline(content: DictConfig, *, path: Path, overrides: Sequence[str] = ()) -> PipelineFile:
    """Check settings that are read already; ``path`` is where relative paths start and what messages name."""
    values = _merge(content, overrides, path)
    settings = parse_config(PipelineSettings, values, where=str(path))
    seeds: dict[str, Seeds] = {}
    videos = parse_config(VideosConfig, settings.videos, where=f"{path}: videos")
    nodes = {name: _node(name, block, path, seeds, splits=videos.splits) for name, block in settings.stages.items()}
    labels = None if settings.labels is None else parse_config(LabelsConfig, settings.labels, where=f"{path}: labels")
    return PipelineFile(
        path=path,
        videos=videos,
        labels=labels,
        nodes=spread(nodes, seeds, where=str(path)),
        store=_store(settings.store, path),
        overrides=tuple(overrides),
        cluster=_cluster(settings.cluster, path),
    )


def read_yaml(path: Path) -> DictConfig:
    """The mapping in a YAML file, read as data: tags that would make Python objects are errors."""
    try:
        content = OmegaConf.load(path)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such pipeline file") from None
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not readable as YAML: {error}") from None
    if not isinstance(content, DictConfig):
        raise ConfigError(f"{path}: a pipeline file is a mapping with videos and stages")
    return content


def _merge(content: DictConfig, overrides: Sequence[str], path: Path) -> dict[str, Any]:
    try:
        nodes = list(content.get("stages") or {})
        values = OmegaConf.to_container(
            _laid_over(content, [_full_name(override, nodes) for override in overrides]), resolve=True
        )
    except OmegaConfBaseException as error:
        unset = _UNSET.search(str(error))
        if unset is None:
            raise ConfigError(f"{path}: {error}") from None
        raise ConfigError(
            f"{path}: {error.full_key}: the environment variable {unset[1]} is not set. Set it, as in "
            f"export {unset[1]}=..., or write what it stands for"
        ) from None
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def _laid_over(content: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """``content`` with ``name=value`` laid over it, in full names (stages.train.epochs=5). Errors: OmegaConf's.

    Blocks are merged; one given another name keeps no options of the old one.

        model: {name: transformer, layers: 8}   +  model: {layers: 2}            ->  {name: transformer, layers: 2}
                                                +  model: {name: gru}            ->  {name: gru}
                                                +  model: {name: gru, layers: 1} ->  {name: gru, layers: 1}
        optimizer: {name: adamw, lr: 3e-4, betas: [0.9, 0.95]}  +  optimizer.name=sgd  ->  {name: sgd, lr: 3e-4}

    What every name has stays (`Settings.is_kept`). In which order settings are given makes no difference, unless a
    block is named twice. A node that is given another `uses` is another node: nothing of the old one stays.
    """
    given = OmegaConf.create()
    for override in overrides:
        try:
            laid = OmegaConf.from_dotlist([override])
        except yaml.YAMLError as error:
            raise ConfigError(
                f"override {override!r}: the value is not readable as YAML; in {{}} a space follows each colon, and a "
                f"text with signs of YAML stands in quotes: {' '.join(str(error).split())}"
            ) from None
        given = _merged(given, laid, file=content, is_whole=False)
    return _merged(content, given, file=content, is_whole=True)


def _merged(base: DictConfig, over: DictConfig, *, file: DictConfig, is_whole: bool) -> DictConfig:
    """``over`` laid over ``base``; where that ``is_whole``, a block without a name has the default one."""
    base = base.copy()
    for node, block in _mappings(over.get("stages")):
        old = OmegaConf.select(base, f"stages.{node}")
        if not isinstance(old, DictConfig):
            continue
        before, now = old.get(_USES), block.get(_USES)
        if before is not None and now is not None and before != now:
            old.clear()
            continue
        stage = now or before or OmegaConf.select(file, f"stages.{node}.{_USES}")
        if stage in all_stages():
            model = config_model(str(stage), where=node)
            _forget_other_names(old, block, model, (), is_whole=is_whole)
    merged = OmegaConf.merge(base, over)
    assert isinstance(merged, DictConfig)
    return merged


def _forget_other_names(
    old: DictConfig, over: DictConfig, model: type[StageConfig], place: tuple[str, ...], *, is_whole: bool
) -> None:
    """Take out of ``old``, the block at ``place``, and of those in it, what is of a name that ``over`` replaces."""
    settings = model_at(model, place)
    if settings is None or not issubclass(settings, Settings):
        return
    if _NAME in settings.model_fields and over.get(_NAME) is not None:
        before = old.get(_NAME, settings.model_fields[_NAME].default if is_whole else None)
        name = str(over.get(_NAME))
        if before is not None and before != name:
            for field in [str(field) for field in old if not settings.is_kept(str(field), name)]:
                del old[field]
    for field, block in _mappings(over):
        below = old.get(field)
        if isinstance(below, DictConfig):
            _forget_other_names(below, block, model, (*place, field), is_whole=is_whole)


def _mappings(block: Any) -> Iterator[tuple[str, DictConfig]]:
    """The mappings in ``block``, by name."""
    if isinstance(block, DictConfig):
        for name in block:
            value = block.get(name)
            if isinstance(value, DictConfig):
                yield str(name), value


def _full_name(override: str, nodes: Sequence[str]) -> str:
    """``train.lr=1`` means ``stages.train.lr=1`` where train is a node."""
    name, equals, value = override.partition("=")
    if not equals:
        raise ConfigError(f"override {override!r}: write name=value, such as train.epochs=5")
    top = name.split(".")[0]
    blocks = tuple(PipelineSettings.model_fields)
    if top in blocks:
        return override
    if top in nodes:
        return f"stages.{name}={value}"
    known = [*nodes, *blocks]
    raise ConfigError(
        f"override {override!r}: {top!r} is neither a node nor a block.{nearest(top, known)} Known: {', '.join(known)}"
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
    asked: Seeds | None = folds_of(block, model, splits=splits, where=where)
    asked = seeds_of(block, model, where=where) if asked is None else asked
    seeds.update({} if asked is None else {name: asked})
    own = SEEDS in model.model_fields
    values = {key: value for key, value in block.items() if key not in {_USES, FOLDS} and (key != SEEDS or own)}
    config = parse_config(model, values, where=where)
    for place, value in without_effect(config):
        raise ConfigError(
            f"{where}.{place} is {_shown(value)}, which changes nothing as the other settings are; leave it out, or "
            f"give what it is of (`reelwright settings {config.stage}` says it)"
        )
    return config


def _shown(value: Any) -> Any:
    return value.model_dump(mode="json", exclude_unset=True) if isinstance(value, Settings) else value


def _cluster(block: dict[str, Any], path: Path) -> dict[str, Any]:
    parse_config(ClusterSettings, block, where=f"{path}: cluster")
    return block


def _store(written: str | None, path: Path) -> Store:
    if written is not None:
        return Store.at(written if is_url(written) else path.parent / Path(written).expanduser())
    return Store.at(os.environ.get(STORE_VARIABLE) or path.parent / ".reelwright" / "store")
