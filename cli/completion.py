"""What the shell offers for what is being typed: nodes, stages, settings, recipes and runs, of the pipeline file there.

A file that cannot be read offers nothing: a completion has no place for a message.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from reelwright.storage.errors import ReelwrightError

if TYPE_CHECKING:
    from reelwright.pipeline.config.pipeline_file import PipelineFile


def complete_node(ctx: typer.Context, incomplete: str) -> list[str]:
    """Nodes of the pipeline file."""
    file = _file(ctx)
    return _fitting([] if file is None else list(file.nodes), incomplete)


def complete_model(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Nodes that train, and exported models beside the pipeline file."""
    from reelwright.stages.base.registry import stage_of

    file = _file(ctx)
    nodes = [] if file is None else file.nodes.items()
    found = [(name, config.stage) for name, config in nodes if stage_of(config.stage).trains]
    found += [(path.parent.name, "exported model") for path in sorted(Path.cwd().glob("*/model.json"))]
    return [entry for entry in found if entry[0].startswith(incomplete)]


def complete_setting(ctx: typer.Context, incomplete: str) -> list[str]:
    """``train.optimizer.lr=``, of the nodes and blocks of the pipeline file."""
    from reelwright.pipeline.config.seeds import base_name

    file = _file(ctx)
    if file is None or "=" in incomplete:
        return []
    nodes = {base_name(name): config for name, config in reversed(file.nodes.items())}  # of seeds, as the file has it
    blocks: dict[str, Any] = {**nodes, "videos": file.videos, "labels": file.labels}
    names = (name for block, config in blocks.items() if config is not None for name in _settings(type(config), block))
    return _fitting(list(names), incomplete)


def complete_recipe(incomplete: str) -> list[tuple[str, str]]:
    """Recipes, with what they are."""
    from reelwright.pipeline.config.recipes import recipe_summaries

    return [(name, text) for name, text in recipe_summaries().items() if name.startswith(incomplete)]


def complete_run(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Nodes, and first digits of the keys of the runs in the store."""
    from reelwright.pipeline.plan.history import History, short

    file = _file(ctx)
    if file is None:
        return []
    runs: list[tuple[str, str]] = []
    with contextlib.suppress(ReelwrightError, OSError):  # a damaged record: whoever presses Tab sees the nodes
        runs = [(short(record.key), f"{record.node}, {record.finished[:16]}") for record in History.of(file.store).runs]
    found = [*((name, config.stage) for name, config in file.nodes.items()), *runs]
    return [entry for entry in found if entry[0].startswith(incomplete)]


def _file(ctx: typer.Context) -> PipelineFile | None:
    from reelwright.pipeline.config.pipeline_file import find_pipeline_file, load_pipeline

    given = ctx.params.get("config")
    try:
        return load_pipeline(find_pipeline_file(None if given is None else Path(given)))
    except (ReelwrightError, OSError):
        return None


def _settings(model: type[Any], path: str) -> Iterator[str]:
    """Dotted names of the settings of a block and of the blocks in it."""
    for name, info in model.model_fields.items():
        if isinstance(info.annotation, type) and hasattr(info.annotation, "model_fields"):
            yield from _settings(info.annotation, f"{path}.{name}")
        else:
            yield f"{path}.{name}="


def _fitting(names: Sequence[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
