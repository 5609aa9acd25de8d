"""What is laid over a pipeline file: overrides and references, by OmegaConf. Nothing is checked here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from reelwright.stages.base.config import Settings, StageConfig, model_at
from reelwright.stages.base.registry import all_stages, config_model
from reelwright.storage.errors import ConfigError, nearest

BLOCKS = ("videos", "labels", "store", "cluster", "stages")  # of a pipeline file
_USES, _NAME = "uses", "name"
_UNSET = re.compile(r"Environment variable '(.+?)' not found")  # as OmegaConf says it


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


def merge(content: DictConfig, overrides: Sequence[str], path: Path) -> dict[str, Any]:
    """``content`` with ``overrides`` (name=value) laid over it and references resolved, as plain data.

    Raises ConfigError for an override that names nothing and a reference that cannot be resolved.
    """
    try:
        stages = content.get("stages")
        nodes = [str(name) for name in stages] if isinstance(stages, DictConfig) else []
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
    if top in BLOCKS:
        return override
    if top in nodes:
        return f"stages.{name}={value}"
    known = [*nodes, *BLOCKS]
    raise ConfigError(
        f"override {override!r}: {top!r} is neither a node nor a block.{nearest(top, known)} Known: {', '.join(known)}"
    )
