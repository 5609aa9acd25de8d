"""Settings laid over a pipeline file: blocks are merged; one given another name keeps no options of the old one.

    model: {name: transformer, layers: 8}   +  model: {layers: 2}            ->  {name: transformer, layers: 2}
                                            +  model: {name: gru}            ->  {name: gru}
                                            +  model: {name: gru, layers: 1} ->  {name: gru, layers: 1}
    optimizer: {name: adamw, lr: 3e-4, betas: [0.9, 0.95]}  +  optimizer.name=sgd  ->  {name: sgd, lr: 3e-4}

What every name has stays (`Settings.is_kept`). In which order settings are given makes no difference, unless a block is
named twice. A node that is given another `uses` is another node: nothing of the old one stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from reelwright.stages.base.config import Settings, StageConfig, model_at
from reelwright.stages.base.registry import all_stages, config_model

_USES, _NAME = "uses", "name"


def laid_over(content: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """``content`` with ``name=value`` laid over it, in full names (stages.train.epochs=5). Errors: OmegaConf's."""
    given = OmegaConf.create()
    for override in overrides:
        given = _merged(given, OmegaConf.from_dotlist([override]), file=content, is_whole=False)
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
